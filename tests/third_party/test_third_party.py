"""Programs with clients of their own: what a client does ends through jobs as it does without them."""

import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import requests
from harness import environment, is_missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

BIN = Path(sys.executable).parent
AUTHOR = {
    **{f"GIT_{who}_{what}": "ann" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    # dulwich takes a chunked body apart itself, which gunicorn has done before it: pushes with a length.
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "http.postBuffer",
    "GIT_CONFIG_VALUE_0": "50000000",
    "HGUSER": "ann",
    "HGRCPATH": "",
}
WHEEL = "sample-1.0-py3-none-any.whl"
EVENT = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//sample//EN
BEGIN:VEVENT
UID:one@sample
DTSTAMP:20261128T100000Z
DTSTART:20261201T100000Z
DTEND:20261201T110000Z
SUMMARY:Stand-up
END:VEVENT
END:VCALENDAR
"""


def needs(*modules):
    """Skip a test whose programs are not installed; see the `third-party` group in pyproject.toml."""
    for module in modules:
        if find_spec(module) is None:
            is_missing(module)


def run(*command, cwd, **env):
    """Run a client's command to its good end; returns what it printed."""
    clean = {**environment(), **AUTHOR, **env}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=clean,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


def commit(folder, program, name, content):
    (folder / name).write_bytes(content)
    run(program, "add", name, cwd=folder)
    run(program, "commit", "-m", f"add {name}", cwd=folder)


def test_mercurial_clones_and_pushes(serve, way, tmp_path):
    """hg clones from hgweb, pushes 3 MB, and another clone has it."""
    needs("mercurial")
    hg, origin = BIN / "hg", tmp_path / "origin"
    run(hg, "init", origin, cwd=tmp_path)
    (origin / ".hg" / "hgrc").write_text("[web]\npush_ssl = false\nallow_push = *\n")
    commit(origin, hg, "first", b"one\n")
    url = serve("third_hgweb:app", origin, way)
    run(hg, "clone", url, tmp_path / "ours", cwd=tmp_path)
    commit(tmp_path / "ours", hg, "large", os.urandom(3_000_000))
    run(hg, "push", cwd=tmp_path / "ours")
    run(hg, "clone", url, tmp_path / "theirs", cwd=tmp_path)
    assert (tmp_path / "theirs" / "large").read_bytes() == (tmp_path / "ours" / "large").read_bytes()
    assert run(hg, "log", "--template", "{desc}\n", cwd=tmp_path / "theirs") == "add large\nadd first\n"


@pytest.mark.parametrize(("app", "path"), [("dulwich", ""), ("klaus", "/origin")])
def test_git_clones_pushes_and_fetches(serve, way, tmp_path, app, path):
    """git clones by smart HTTP, pushes 3 MB, and what it pushed is fetched by another clone."""
    needs(app)
    origin, ours, theirs = tmp_path / "origin", tmp_path / "ours", tmp_path / "theirs"
    run("git", "init", "--bare", "-b", "main", origin, cwd=tmp_path)
    run("git", "init", "-b", "main", ours, cwd=tmp_path)
    commit(ours, "git", "first", b"one\n")
    run("git", "push", origin, "main", cwd=ours)
    url = serve(f"third_{app}:app", origin, way) + path
    run("git", "clone", url, theirs, cwd=tmp_path)
    commit(ours, "git", "large", os.urandom(3_000_000))
    run("git", "push", url, "main", cwd=ours)
    run("git", "pull", cwd=theirs)
    assert (theirs / "large").read_bytes() == (ours / "large").read_bytes()
    run("git", "fsck", "--full", cwd=origin)


def test_klaus_shows_a_repository(serve, way, tmp_path):
    """klaus' pages are shown, and its archive is a whole one."""
    needs("klaus")
    ours = tmp_path / "ours"
    run("git", "init", "-b", "main", ours, cwd=tmp_path)
    commit(ours, "git", "first", b"one\n")
    url = serve("third_klaus:app", ours, way)
    for page in ("/", "/ours/", "/ours/blob/main/first", "/ours/tree/main/"):
        assert requests.get(url + page, timeout=30).status_code == 200
    archive = requests.get(f"{url}/ours/tarball/main/", timeout=30)
    assert archive.content[:2] == b"\x1f\x8b"


def test_twine_uploads_and_pip_installs(serve, way, tmp_path):
    """What twine uploads to pypiserver is what pip downloads from it."""
    needs("pypiserver", "twine")
    packages = tmp_path / "packages"
    packages.mkdir()
    url = serve("third_pypi:app", packages, way)
    with zipfile.ZipFile(tmp_path / WHEEL, "w") as wheel:
        wheel.writestr("sample.py", "here = True\n")
        wheel.writestr("sample-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: sample\nVersion: 1.0\n")
        wheel.writestr(
            "sample-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("sample-1.0.dist-info/RECORD", "")
    login = ("-u", "ann", "-p", "secret", "--non-interactive", "--disable-progress-bar")
    run(BIN / "twine", "upload", "--repository-url", url, *login, tmp_path / WHEEL, cwd=tmp_path)
    pip = (sys.executable, "-m", "pip", "--isolated", "download", "--no-deps", "--no-cache-dir")
    run(*pip, "--index-url", f"{url}/simple/", "-d", tmp_path / "got", "sample", cwd=tmp_path)
    assert (tmp_path / "got" / WHEEL).read_bytes() == (tmp_path / WHEEL).read_bytes()


def test_a_calendar_is_kept(serve, way, tmp_path):
    """The caldav client makes a calendar in Radicale, and an event that it finds, changes and deletes."""
    needs("radicale", "caldav")
    import caldav

    url = serve("third_radicale:app", tmp_path, way)
    with caldav.DAVClient(f"{url}/ann/", username="ann", password="any", auth_type="basic") as client:
        calendar = client.principal().make_calendar(name="Work")
        calendar.save_event(EVENT)
        assert [event.icalendar_component["SUMMARY"] for event in calendar.events()] == ["Stand-up"]
        event = calendar.events()[0]
        event.data = EVENT.replace("Stand-up", "Retro")
        event.save()
        assert [found.icalendar_component["SUMMARY"] for found in calendar.events()] == ["Retro"]
        event.delete()
        assert calendar.events() == []


def test_datasette_answers_the_same(serve, tmp_path):
    """Datasette, an ASGI app, gives the same rows, as JSON and as streamed CSV, as its own server does."""
    needs("datasette")
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("create table orders (id integer primary key, what text)")
        database.executemany("insert into orders (what) values (?)", [(f"thing {n}",) for n in range(3000)])
    database.close()
    url = serve("third_datasette:stub", tmp_path, "jobs")
    pages = {
        "/shop/orders.json?_shape=array&_size=5": json.loads,
        "/shop/orders.csv?_stream=1": str.splitlines,
        "/shop.json?sql=select+count(*)+from+orders&_shape=array": json.loads,
    }
    for page, read in pages.items():
        program = (BIN / "datasette", tmp_path / "shop.db", "--get", page)
        assert read(requests.get(url + page, timeout=60).text.strip()) == read(
            run(*program, cwd=tmp_path).strip()
        )
