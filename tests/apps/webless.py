"""A stub with functions only."""

from wsgi_timeout import Stub

stub = Stub()


@stub.function()
def one():
    return 1
