"""Semantic and keyword search within one user's notes.

query           what the user typed -> a vector and a full-text query
ranking         the notes that match, best first
highlighting    the part of a note that is shown for a match
"""
