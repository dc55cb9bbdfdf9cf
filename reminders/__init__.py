"""Reminders of notes. The top floor: it may import notes and scribes, but not jobs."""
