"""Notes: their text, embeddings, search and scripture references.

This floor may import jobs and scribes, but not reminders.
"""
