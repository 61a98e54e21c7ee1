"""A blueprint in a host that tests itself: eager, its prefixes, and the mistakes it tells of."""

import os
import re

import pytest
from flask import Flask
from harness import APPS

from wsgi_timeout import ConfigurationError, wsgi_blueprint

# -- in this process


@pytest.fixture
def made(monkeypatch):
    """Return a function that makes a host of this process, which has no Redis."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.syspath_prepend(APPS)

    def make(target="bare:app", prefix="/bare", subdomain=None, **options):
        app = Flask("made", subdomain_matching=subdomain is not None)
        app.testing = True
        app.register_blueprint(wsgi_blueprint(target, **options), url_prefix=prefix, subdomain=subdomain)
        return app

    return make


def get(app, target, **options):
    """Ask the app in this process; the response is read and closed, as a server does."""
    return app.test_client().get(target, buffered=True, **options)


def test_testing_runs_in_place(made):
    """With `testing` of the host the wrapped app runs in the test's process, without a Redis."""
    app = made()  # Flask 2.2 needs it to read an answer as JSON
    answer = get(app, "/bare/x?pid")
    assert (answer.json["pid"], answer.json["SCRIPT_NAME"]) == (os.getpid(), "/bare")


def test_eager_runs_in_place(made):
    """`eager` says what `testing` says, and stands before it."""
    app = made(eager=True)
    app.testing = False
    assert get(app, "/bare/x?pid").json["pid"] == os.getpid()
    with pytest.raises(ConfigurationError, match="REDIS_URL is not set"):
        get(made(eager=False), "/bare/x")


@pytest.mark.parametrize(
    ("prefix", "target", "script"),
    [
        ("/caf\xe9", "/caf%C3%A9/x", "/caf\xc3\xa9"),
        ("/a b/c", "/a%20b/c/x", "/a b/c"),
        ("/a/b/c/", "/a/b/c/x", "/a/b/c"),
        ("/<int:shop>/<lang>", "/7/de/x", "/7/de"),
        ("/", "/x", ""),
        (None, "/x", ""),
    ],
)
def test_prefixes(made, prefix, target, script):
    """A prefix may have spaces, letters of any kind, a slash at its end, or variables."""
    app = made(prefix=prefix)
    told = get(app, target).json
    assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == (script, "/x")


def test_a_subdomain(made):
    """A blueprint on a subdomain is there, and nowhere else."""
    app = made(subdomain="legacy")
    app.config["SERVER_NAME"] = "shop.example"
    assert get(app, "/bare/x", base_url="http://legacy.shop.example").status_code == 200
    assert get(app, "/bare/x", base_url="http://shop.example").status_code == 404


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"target": "no such module:app"}, "write module:app, module:factory() or file.py:app"),
        ({"only": "/x"}, "only='/x': write a list of patterns, ['/x']"),
        ({"except_": ["x"]}, "route pattern 'x': write a path that begins with /"),
        ({"routes": {"/x": {"max_waiting": 3}}}, "route '/x': max_waiting cannot be set per route"),
        ({"wait": 3}, "unknown setting 'wait': use one of wait_seconds"),
        ({"timeout": -1}, "timeout=-1: must be at least"),
    ],
)
def test_mistakes_are_told_where_they_are_written(made, options, complaint):
    """A bad target, pattern or setting fails when the blueprint is made."""
    with pytest.raises(ConfigurationError, match=re.escape(complaint)):
        made(**options)


def test_two_apps_of_one_module_need_names(made):
    """Two blueprints of one name in one host are refused by Flask."""
    app = made()
    with pytest.raises(ValueError, match="The name 'bare' is already registered"):
        app.register_blueprint(wsgi_blueprint("bare:app"), url_prefix="/second")
    app.register_blueprint(wsgi_blueprint("bare:app"), url_prefix="/second", name="second")
    assert get(app, "/second/x").json["SCRIPT_NAME"] == "/second"
