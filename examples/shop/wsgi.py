"""What the web server is told of."""

from shop import create_app

app = create_app()
