"""Functions and routes that do what they should not when they are interrupted, or on their way out."""

import os
import time
from pathlib import Path

from flask import Flask

from wsgi_timeout import Stub, wsgi_app
from wsgi_timeout.current import running

stub = Stub("resisting")


def note(tag):
    with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as runs:
        runs.write(f"{tag} {os.getpid()} {time.monotonic()}\n")


@stub.function()
@wsgi_app()
def web():
    return Flask(__name__)


@stub.function(timeout=1, retries=2)
def converts(tag):
    """Make an error of what interrupts the first two runs; the third one takes a part of its time."""
    note(tag)
    attempt = running.get().attempt
    try:
        time.sleep(30 if attempt < 3 else 0.6)
    except BaseException as error:
        raise RuntimeError(f"run {attempt} was interrupted") from error
    return attempt
