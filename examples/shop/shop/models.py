from datetime import UTC, datetime

from flask_login import UserMixin
from werkzeug.security import check_password_hash, generate_password_hash

from shop.extensions import db, login_manager


class User(UserMixin, db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(80), unique=True, nullable=False)
    password_hash = db.Column(db.String(200), nullable=False)
    orders = db.relationship("Order", back_populates="user")

    def set_password(self, password):
        self.password_hash = generate_password_hash(password)

    def check_password(self, password):
        return check_password_hash(self.password_hash, password)


class Product(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(80), nullable=False)
    cents = db.Column(db.Integer, nullable=False)


class Order(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    user_id = db.Column(db.ForeignKey("user.id"), nullable=False)
    user = db.relationship("User", back_populates="orders")
    placed_at = db.Column(db.DateTime, nullable=False, default=lambda: datetime.now(UTC))
    #: When the confirmation was sent, by a job.
    confirmed_at = db.Column(db.DateTime)
    #: The id of that job.
    job_id = db.Column(db.String(40))
    lines = db.relationship("OrderLine", back_populates="order")

    @property
    def cents(self):
        return sum(line.count * line.product.cents for line in self.lines)


class OrderLine(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    order_id = db.Column(db.ForeignKey("order.id"), nullable=False)
    order = db.relationship("Order", back_populates="lines")
    product_id = db.Column(db.ForeignKey("product.id"), nullable=False)
    product = db.relationship("Product")
    count = db.Column(db.Integer, nullable=False)


@login_manager.user_loader
def load_user(user_id):
    return db.session.get(User, int(user_id))
