"""The gateway as the standard library's WSGI validator sees it: it raises at any breach of PEP 3333."""

from wsgiref.validate import validator

from wsgi_timeout import gateway


def wrapped(target, name):
    return validator(gateway(target, name=name))
