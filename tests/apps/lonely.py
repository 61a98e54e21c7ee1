"""A stub with one web function, alone."""

from wsgi_timeout import Stub, wsgi_app

stub = Stub("lonely")


@stub.function()
@wsgi_app(label="ignored")
def web():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"lonely at {environ['PATH_INFO']}".encode()]

    return app
