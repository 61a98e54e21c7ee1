"""Ways to name an app, and where it listens: --app-dir, --env-file, ASGI apps, unix sockets, hints."""

import socket
import subprocess
import sys

import pytest
from harness import Serve, ask, environment

SERVE = [sys.executable, "-m", "wsgi_timeout.serving.cli", "serve"]
ASGI = """
import os

async def app(scope, receive, send):
    assert scope["type"] == "http", scope
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": os.environ["GREETING"].encode()})
"""

MANAGE = 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")'


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
        assert "each with memory of its own: --processes 1 --threads 8" in served.output
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
        ({"manage.py": MANAGE}, "shop:app", "the app is mysite.wsgi:application"),
        ({"__init__.py": "", "shop.py": "from . import x"}, "shop:app", ": --app-dir .. web.shop:app"),
    ],
    ids=["an empty folder", "another name", "src", "Django", "a relative import"],
)
def test_a_hint_says_which_line_would_work(tmp_path, files, target, words):
    """A target that is not found, or that is part of a package, is refused with what to write."""
    folder = tmp_path / "web"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    folder.mkdir(exist_ok=True)
    assert words in refused(folder, target)


def test_a_line_that_is_no_setting_is_refused(tmp_path):
    """A line of an --env-file without = is named."""
    (tmp_path / "my.env").write_text("GREETING\n")
    assert "'GREETING' is not NAME=VALUE" in refused(tmp_path, "shop:app", "--env-file", "my.env")
