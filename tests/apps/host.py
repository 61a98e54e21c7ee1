"""A Flask app that hosts others: each under a prefix of its own, some behind a login."""

import os
from wsgiref.validate import validator

from flask import Blueprint, Flask, abort, redirect, request, session

from wsgi_timeout import wsgi_blueprint

host = Flask(__name__, static_folder=None)
host.secret_key = "only for tests"

bare = wsgi_blueprint("bare:app")
host.register_blueprint(bare, url_prefix="/bare")
host.register_blueprint(bare, url_prefix="/members/area", name="members")
host.register_blueprint(bare, url_prefix="/of/<tenant>", name="tenants")
host.register_blueprint(wsgi_blueprint("basic:app", name="below-flask"), url_prefix="/flask")
host.register_blueprint(wsgi_blueprint("bottled:app"), url_prefix="/bottle")
host.register_blueprint(wsgi_blueprint("django_project:application"), url_prefix="/django/")
host.register_blueprint(wsgi_blueprint("nesting:app"), url_prefix="/nesting")
host.register_blueprint(wsgi_blueprint("several:stub"), url_prefix="/stub")
host.register_blueprint(
    wsgi_blueprint("bare:app", only=["/calls/*"], routes={"/calls/now": {"wait_for_response": False}}),
    url_prefix="/some",
    name="some",
)

team = Blueprint("team", __name__)
team.register_blueprint(bare, url_prefix="/bare")
host.register_blueprint(team, url_prefix="/team")

#: With a guard of its own, as any blueprint may have.
staff = wsgi_blueprint("bare:app")
staff.before_request(lambda: None if session.get("user") == "admin" else abort(403))
host.register_blueprint(staff, url_prefix="/staff", name="staff")


@host.before_request
def guard():
    """Send who is not logged in to the login, as Flask-Login does."""
    if request.path.startswith("/members"):
        if "user" not in session:
            return redirect("/login", 302)
        session["seen"] = session.get("seen", 0) + 1
    return None


@host.before_request
def peek():
    """Read the form before the wrapped app does, as CSRF protection does."""
    if "peek" in request.args:
        request.form.get("field")


@host.after_request
def sign(response):
    if request.path.startswith("/members"):
        response.headers["X-Host"] = f"{request.endpoint} for {session.get('user')}"
        response.set_cookie("host", "was here")
    return response


@host.post("/login/<user>")
def login(user):
    session["user"] = user
    return f"hello {user}\n"


@host.post("/logout")
def logout():
    session.clear()
    return "bye\n"


@host.get("/bare/own")
@host.get("/barefoot")
def own():
    return {"pid": os.getpid()}


host.wsgi_app = validator(host.wsgi_app)

#: Nothing but another app, and one route.
root = Flask(__name__, static_folder=None)
root.register_blueprint(wsgi_blueprint("bare:app"))
root.add_url_rule("/own", view_func=own)
root.wsgi_app = validator(root.wsgi_app)
