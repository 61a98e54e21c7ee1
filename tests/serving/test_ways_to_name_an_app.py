"""Ways to name an app, and where it listens: --app-dir, --env-file, ASGI apps, unix sockets, hints."""

import os
import socket
import subprocess
import sys

import pytest
from harness import Serve, ask, environment

from wsgi_timeout.serving import app_environment

SERVE = [sys.executable, "-m", "wsgi_timeout.serving.cli", "serve"]
ASGI = """
import os

async def app(scope, receive, send):
    assert scope["type"] == "http", scope
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": os.environ["GREETING"].encode()})
"""

MANAGE = 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")'


def written(folder, files):
    """Write files by their names below a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def refused(folder, *words):
    """Return what `serve` says when it does not start."""
    env = {**environment(), "XDG_STATE_HOME": str(folder), "PYTHONPATH": ""}
    done = subprocess.run(
        [*SERVE, "--bind", "127.0.0.1:0", *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode
    assert "Traceback" not in done.stderr
    return done.stderr


def test_an_asgi_app_below_src_with_an_env_file(tmp_path):
    """An ASGI app is a target as it is, below --app-dir; --env-file sets what is not set."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "asyncly.py").write_text(ASGI)
    (tmp_path / "my.env").write_text("# for tests\nexport GREETING='good day'\n\n")
    options = ("--app-dir", "src", "--env-file", "my.env")
    served = Serve("asyncly:app", *options, folder=tmp_path, state=tmp_path / "state")
    try:
        assert ask(served.port, "/").text == "good day"
        assert "they share no memory: --processes 1 --threads 8" in served.output
    finally:
        served.stop()


def test_a_unix_socket(tmp_path):
    """`--bind unix:PATH` listens there, also where one is left over that nobody listens on."""
    (tmp_path / "small.py").write_text("def app(e, s):\n    s('200 OK', [])\n    return [b'there']\n")
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(tmp_path / "s"))
    served = ServeOnSocket("small:app", "--bind", "unix:s", folder=tmp_path, state=tmp_path / "state")
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(tmp_path / "s"))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        assert answer.endswith(b"there")
        assert "cannot listen on unix:s: Address already in use" in refused(
            tmp_path, "small:app", "-b", "unix:s"
        )
    finally:
        served.stop()


class ServeOnSocket(Serve):
    """`serve` whose address is no URL."""

    def wait_for(self, text, seconds=15.0):
        """Wait for the banner, and give the harness a port that is none."""
        super().wait_for(text.replace(r"(http://\S+)/", r"unix:\S+"), seconds)
        return ["", "unix:0"]


@pytest.mark.parametrize(
    ("files", "target", "words"),
    [
        ({}, "shop:app", "that folder has no .py file"),
        ({"store.py": ""}, "shop:app", "there is store"),
        ({"src/shop.py": ""}, "shop:app", "it is in src/: add --app-dir src"),
        ({"manage.py": MANAGE}, "shop:app", "name that, or mysite.wsgi:application"),
        ({"__init__.py": "", "shop.py": "from . import x"}, "shop:app", ": --app-dir .. web.shop:app"),
        ({"shop/views.py": ""}, "shop", "shop is a folder: name the app in it; there is views"),
        (
            {"shop/__init__.py": "", "shop/web.py": "from .views import x"},
            "shop/web.py:app",
            "it is part of a package: shop.web:app",
        ),
        ({"my-shop.py": ""}, "my_shop:app", "there is my-shop.py"),
        ({"my-shop.py": ""}, "my-shop:app", "write my-shop.py:app"),
        ({"shop/web.py": ""}, "shop/web", "there is shop/web.py"),
        ({"shop.py": ""}, "shop.app", "shop is a file: name the app in it, as in shop:app"),
        ({"src/shop/__init__.py": ""}, ".", "there is, in src/, shop: add --app-dir src"),
        ({"shop/__init__.py": ""}, ".", "name the app in it; there is shop"),
        ({"shop.py": "def create_app(): pass"}, "shop", "name the app, as in shop:create_app()"),
        ({"shop.py": "def make_app(env): pass"}, "shop.py", "name the app, as in shop.py:make_app('ENV')"),
        ({"shop.py": "from flask import Flask\nweb = Flask('shop')"}, "shop", "as in shop:web"),
        ({"shop/__init__.py": "", "shop/wsgi.py": "application = print()"}, "shop", "shop.wsgi:application"),
    ],
    ids=[
        "an empty folder",
        "another name",
        "src",
        "Django",
        "a relative import",
        "a folder",
        "a file of a package",
        "a name with a dash",
        "a dash for a module",
        "a file without .py",
        "a dot for a colon",
        "a folder with src",
        "a package",
        "a factory",
        "a factory with an argument",
        "an app of another name",
        "a module of a package",
    ],
)
def test_a_hint_says_which_line_would_work(tmp_path, files, target, words):
    """A target that is not found, or that is part of a package, is refused with what to write."""
    folder = tmp_path / "web"
    folder.mkdir()
    written(folder, files)
    assert words in refused(folder, target)


