"""Import strings that name a WSGI app."""

import importlib
import os
import re
import select
import subprocess
import sys

import pytest

from wsgi_timeout.errors import TargetError
from wsgi_timeout.target import load, may_be_one, name_of, normal, resolved

APP = """
def app(environ, start_response):
    return [b"app"]

def other(environ, start_response):
    return [b"other"]

def create_app(*args, **kwargs):
    create_app.calls = args, kwargs
    return app

class nested:
    deep = other

text = "no app"
_hidden = app
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory of the test's own; what is imported from it is forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def legacy(folder):
    (folder / "legacy_app.py").write_text(APP)


def answer(app):
    return app({}, None)


# -- names


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("legacy:app", "legacy"),
        ("legacy", "legacy"),
        (" legacy:app ", "legacy"),
        ("shop.wsgi:application", "shop"),
        ("shop:create_app('prod')", "shop"),
        ("legacy.py:app", "legacy"),
        ("/srv/my app/old-shop.py:app", "old-shop"),
        ("../v1.2.py:app", "v1-2"),
        ("caf\xe9:app", "caf-"),
    ],
)
def test_the_name_of_a_target(target, name):
    """A target's name is its top module, in characters that a queue may have."""
    assert name_of(target) == name


@pytest.mark.parametrize(
    "target",
    ["", ":app", "  ", "my app:app", "my-app:app", "-", ".legacy:app", "a..b:app", "legacy.:app", "1:a"],
)
def test_a_malformed_target(target, folder):
    """What is no import string is refused, with its text and the right forms."""
    for use in (name_of, normal, load):
        with pytest.raises(TargetError, match=r"write module:app, module:factory\(\) or file.py:app"):
            use(target)


@pytest.mark.parametrize(
    ("target", "form"),
    [
        ("legacy", "legacy:app"),
        ("legacy:app", "legacy:app"),
        ("./legacy.py:app", "legacy:app"),
        ("legacy:other", "legacy:other"),
        ("legacy.wsgi:app", "legacy.wsgi:app"),
    ],
)
def test_one_form_for_one_app(target, form):
    """The strings that name one app have one form, and others another."""
    assert normal(target) == form


@pytest.mark.parametrize(
    ("target", "theirs", "expected"),
    [
        ("shop", "shop:application", True),
        ("shop", "shop:app", True),
        ("shop", "shop:other", False),
        ("shop:app", "shop:application", False),
        ("shop:application", "shop:application", True),
        ("./shop.py", "shop:application", True),
        ("bank", "shop:application", False),
    ],
)
def test_what_may_be_one_app(target, theirs, expected):
    """`shop` may be the `shop:application` that a worker serves; only one that imports it knows."""
    assert may_be_one(target, theirs) is expected


def test_a_loaded_target_has_its_attribute(folder):
    """Once it is loaded, `named_thus` is `named_thus:application` where the module has no `app`."""
    (folder / "named_thus.py").write_text("def application(environ, start_response): return [b'application']")
    load("named_thus")
    assert resolved("named_thus") == resolved("named_thus:application") == "named_thus:application"
    assert resolved("named_thus.py") == "named_thus:application"


# -- modules


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("legacy_app:app", b"app"),
        ("legacy_app:other", b"other"),
        ("legacy_app", b"app"),
        ("legacy_app:", b"app"),
        ("legacy_app:nested.deep", b"other"),
        ("legacy_app:_hidden", b"app"),
        ("legacy_app:create_app()", b"app"),
        ("legacy_app.py:app", b"app"),
        ("./legacy_app.py", b"app"),
    ],
)
def test_loading(legacy, target, body):
    """Each form of a target gives the WSGI callable that it names, from the current folder."""
    assert answer(load(target)) == [body]


def test_application_is_a_default(folder):
    """Without an attribute `app` is taken, else `application`."""
    (folder / "named_so.py").write_text("def application(environ, start_response): return [b'application']")
    assert answer(load("named_so")) == [b"application"]


def test_a_package(folder):
    """A module in a package is imported with its package."""
    (folder / "a_shop").mkdir()
    (folder / "a_shop" / "__init__.py").write_text("")
    (folder / "a_shop" / "wsgi.py").write_text(APP)
    assert answer(load("a_shop.wsgi:other")) == [b"other"]


def test_a_factory_takes_literals(legacy):
    """A factory is called with the literals that are written."""
    load("legacy_app:create_app('prod', 1, debug=True, tags=['a'])")
    assert sys.modules["legacy_app"].create_app.calls == (("prod", 1), {"debug": True, "tags": ["a"]})


