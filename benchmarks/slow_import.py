"""An app that is slow to import, and holds 67 MB."""

import time

from heavy import app

time.sleep(3)


@app.get("/sleep")
def sleep():
    time.sleep(60)
    return "slept\n"