def test_what_an_env_file_may_have(tmp_path, monkeypatch):
    """A byte order mark, comments, quotes, escapes, several lines, CRLF: as python-dotenv reads them."""
    (tmp_path / "my.env").write_bytes(
        b'\xef\xbb\xbf# first\r\nWT_A = plain # comment\r\nexport WT_B="a # \\"b\\" \\n" # comment\n'
        b"  # indented\n\nWT_C='$A \\n'\nWT_D=\"two\nlines\"\nWT_E=#a=b\nWT_F=\nWT_G=it's"
    )
    for name in "ABCDEFG":
        monkeypatch.setenv(f"WT_{name}", "")
        del os.environ[f"WT_{name}"]
    app_environment._read_env_file(None, None, tmp_path / "my.env")
    found = [os.environ[f"WT_{name}"] for name in "ABCDEFG"]
    assert found == ["plain", 'a # "b" \n', "$A \\n", "two\nlines", "#a=b", "", "it's"]


def test_a_module_with_the_name_of_one_of_pythons(tmp_path):
    """An app's `queue.py` does not hide the standard library's from us; as the target it is to be renamed."""
    small = "def app(e, s):\n    s('200 OK', [])\n    return [b'there']\n"
    theirs = dict.fromkeys(("queue.py", "select.py", "signal.py", "types.py"), "")
    written(tmp_path, {"small.py": small, **theirs})
    served = Serve("small:app", folder=tmp_path, state=tmp_path / "state")
    try:
        assert ask(served.port, "/").text == "there"
    finally:
        served.stop()


def test_a_line_that_is_no_setting_is_refused(tmp_path):
    """A line of an --env-file without = is named."""
    (tmp_path / "my.env").write_text("GREETING\n")
    assert "'GREETING' is not NAME=VALUE" in refused(tmp_path, "shop:app", "--env-file", "my.env")


URLS = """
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("", lambda request: HttpResponse("by " + settings.SETTINGS_MODULE))]
"""
DJANGO = {
    "manage.py": MANAGE,
    "mysite/urls.py": URLS,
    "mysite/settings.py": "SECRET_KEY = 'x' * 50\nROOT_URLCONF = 'mysite.urls'\nALLOWED_HOSTS = ['*']\n",
}
#: For a place where manage.py names other settings than wsgi.py does.
WSGI = """
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.others")
application = get_wsgi_application()
"""
PYRAMID = {
    "shop.py": "from pyramid.config import Configurator\n"
    "from pyramid.response import Response\n"
    "def main(global_config, **settings):\n"
    "    config = Configurator(settings=settings)\n"
    "    config.add_route('home', '/')\n"
    "    config.add_view(lambda request: Response(settings['greeting']), route_name='home')\n"
    "    return config.make_wsgi_app()\n",
    "production.ini": "[app:main]\nuse = call:shop:main\ngreeting = by %(here)s\n"
    "[app:other]\nuse = call:shop:main\ngreeting = another\n",
}
LOADS = """
import sys
from wsgi_timeout import target
from webtest import TestApp
print(target.name_of(sys.argv[1]), TestApp(target.load(sys.argv[1])).get("/").text)
"""


@pytest.mark.parametrize(
    ("files", "target", "answer"),
    [
        (DJANGO, "manage.py", "mysite by mysite.settings"),
        ({**DJANGO, "mysite/wsgi.py": WSGI}, "manage.py", "mysite by mysite.settings"),
        (PYRAMID, "production.ini", "shop by {folder}"),
        (PYRAMID, "production.ini#other", "shop another"),
    ],
    ids=["Django without wsgi.py", "Django", "Pyramid", "a section"],
)
def test_a_file_of_a_framework_names_its_app(tmp_path, files, target, answer):
    """`manage.py` stands for the project and its settings, an `.ini` for the app that it sets up."""
    written(tmp_path, files)
    done = subprocess.run(
        [sys.executable, "-c", LOADS, target],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == answer.format(folder=tmp_path), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--python", sys.executable)], ids=["here", "another Python"])
@pytest.mark.parametrize(
    ("files", "target", "answer"),
    [(DJANGO, "manage.py", "by mysite.settings"), (PYRAMID, "production.ini", "by {folder}")],
    ids=["Django", "Pyramid"],
)
def test_such_a_file_is_served(tmp_path, files, target, answer, options):
    """Both halves, and another interpreter, take such a file."""
    written(tmp_path, files)
    served = Serve(target, *options, folder=tmp_path, state=tmp_path / "state")
    try:
        assert ask(served.port, "/").text == answer.format(folder=tmp_path)
    finally:
        served.stop()


def test_a_folder_is_no_app(tmp_path):
    """A folder as a target is refused with what is in it."""
    assert "is a folder: name the app in it; that folder has no .py file" in refused(tmp_path, ".")
    written(tmp_path, DJANGO)
    assert "manage.py is Django's: name that, or mysite.wsgi:application" in refused(tmp_path, "./")
    assert "no such file" in refused(tmp_path, "nothing.ini")
