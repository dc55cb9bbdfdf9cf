"""From a note's text to vectors in the database, and from one embedding model to another.

encoder, engines, convert    run a model
chunking, pipeline, store    text -> passages -> vectors -> rows
regeneration, pending        when that happens: for all notes of a user, or for those that changed
rollout, coverage            which model a user's searches use, and which notes have its vectors
"""
