"""A Flask app with a session and flash messages; `seconds` of the form is how long it works."""

import time

from flask import Flask, flash, get_flashed_messages, redirect, request, session, url_for

app = Flask(__name__)
app.secret_key = "only for tests"


@app.get("/")
def index():
    items = "".join(f"<li>{item}</li>" for item in session.get("items", []))
    messages = "".join(f"<p class=flash>{message}</p>" for message in get_flashed_messages())
    return f"""<!doctype html><title>items</title>{messages}<ul>{items}</ul>
    <form method=post action=/add><input name=item id=item><input name=seconds value=0 id=seconds>
    <button id=add>add</button></form>"""


@app.post("/add")
def add():
    time.sleep(float(request.form["seconds"]))
    session["items"] = [*session.get("items", []), request.form["item"]]
    flash(f"{request.form['item']} was added")
    return redirect(url_for("index"), 302)
