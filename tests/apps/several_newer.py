"""The next version of the stub of several web functions: it has one more."""

from several import stub

from wsgi_timeout import web_endpoint


@stub.function()
@web_endpoint()
def brand_new():
    return "new"
