"""The apps that every contestant runs."""

from flask import Flask

noop = Flask("noop")


@noop.route("/", methods=["GET", "POST"])
def index():
    return "ok\n"
