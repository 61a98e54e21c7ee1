"""The odd app and the gateway as wsgiref.validate and WebTest's lint see them: both raise at a breach."""

import warnings
from wsgiref.validate import validator

import wsgi_odd
from webtest import lint

from wsgi_timeout import gateway

# Both warn of methods that they do not know.
warnings.filterwarnings("ignore", "Unknown REQUEST_METHOD")


def checked(app):
    return validator(lint.middleware(app))


app = checked(wsgi_odd.app)


def front(target, name):
    return checked(gateway(target, name=name))
