"""How web processes serve HTTP: an event loop talks to clients, and a few threads run Django.

config    gunicorn's settings: `gunicorn -c python:scribes.serving.config scribes.asgi`
worker    gunicorn's worker, with time limits for connections without a request
bridge    requests and responses between the event loop and the threads
"""
