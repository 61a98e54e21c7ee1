"""A Flask app that opts in, for web servers that its user chose."""

import hashlib
import os
import time

from flask import Flask, request

from wsgi_timeout import RequestTimeouts

app = Flask(__name__)
RequestTimeouts(app)


@app.route("/slow", methods=["GET", "POST"])
def slow():
    """Hash the body, and take as long as the query says."""
    digest = hashlib.sha256(request.get_data()).hexdigest()
    time.sleep(request.args.get("seconds", 0.0, type=float))
    return {"pid": os.getpid(), "sha256": digest}
