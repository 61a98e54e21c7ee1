"""An app that is heavy to import: 64 MiB that stay."""

from flask import Flask

BALLAST = bytes(range(256)) * (64 * 4096)

app = Flask("heavy")


@app.get("/")
def index():
    return f"{len(BALLAST)}\n"
