"""Datasette, an ASGI app, over the SQLite file that `APP_FOLDER` has."""

import os
from pathlib import Path

from wsgi_timeout import Stub, asgi_app

stub = Stub("datasette")


@stub.function()
@asgi_app()
def site():
    from datasette.app import Datasette

    return Datasette([str(Path(os.environ["APP_FOLDER"]) / "shop.db")]).app()
