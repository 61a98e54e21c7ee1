"""The shop that opts in by itself: its slow routes run as calls, all others in the web process as before."""

from shop import create_app

from wsgi_timeout import RequestTimeouts

app = create_app()
RequestTimeouts(app, name="shop-slow", only=["/orders/export.csv", "POST /products/*/image"])
