"""A web app of 2019, as it was: Flask 1.1, Werkzeug 0.16, Jinja2 2.11, Python 2.7 or 3.6."""

import sys
import time

from flask import Flask, jsonify, render_template_string, request

app = Flask(__name__)

PAGE = """<!doctype html>
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Orders</title>
<style>body { font: 1rem/1.5 sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem }</style>
<h1>Orders</h1><p>Python {{ version }}
<p><a href="{{ url_for('report', year=2019, seconds=8) }}">The report of 2019</a> (takes 8 s)
"""


@app.route("/")
def home():
    return render_template_string(PAGE, version=sys.version.split()[0])


@app.route("/report/<int:year>")
def report(year):
    """Take as long as a report of 2019 does."""
    seconds = float(request.args.get("seconds", 40))
    for month in range(1, 13):
        time.sleep(seconds / 12)
        progress = request.environ.get("wsgi_timeout.progress")
        if progress:
            progress(month, 12, "month {}".format(month))
    return jsonify(year=year, orders=12345, python=sys.version.split()[0])