def test_a_file_elsewhere(folder):
    """A file is loaded from its own folder, and can import its neighbours."""
    there = folder / "elsewhere"
    there.mkdir()
    (there / "its_neighbour.py").write_text("BODY = b'from a neighbour'")
    (there / "a_file.py").write_text("import its_neighbour\ndef app(e, s): return [its_neighbour.BODY]")
    assert answer(load("elsewhere/a_file.py:app")) == [b"from a neighbour"]
    assert answer(load(f"{there}/a_file.py:app")) == [b"from a neighbour"]
    assert sys.modules["a_file"].app is not None


def test_the_current_folder_is_on_the_path_once(legacy, folder):
    """Loading twice leaves one entry for the folder on the path."""
    load("legacy_app")
    load("legacy_app")
    assert sys.path.count(str(folder)) == 1


# -- errors


@pytest.mark.parametrize("target", ["no_such_module:app", "no_such_module.wsgi:app", "legacy_app.wsgi:app"])
def test_no_such_module(legacy, folder, target):
    """A module that is not there is a wrong target, and the message says where it was looked for."""
    with pytest.raises(TargetError, match=rf"no module named '.*' in {folder}"):
        load(target)


@pytest.mark.parametrize(
    "target", ["no_such.py:app", "./no_such.py", "elsewhere/x.py:app", "some/folder:app"]
)
def test_no_such_file(folder, target):
    """A file that is not there is a wrong target, and the message says where it would be."""
    with pytest.raises(TargetError, match=f"no such file: {folder}"):
        load(target)


def test_a_file_of_another_kind(folder):
    """A file that Python cannot import is a wrong target."""
    (folder / "readme.txt").write_text("app")
    with pytest.raises(TargetError, match="not a Python file"):
        load("./readme.txt:app")


def test_no_such_attribute(legacy):
    """An attribute that is not there is a wrong target, and the message names those that are."""
    with pytest.raises(TargetError, match=r"no attribute 'ap'; its callables: app, other, create_app"):
        load("legacy_app:ap")
    with pytest.raises(TargetError, match="no attribute 'x'"):
        load("legacy_app:app.x")


def test_no_default_attribute(folder):
    """A module without an app of a usual name asks for one."""
    (folder / "unusual.py").write_text("wsgi = print")
    with pytest.raises(TargetError, match="no app was found in it; name it, as in unusual:NAME"):
        load("unusual")


@pytest.mark.parametrize(
    "expression", ["a b", "app[0]", "app or other", "create_app()()", "1", "lambda: app", "(", "'"]
)
def test_what_is_no_name_or_call(legacy, expression):
    """After the colon stands a name or a call of one; all else is refused, and nothing of it is run."""
    with pytest.raises(TargetError, match=r"is not a name or a call|stands a name or a call of one"):
        load(f"legacy_app:{expression}")


@pytest.mark.parametrize("args", ["app", "open('x')", "*[1]", "x=app", "__import__('os')"])
def test_a_factory_takes_nothing_else(legacy, args):
    """Arguments that are no literals are refused before anything is called."""
    with pytest.raises(TargetError, match="literals only"):
        load(f"legacy_app:create_app({args})")
    assert not hasattr(sys.modules["legacy_app"].create_app, "calls")


@pytest.mark.parametrize("target", ["legacy_app:text", "legacy_app:nested.__doc__"])
def test_what_is_not_callable(legacy, target):
    """A target that is no callable is refused, and its value is shown."""
    with pytest.raises(TargetError, match="is not a WSGI callable"):
        load(target)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import a_module_that_the_app_misses", ModuleNotFoundError),
        ("from legacy_app import nothing_like_it", ImportError),
        ("1 / 0", ZeroDivisionError),
        ("def broken(", SyntaxError),
        ("raise SystemExit(3)", SystemExit),
    ],
)
@pytest.mark.parametrize("target", ["failing", "failing.py"])
def test_the_apps_own_errors_pass_through(legacy, folder, source, error, target):
    """What the app's import raises is the app's error, and keeps its traceback."""
    (folder / "failing.py").write_text(source)
    with pytest.raises(error) as caught:
        load(f"{target}:app")
    assert not isinstance(caught.value, TargetError)


