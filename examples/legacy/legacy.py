"""An ordinary Flask app of some years: reports, uploads, a login. It knows nothing of jobs."""

import csv
import hashlib
import io
import os
import time

from flask import (
    Flask,
    Response,
    flash,
    redirect,
    render_template_string,
    request,
    send_file,
    session,
    url_for,
)

app = Flask(__name__)
app.secret_key = os.environ.get("SECRET_KEY", "only-for-this-demo")

PAGE = """<!doctype html>
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Accounts</title>
<style>body{font:1rem/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}
li{margin:.4rem 0} .flash{background:#efe;color:#020;padding:.5rem 1rem}</style>
<h1>Accounts{% if session.user %} of {{ session.user }}{% endif %}</h1>
{% for message in get_flashed_messages() %}<p class="flash">{{ message }}</p>{% endfor %}
{{ body|safe }}
<p><a href="{{ url_for('index') }}">Home</a></p>
"""


def page(body, **values):
    return render_template_string(PAGE, body=render_template_string(body, **values))


def work(seconds):
    """Stands for what takes long: a query, a model, somebody else's API."""
    time.sleep(seconds)


@app.get("/")
def index():
    return page("""<ul>
      <li><a href="{{ url_for('report', year=2025, seconds=8) }}">The yearly report</a> (takes 8 s)
      <li><a href="{{ url_for('export') }}">Bookings as CSV</a> (streamed, row by row)
      <li><a href="{{ url_for('statement') }}">A bank statement</a> (a file)
      <li><a href="{{ url_for('upload') }}">Upload a document</a>
      <li><a href="{{ url_for('estimate') }}">An estimate</a> (a slow form that posts to its own address)
      <li><a href="{{ url_for('login') }}">Log in</a>
    </ul>""")


@app.get("/reports/<int:year>")
def report(year):
    seconds = request.args.get("seconds", 8.0, type=float)
    work(seconds)
    return page("<h2>Report {{ year }}</h2><p>Computed in {{ seconds }} s.</p>", year=year, seconds=seconds)


@app.get("/export.csv")
def export():
    rows = request.args.get("rows", 20, type=int)

    def lines():
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        for number in range(rows):
            writer.writerow([number, f"booking {number}", number * 19.9])
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
            work(0.1)

    return Response(lines(), mimetype="text/csv")


@app.get("/statement.txt")
def statement():
    data = io.BytesIO(b"".join(b"%06d  a line of the statement\n" % number for number in range(20_000)))
    return send_file(data, mimetype="text/plain", as_attachment=True, download_name="statement.txt")


@app.route("/upload", methods=["GET", "POST"])
def upload():
    if request.method == "POST":
        document = request.files["document"]
        digest = hashlib.file_digest(document.stream, "sha256").hexdigest()
        work(3)
        return page("<p>{{ name }}: sha256 {{ digest }}</p>", name=document.filename, digest=digest)
    return page("""<form method="post" enctype="multipart/form-data">
      <input type="file" name="document" required> <button>Upload</button></form>""")


@app.route("/estimate", methods=["GET", "POST"])
def estimate():
    answer = ""
    if request.method == "POST":
        work(request.form.get("seconds", 6.0, type=float))
        amount = int(request.form["amount"])
        answer = f"<p id='answer'>{amount} a month are {amount * 12} a year.</p>"
    # No action: a browser posts this to the address that it shows.
    return page(
        answer
        + """<form method="post"><input name="amount" type="number" value="100" required>
      <button>Estimate</button></form>"""
    )


@app.route("/login", methods=["GET", "POST"])
def login():
    if request.method == "POST":
        session["user"] = request.form["user"]
        flash(f"Welcome, {session['user']}")
        return redirect(url_for("index"))
    return page("""<form method="post"><input name="user" placeholder="Your name" required>
      <button>Log in</button></form>""")
