"""Semantic and keyword search within one user's notes.

query           what the user typed -> a vector and a full-text query
ranking         the notes that match, best first
hits            the notes of a page, each with its best passage
highlighting    the query's words in that passage
"""
