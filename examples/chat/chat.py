"""An ordinary Flask app that streams tokens for a minute, as a language model does; the tokens are made up.

Nothing of wsgi-timeout is in it. Served by `make chat`, its streams survive lost connections: the page's
EventSource comes back by itself, and goes on with the same answer.
"""

import itertools
import json
import random
import time

from flask import Flask, Response, render_template, request

app = Flask(__name__)

TEXT = """A request that takes a minute dies on its way where proxies cut what is silent. So the answer is
computed in a process of its own and each word waits in a buffer until its reader has it. When the network
breaks the page comes back and says which word it had last. Then the next one follows and nothing is computed
twice."""
WORDS = TEXT.split()


def tokens(prompt):
    """Yield words for about a minute, at the pace of a model that thinks now and then."""
    pace = random.Random(prompt)
    yield f"You asked: “{prompt}”. Here is what I made up: "
    for number, word in enumerate(itertools.islice(itertools.cycle(WORDS), 3 * len(WORDS))):
        time.sleep(pace.choice((0.1, 0.2, 0.3, 0.3, 0.4)) + (4 if number % 60 == 30 else 0))
        yield word + " "


@app.get("/")
def page():
    return render_template("chat.html")


@app.get("/answer")
def answer():
    """Stream the answer to a prompt as events; the last one is `done`."""

    def events(prompt):
        for token in tokens(prompt):
            yield f"data: {json.dumps(token)}\n\n"
        yield "event: done\ndata: {}\n\n"

    return Response(events(request.args.get("prompt", "")), mimetype="text/event-stream")
