import csv
import io
import time
from datetime import UTC, datetime

import tasks
from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    flash,
    redirect,
    render_template,
    request,
    send_from_directory,
    session,
    url_for,
)
from flask_login import current_user, login_required, login_user, logout_user
from PIL import Image

import jobs
from shop.extensions import db
from shop.forms import ImageForm, LoginForm
from shop.models import Order, OrderLine, Product, User

catalogue = Blueprint("catalogue", __name__)
accounts = Blueprint("accounts", __name__)
orders = Blueprint("orders", __name__)


@catalogue.get("/")
def index():
    products = db.session.scalars(db.select(Product).order_by(Product.id)).all()
    return render_template("index.html", products=products, cart=session.get("cart", {}))


@catalogue.get("/products/<int:product_id>")
def product(product_id):
    return render_template("product.html", product=db.get_or_404(Product, product_id), form=ImageForm())


@catalogue.post("/cart/<int:product_id>")
def add_to_cart(product_id):
    product = db.get_or_404(Product, product_id)
    cart = session.setdefault("cart", {})
    cart[str(product.id)] = cart.get(str(product.id), 0) + 1
    session.modified = True
    flash(f"{product.name} is in your cart.")
    return redirect(url_for("catalogue.index"))


@catalogue.post("/products/<int:product_id>/image")
@login_required
def upload_image(product_id):
    product = db.get_or_404(Product, product_id)
    form = ImageForm()
    if not form.validate_on_submit():
        flash("; ".join(form.image.errors))
        return redirect(url_for("catalogue.product", product_id=product.id))
    image = Image.open(form.image.data.stream).convert("RGB")
    image.thumbnail((200, 200))
    time.sleep(current_app.config["SECONDS_PER_IMAGE"])
    image.save(current_app.config["DATA"] / f"product-{product.id}.png")
    flash(f"The image is {image.width} x {image.height} now.")
    return redirect(url_for("catalogue.product", product_id=product.id))


@catalogue.get("/products/<int:product_id>/image.png")
def product_image(product_id):
    return send_from_directory(current_app.config["DATA"], f"product-{product_id}.png")


@accounts.route("/login", methods=["GET", "POST"])
def login():
    form = LoginForm()
    if form.validate_on_submit():
        user = db.session.scalar(db.select(User).filter_by(name=form.name.data))
        if user and user.check_password(form.password.data):
            login_user(user, remember=form.remember.data)
            return redirect(request.args.get("next") or url_for("catalogue.index"))
        flash("That name and password do not fit.")
    return render_template("login.html", form=form)


@accounts.post("/logout")
def logout():
    logout_user()
    return redirect(url_for("catalogue.index"))


@orders.get("/")
@login_required
def index_of_orders():
    return render_template("orders.html", orders=own_orders())


@orders.post("/")
@login_required
def place():
    cart = session.pop("cart", None) or abort(400, "your cart is empty")
    lines = [OrderLine(product_id=int(key), count=count) for key, count in cart.items()]
    order = Order(user=current_user, lines=lines)
    db.session.add(order)
    db.session.commit()
    order.job_id = jobs.enqueue(tasks.send_confirmation, order.id).id
    db.session.commit()
    flash(f"Thank you. Order {order.id} is on its way.")
    return redirect(url_for("orders.index_of_orders"))


@orders.get("/<int:order_id>/status")
@login_required
def status(order_id):
    order = db.first_or_404(db.select(Order).filter_by(id=order_id, user=current_user))
    return {"order": order.id, "job": jobs.status(order.job_id), "confirmed": order.confirmed_at is not None}


@orders.get("/export.csv")
@login_required
def export():
    """All orders of a customer; takes a while for good ones."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["order", "placed", "product", "count", "euro"])
    for order in own_orders():
        time.sleep(current_app.config["SECONDS_PER_ORDER"])
        for line in order.lines:
            euro = f"{line.count * line.product.cents / 100:.2f}"
            writer.writerow([order.id, order.placed_at.date(), line.product.name, line.count, euro])
    name = f"orders-{datetime.now(UTC):%Y-%m-%d}.csv"
    headers = {"Content-Disposition": f"attachment; filename={name}"}
    return Response(table.getvalue(), mimetype="text/csv", headers=headers)


def own_orders():
    return db.session.scalars(db.select(Order).filter_by(user=current_user).order_by(Order.id)).all()
