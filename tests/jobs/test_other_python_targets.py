"""`--python` with a target that it cannot run: the hints are those of test_ways_to_name_an_app.py."""

import pytest
from other_pythons import interpreter

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout_jobs.apps.other_python.process import AppProcess

MANAGE = 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")'
PACKAGE = {"shop/__init__.py": "", "shop/web.py": "from .views import x"}
FACTORY = {"shop.py": "def create_app():\n    pass\n\ndef _other(): pass\n"}
ASYNC = {"shop.py": "async def app(scope, receive, send):\n    pass\n"}


def refused(python, folder, files, target):
    """Return why an interpreter does not load a target below a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        AppProcess(python, target, 1, reload=False)
    return str(caught.value)


@pytest.mark.parametrize("version", ["2.7", pytest.param("3.13", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("files", "target", "words"),
    [
        ({}, "shop:app", "no module named 'shop' in {folder} or on the path; that folder has no .py file"),
        ({"store.py": ""}, "shop:app", "there is store"),
        ({"src/shop.py": ""}, "shop:app", "it is in src/: add --app-dir src"),
        ({"manage.py": MANAGE}, "shop:app", "name that, or mysite.wsgi:application"),
        ({"__init__.py": "", "shop.py": "from . import x"}, "shop:app", ": --app-dir .. web.shop:app"),
        (PACKAGE, "shop/web.py:app", "it is part of a package: shop.web:app"),
        (FACTORY, "shop:app", "has no attribute 'app'; its callables: create_app"),
    ],
    ids=["nothing", "another name", "src", "Django", "a relative import", "a file of a package", "a factory"],
)
def test_a_hint_says_which_line_would_work(tmp_path, monkeypatch, version, files, target, words):
    """Under any interpreter a target that is not found is refused with what to write."""
    folder = tmp_path / "web"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert words.format(folder=folder) in refused(interpreter(version), folder, files, target)


@pytest.mark.parametrize("version", ["3.6", pytest.param("3.13", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("files", "target", "words"),
    [
        ({"shop/views.py": ""}, "shop", "shop is a folder: name the app in it; there is views"),
        (FACTORY, "shop:create_app", "call a factory, as in shop:create_app()"),
        ({"shop.py": "def make_app(config, debug): pass"}, "shop:make_app", "call a factory, as in"),
        (ASYNC, "shop:app", "is an ASGI app"),
        ({"shop.txt": ""}, "./shop.txt:app", "is not a Python file"),
    ],
    ids=["a folder", "a factory", "a factory of two values", "ASGI", "a text"],
)
def test_what_is_no_wsgi_app_is_refused(tmp_path, monkeypatch, version, files, target, words):
    """A callable that takes no request is refused at start, not with its first request."""
    monkeypatch.chdir(tmp_path)
    assert words in refused(interpreter(version), tmp_path, files, target)
