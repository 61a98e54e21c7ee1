"""The recipes in deploy/: each is used, with its proxy's limits cut to seconds."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from harness import Process, ask, is_missing, until

DEPLOY = Path(__file__).parents[2] / "deploy"
#: Seconds after which the proxies cut here, in place of 60.
LIMIT = 2


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "2"), wait_seconds=1)


@pytest.fixture(scope="module")
def webs(site):
    """Two web processes."""
    web = site.start_web()
    yield site.web.port, web.port
    web.stop()


def program(name):
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        is_missing(name)
    return found


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def recipe(name, webs, port, folder):
    """Return a copy of a recipe with ports of these tests and a limit of seconds."""
    text = (DEPLOY / name).read_text()
    changes = {
        "60s": f"{LIMIT}s",
        "127.0.0.1:8080": f"127.0.0.1:{port}",
        "listen 8080": f"listen 127.0.0.1:{port}",
    }
    changes |= {f"127.0.0.1:800{number}": f"127.0.0.1:{web}" for number, web in enumerate(webs)}
    changes["events {}"] = f"events {{}}\npid {folder}/pid;\ndaemon off;\nerror_log stderr;"
    for before, after in changes.items():
        text = text.replace(before, after)
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "command"),
    [("nginx.conf", ["nginx", "-c"]), ("haproxy.cfg", ["haproxy", "-W", "-f"])],
    ids=["nginx", "haproxy"],
)
@pytest.mark.slow
def test_a_call_longer_than_the_proxy_allows_arrives(webs, tmp_path, name, command):
    """Behind the recipe's proxy a call of four times its limit ends with the app's answer."""
    port = free_port()
    path = recipe(name, webs, port, tmp_path)
    proxy = Process([program(command[0]), *command[1:], path], cwd=tmp_path)
    try:
        until(lambda: reached(port), 15, "the proxy")
        assert ask(port, "/__wsgi_timeout/ready").text == "ok\n"
        assert ask(port, "/__wsgi_timeout/metrics").status == 404
        answer = ask(port, f"/slow?seconds={4 * LIMIT}")
        hops = 0
        while answer.status == 303:
            hops += 1
            answer = ask(port, answer.location)
        assert (answer.status, hops > LIMIT) == (200, True)
    finally:
        proxy.stop()


def reached(port):
    try:
        return ask(port, "/fast").status == 200
    except OSError:
        return False


@pytest.mark.parametrize("unit", ["wsgi-timeout-web.service", "wsgi-timeout-worker.service"])
def test_units_are_understood(unit, tmp_path):
    """systemd finds nothing to complain of, but that the program is not installed here."""
    path = tmp_path / unit
    path.write_text((DEPLOY / unit).read_text().replace("/srv/app/venv/bin/", "/bin/echo "))
    found = subprocess.run(
        [program("systemd-analyze"), "verify", path], capture_output=True, text=True, timeout=30, check=False
    )
    complaints = [line for line in found.stderr.splitlines() if unit in line]
    assert complaints == []
