"""A Flask app that is wrapped by a host, and has another app wrapped in itself."""

import os

from flask import Flask

from wsgi_timeout import wsgi_blueprint

app = Flask(__name__)
app.register_blueprint(wsgi_blueprint("bare:app", name="inner"), url_prefix="/inner")


@app.get("/pid")
def pid():
    return {"pid": os.getpid()}
