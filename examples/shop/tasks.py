"""What the shop's own rq worker runs."""

from datetime import UTC, datetime


def send_confirmation(order_id):
    """Write the mail that confirms an order; returns to whom."""
    from shop import create_app
    from shop.extensions import db
    from shop.models import Order

    app = create_app()
    with app.app_context():
        order = db.session.get(Order, order_id)
        mail = app.config["DATA"] / f"mail-{order.id}.txt"
        mail.write_text(f"Dear {order.user.name}, your order of {order.cents / 100:.2f} euro ...\n")
        order.confirmed_at = datetime.now(UTC)
        db.session.commit()
        return order.user.name
