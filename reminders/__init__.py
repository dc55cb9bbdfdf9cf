"""Reminders that belong to notes. The top floor: it may import notes, jobs and scribes."""
