"""The app of `own_server` for a server that speaks ASGI."""

from a2wsgi import WSGIMiddleware
from own_server import app as wsgi

app = WSGIMiddleware(wsgi)
