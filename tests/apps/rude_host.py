"""A host whose `after_request` does not let the wrapped app's responses out."""

import os

from flask import Flask, Response, request

from wsgi_timeout import wsgi_blueprint

host = Flask(__name__)
host.register_blueprint(wsgi_blueprint("basic:app", name=os.environ["BLUEPRINT_NAME"]), url_prefix="/b")


@host.after_request
def after(response):
    what = request.args.get("after")
    if what == "raises":
        raise RuntimeError("as intended")
    if what == "replaces":
        return Response("another\n")
    if what == "wraps":
        return Response((part.upper() for part in response.response), status=response.status)
    return response