def test_an_error_of_the_factory_passes_through(folder):
    """What a factory raises is the app's error."""
    (folder / "factory.py").write_text("def create_app(): return undefined_name")
    with pytest.raises(NameError, match="undefined_name"):
        load("factory:create_app()")


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("def app(): return lambda environ, start_response: []", "()"),
        ("def app(config, *, debug=False): return lambda environ, start_response: []", "('CONFIG')"),
        ("def app(config, /, a, b, *, c, **more): pass", "('CONFIG', 'A', 'B', c='C')"),
        ("from os import getcwd as app", "()"),
    ],
)
def test_what_takes_no_request(folder, source, call):
    """A factory that is not called is refused when it is loaded, with what to write."""
    (folder / "factory.py").write_text(source)
    with pytest.raises(TargetError, match=re.escape(f"call a factory, as in factory:app{call}")):
        load("factory:app")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "import flask\ndef create(): return flask.Flask('x')\nsite = create()",
            "factory:site",
        ),
        ("from legacy_app import create_app", "factory:create_app("),
        (
            "class N:\n    async def __call__(self, scope, receive, send): pass\nweb = N()",
            "factory:web",
        ),
        ("def make_app(config): pass", "factory:make_app('CONFIG')"),
    ],
)
def test_an_app_of_another_name_is_found(legacy, folder, source, said):
    """A module's own app or factory is what the hint names, wherever it was made."""
    (folder / "factory.py").write_text(source)
    with pytest.raises(TargetError, match=re.escape(f"name the app, as in {said}")):
        load("factory")


@pytest.mark.parametrize(
    "parameters", ["config, name=None", "config_name, debug", "config=None, debug=False"]
)
def test_a_factory_with_room_for_a_request(folder, parameters):
    """A factory that two values fit is refused at start; an app may have a factory's name."""
    (folder / "factory.py").write_text(f"def create_app({parameters}): pass\ndef make_app(e, s): pass")
    with pytest.raises(TargetError, match=r"call a factory, as in factory:create_app\("):
        load("factory:create_app")
    assert load("factory:make_app")


def test_what_no_call_makes_an_app(folder):
    """An app that is called, and a class without `__call__`, get no hint that would not work."""
    (folder / "factory.py").write_text("class N: pass\ndef app(environ, start_response): pass")
    with pytest.raises(TargetError, match=r"not a factory: write factory:app$"):
        load("factory:app()")
    with pytest.raises(TargetError, match=r"as a WSGI app$"):
        load("factory:N")


def test_a_factory_that_lacks_an_argument(folder):
    """What a factory needs is named; its own error is not taken for it."""
    (folder / "factory.py").write_text("def create_app(config, debug=False): return int(None)")
    with pytest.raises(TargetError, match=re.escape("'config': write factory:create_app('CONFIG')")):
        load("factory:create_app(debug=True)")
    with pytest.raises(TypeError):
        load("factory:create_app('CONFIG')")


def test_an_asgi_app_is_for_workers(folder):
    """An ASGI app is loaded where it can be run, and refused elsewhere."""
    (folder / "asyncly.py").write_text("async def app(scope, receive, send): pass")
    assert load("asyncly:app", asgi=True)
    with pytest.raises(TargetError, match="is an ASGI app, which workers run"):
        load("asyncly:app")


def test_a_callable_without_a_signature_is_believed(folder):
    """What does not tell its parameters may be a WSGI app."""
    (folder / "untold.py").write_text("app = type")
    assert load("untold:app") is type


def test_an_unguarded_run_is_ignored(folder, monkeypatch, capsys):
    """A Flask app that runs itself when it is imported is loaded, and a line says so."""
    monkeypatch.delenv("FLASK_RUN_FROM_CLI", raising=False)
    (folder / "runs.py").write_text("from flask import Flask\napp = Flask(__name__)\napp.run(port=0)\n")
    assert load("runs:app").name == "runs"
    assert "Ignoring a call to 'app.run()'" in capsys.readouterr().out
    assert "FLASK_RUN_FROM_CLI" not in os.environ


def test_in_a_fresh_process(legacy, folder):
    """An installed command finds the current folder's module, though it does not start in it."""
    code = "from wsgi_timeout.target import load; print(load('legacy_app:other')({}, None))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert done.stdout == "[b'other']\n"


def test_poll_is_there_after_an_app_that_removes_it(tmp_path):
    """An app may patch the standard library as eventlet does, which takes `select.poll` away."""
    path = tmp_path / "patched.py"
    path.write_text("import select\ndel select.poll\ndef app(environ, start_response): return []\n")
    before = select.poll
    load(f"{path}:app")
    assert select.poll is before
