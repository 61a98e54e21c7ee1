"""The recipes in deploy/: each is used, with its proxy's limits cut to seconds."""

import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness import Process, is_missing, until

DEPLOY = Path(__file__).parents[2] / "deploy"
#: Seconds after which the proxies cut here, in place of 60.
LIMIT = 3
#: How many limits a call takes.
TIMES = 10
#: The command of each recipe, and how its site's URL begins.
RECIPES = {
    "nginx.conf": ("nginx -c", "http://127.0.0.1:{}"),
    "nginx-tls.conf": ("nginx -c", "https://127.0.0.1:{}/legacy"),
    "haproxy.cfg": ("haproxy -W -f", "http://127.0.0.1:{}"),
}


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "3"), wait_seconds=1)


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
        "listen 8443": f"listen 127.0.0.1:{port}",
        "/etc/nginx/tls": str(folder),
    }
    changes |= {f"127.0.0.1:800{number}": f"127.0.0.1:{web}" for number, web in enumerate(webs)}
    changes["events {}"] = f"events {{}}\npid {folder}/{name}.pid;\ndaemon off;\nerror_log stderr;"
    for before, after in changes.items():
        text = text.replace(before, after)
    path = folder / name
    path.write_text(text)
    return path


def make_certificate(folder):
    """Write a certificate for this machine, which signs itself, and its key."""
    words = (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    files = ("-keyout", folder / "key.pem", "-out", folder / "certificate.pem")
    subprocess.run([program("openssl"), *words.split(), *files], check=True, capture_output=True)
    return folder / "certificate.pem"


@pytest.fixture(scope="module")
def proxies(webs, tmp_path_factory):
    """The URLs by recipe; `get` asks one of them by curl, which follows redirects."""
    folder = tmp_path_factory.mktemp("proxies")
    certificate = make_certificate(folder)

    def get(url):
        shown = "\n%{http_code} %{num_redirects} %{http_version} %{url_effective}"
        words = [program("curl"), "-sSL", "--max-redirs", "90", "--cacert", certificate, "-w", shown, url]
        found = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        body, _, told = found.stdout.rpartition("\n")
        status, hops, version, last = told.split()
        return SimpleNamespace(status=int(status), hops=int(hops), version=version, url=last, body=body)

    urls, running = {}, []
    try:
        for name, (command, url) in RECIPES.items():
            port = free_port()
            words = command.split()
            path = recipe(name, webs, port, folder)
            running.append(Process([program(words[0]), *words[1:], path], cwd=folder))
            urls[name] = url.format(port)
        for url in urls.values():
            until(lambda url=url: get(f"{url}/fast").status == 200, 20, f"the proxy at {url}")
        yield SimpleNamespace(urls=urls, get=get)
    finally:
        for process in running:
            process.stop()


@pytest.fixture(scope="module")
def answers(proxies):
    """What a call of ten times the limit ends with behind each proxy; all wait at once."""
    target = f"/slow?seconds={TIMES * LIMIT}&tag="
    with ThreadPoolExecutor(len(RECIPES)) as threads:
        runs = {
            name: threads.submit(proxies.get, f"{url}{target}{name}") for name, url in proxies.urls.items()
        }
        return {name: run.result() for name, run in runs.items()}


@pytest.mark.timeout(180)
@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_call_longer_than_the_proxy_allows_arrives(answers, proxies, name):
    """Behind the recipe's proxy a call of ten times its limit ends with the app's answer, at its own URL."""
    answer = answers[name]
    assert (answer.status, answer.body) == (200, f"slow GET {name} 0\n")
    assert answer.hops >= TIMES
    assert answer.url.startswith(f"{proxies.urls[name]}/slow?")
    assert answer.version == ("2" if "tls" in name else "1.1")


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_health_passes_and_metrics_do_not(proxies, name):
    """Readiness is answered through the proxy; what Prometheus reads is not for the world."""
    ready = proxies.get(f"{proxies.urls[name]}/__wsgi_timeout/ready")
    assert (ready.status, ready.body) == (200, "ok\n")
    assert proxies.get(f"{proxies.urls[name]}/__wsgi_timeout/metrics").status == 404


UNITS = ["wsgi-timeout-web.socket", "wsgi-timeout-web.service", "wsgi-timeout-worker.service"]


@pytest.mark.parametrize("unit", UNITS)
def test_units_are_understood(unit, tmp_path):
    """systemd finds nothing to complain of, but that the program is not installed here."""
    for each in UNITS:
        text = (DEPLOY / each).read_text()
        (tmp_path / each).write_text(text.replace("/srv/app/venv/bin/", "/bin/echo "))
    words = [program("systemd-analyze"), "verify", tmp_path / unit]
    found = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    complaints = [line for line in found.stderr.splitlines() if "wsgi-timeout" in line]
    assert complaints == []
