"""A host app of today, with the shop below a prefix of it."""

from flask import Flask

from wsgi_timeout import wsgi_blueprint

PAGE = """<!doctype html>
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Portal</title>
<a href="/shop/">The shop</a>
"""

app = Flask(__name__)
# The shop's cookie is called `session`: the host's needs another name.
app.config.update(SECRET_KEY="only-for-this-demo", SESSION_COOKIE_NAME="portal")
app.register_blueprint(wsgi_blueprint("shop:create_app()"), url_prefix="/shop")


@app.get("/")
def index():
    return PAGE
