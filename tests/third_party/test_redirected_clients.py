"""Clients whose request takes longer than a wait: what each does is what the table of clients says."""

import os
import shutil
import subprocess
import sys
import urllib.request
import xmlrpc.client
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import requests
from harness import Deployment, environment, is_missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

BIN = Path(sys.executable).parent
#: More than one wait.
SLOW = "seconds=0.5"
WHEEL = "sample-1.0-py3-none-any.whl"
PROGRAMS = {"third_dulwich": "dulwich", "third_hgweb": "mercurial", "third_pypi": "pypiserver"}
QUIET = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0", "HGUSER": "ann", "HGRCPATH": ""}

MANUAL = """
const answer = await fetch(process.argv[1], {redirect: "manual"});
console.log(answer.status, (await answer.text()).includes("Its response will be at"));
"""
FOLLOWED = "const answer = await fetch(process.argv[1]); console.log(answer.status, await answer.text());"
AIOHTTP = """
import asyncio, sys, aiohttp
async def main():
    async with aiohttp.ClientSession() as session, session.get(sys.argv[1]) as answer:
        print(answer.status, await answer.text())
asyncio.run(main())
"""


def run(*command, cwd):
    """Run a client's command; returns its exit code, and what it printed."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**environment(), **QUIET},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def site(deploy):
    return deploy("addresses:app", pool=("--processes", "2"), wait_seconds=0.2)


@pytest.fixture
def slow(redis_server):
    """Return a function that serves a program over a folder, each answer slower than one wait."""
    started = []

    def start(module, folder):
        if find_spec(PROGRAMS[module]) is None:
            is_missing(PROGRAMS[module])
        os.environ.update(APP_SLOW=module, APP_FOLDER=str(folder))
        options = {"pool": ("--processes", "2"), "wait_seconds": 0.2}
        started.append(Deployment(redis_server, "third_slow:app", **options))
        return started[-1].url

    yield start
    for name in ("APP_SLOW", "APP_FOLDER"):
        os.environ.pop(name, None)
    for deployment in started:
        deployment.stop()


def test_git_refuses_the_redirect(slow, tmp_path):
    """git takes a redirect only where the URL's end stays as it was: an error, and no half clone."""
    assert run("git", "init", "--bare", tmp_path / "bare", cwd=tmp_path)[0] == 0
    code, output = run("git", "clone", slow("third_dulwich", tmp_path / "bare"), "ours", cwd=tmp_path)
    assert (code, "unable to update url base from redirection" in output) == (128, True)
    assert not (tmp_path / "ours").exists()


def test_hg_ends_with_an_error(slow, tmp_path):
    """hg follows the first GET, and then goes on at the result URL, of which it makes no sense."""
    assert run(BIN / "hg", "init", tmp_path / "origin", cwd=tmp_path)[0] == 0
    code, output = run(BIN / "hg", "clone", slow("third_hgweb", tmp_path / "origin"), "ours", cwd=tmp_path)
    assert (code, "abort:" in output) == (255, True)


def test_twine_refuses_and_pip_follows(slow, tmp_path):
    """twine says that it was redirected, though its upload is there; pip downloads it."""
    packages = tmp_path / "packages"
    packages.mkdir()
    with zipfile.ZipFile(tmp_path / WHEEL, "w") as wheel:
        information = "Metadata-Version: 2.1\nName: sample\nVersion: 1.0\n"
        wheel.writestr("sample-1.0.dist-info/METADATA", information)
        kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr("sample-1.0.dist-info/WHEEL", kind)
        wheel.writestr("sample-1.0.dist-info/RECORD", "")
    url = slow("third_pypi", packages)
    upload = (BIN / "twine", "upload", "--repository-url", url, "-u", "a", "-p", "b", "--non-interactive")
    code, output = run(*upload, tmp_path / WHEEL, cwd=tmp_path)
    assert (code, "RedirectDetected" in output) == (1, True)
    pip = (sys.executable, "-m", "pip", "--isolated", "download", "--no-deps", "--no-cache-dir")
    code, output = run(*pip, "--index-url", f"{url}/simple/", "-d", "got", "sample", cwd=tmp_path)
    assert code == 0, output
    assert (tmp_path / "got" / WHEEL).read_bytes() == (tmp_path / WHEEL).read_bytes()


def test_an_xmlrpc_client_raises(site):
    """`xmlrpc.client` takes the 303 for an error of the protocol."""
    refused = pytest.raises(xmlrpc.client.ProtocolError, match="303 See Other")
    with xmlrpc.client.ServerProxy(f"{site.url}/list?{SLOW}") as proxy, refused:
        proxy.hello()


def test_a_sender_that_follows_nothing_has_a_303(site):
    """A webhook sender by requests has a 303, which counts as a success, and says where to look."""
    answer = requests.post(f"{site.url}/list?{SLOW}", json={}, allow_redirects=False, timeout=30)
    assert (answer.status_code, answer.ok) == (303, True)
    assert f"Its response will be at\n{site.url}/list?{SLOW}&" in answer.text
    url = f"{site.url}/list?page=1&{SLOW}"
    with urllib.request.urlopen(url, data=b"sent", timeout=30) as answer:
        assert answer.read() == b"page 1"


@pytest.mark.parametrize("client", ["node", "aiohttp"])
@pytest.mark.parametrize("path", ["/./list?page=%7e1%2f~", "/%6cist?page=%7E1/~"])
def test_a_client_that_escapes_anew_finds_its_result(site, tmp_path, client, path):
    """Node's fetch and aiohttp spell URLs their own way: they get the result, of one run."""
    if client == "aiohttp" and find_spec("aiohttp") is None:
        is_missing("aiohttp")
    tag = f"{client}{len(path)}"
    program = ("node", "--input-type=module", "-e", FOLLOWED)
    if client == "aiohttp":
        program = (sys.executable, "-c", AIOHTTP)
    code, output = run(*program, f"{site.url}{path}&tag={tag}&{SLOW}", cwd=tmp_path)
    assert (code, output.strip()) == (0, "200 page ~1/~")
    assert len(site.runs(f"{tag}-GET")) == 1


def test_node_shows_a_redirect_that_it_does_not_follow(site, tmp_path):
    """With `redirect: "manual"` Node's fetch gives the 303 and its text."""
    program = ("node", "--input-type=module", "-e", MANUAL)
    assert run(*program, f"{site.url}/list?{SLOW}", cwd=tmp_path) == (0, "303 true\n")


def test_wget_goes_on_with_a_broken_download(deploy, tmp_path):
    """wget, which comes back to the result URL by itself with a range, ends with the right bytes."""
    if shutil.which("wget") is None:
        is_missing("wget")
    copies = deploy("copies:app", pool=("--processes", "2"), wait_seconds=0.15)
    command = ("wget", "-q", "--tries=3", "-O", "got", f"{copies.url}/file.bin?wget")
    code, output = run(*command, cwd=tmp_path)
    assert code == 0, output
    assert (tmp_path / "got").read_bytes() == bytes(range(256)) * 40_000
    assert copies.runs("file.bin") == ["file.bin - - -", "file.bin - bytes=5120000- -"]
