"""A small shop: catalogue, cart, orders, exports. A Flask app of some years, with an application factory."""

import os
from pathlib import Path

from flask import Flask

from shop.cli import init_db
from shop.extensions import csrf, db, login_manager
from shop.views import accounts, catalogue, orders

DATA = Path(os.environ.get("SHOP_DATA", Path(__file__).parent.parent / "data")).resolve()


def create_app(config=None):
    app = Flask(__name__)
    app.config.from_mapping(
        SECRET_KEY=os.environ.get("SECRET_KEY", "only-for-this-demo"),
        SQLALCHEMY_DATABASE_URI=os.environ.get("DATABASE_URL", f"sqlite:///{DATA / 'shop.db'}"),
        SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 5, "max_overflow": 2, "pool_pre_ping": True},
        MAX_CONTENT_LENGTH=20 * 1024 * 1024,
        DATA=DATA,
        # Stand for a query over years of bookings, and for what the image library takes.
        SECONDS_PER_ORDER=float(os.environ.get("SHOP_SECONDS_PER_ORDER", "1")),
        SECONDS_PER_IMAGE=float(os.environ.get("SHOP_SECONDS_PER_IMAGE", "3")),
    )
    app.config.update(config or {})
    DATA.mkdir(parents=True, exist_ok=True)

    db.init_app(app)
    login_manager.init_app(app)
    csrf.init_app(app)
    app.register_blueprint(catalogue)
    app.register_blueprint(accounts)
    app.register_blueprint(orders, url_prefix="/orders")
    app.cli.add_command(init_db)
    return app
