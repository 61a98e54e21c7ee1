"""A host with httpbin in a blueprint."""

from flask import Flask

from wsgi_timeout import wsgi_blueprint

app = Flask(__name__, static_folder=None)
httpbin = wsgi_blueprint("httpbin:app", routes={"/delay/0.8": {"wait_seconds": 0.3}})
app.register_blueprint(httpbin, url_prefix="/bin")
