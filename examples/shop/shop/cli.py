import click
from flask.cli import with_appcontext

from shop.extensions import db
from shop.models import Order, OrderLine, Product, User

PRODUCTS = [("Teapot", 4200), ("Café crème, 250 g", 890), ("Kettle", 3150)]
ORDERS = 3


@click.command("init-db")
@with_appcontext
def init_db():
    """Create the tables, and something to look at."""
    db.drop_all()
    db.create_all()
    for name in ("ann", "bob"):
        user = User(name=name)
        user.set_password("secret")
        db.session.add(user)
    products = [Product(name=name, cents=cents) for name, cents in PRODUCTS]
    for number in range(ORDERS):
        lines = [OrderLine(product=product, count=number + 1) for product in products]
        db.session.add(Order(user=user, lines=lines))
    db.session.add_all(products)
    db.session.commit()
    click.echo("Log in as ann or bob, with the password secret.")
