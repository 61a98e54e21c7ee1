"""A Redis that speaks TLS alone, with a certificate of the site's own CA: both halves and the commands."""

import re
import shutil
import socket

import pytest
from certificates import own_ca
from commands import run
from harness import RedisServer, ask, environment, follow, function_workers, is_missing, joined, until

from wsgi_timeout.functions.client import client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
BODY = bytes(range(256)) * 4000


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with a CA's certificate, `ca.pem`, and what it has signed for this machine."""
    folder = tmp_path_factory.mktemp("tls")
    own_ca(folder, "127.0.0.1")
    return folder


class Encrypted(RedisServer):
    """Debian's Redis, since the embedded one has no TLS; tests look past it by its unix socket."""

    def __init__(self, certificates):
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.port = sock.getsockname()[1]
        self._certificates = certificates
        binary = certificates / "redis-server"
        binary.symlink_to(shutil.which("redis-check-rdb") or is_missing("redis-check-rdb"))
        super().__init__(binary=binary)

    def start(self, *options):
        files = {"cert": "redis.pem", "key": "redis.key", "ca-cert": "ca.pem"}
        words = [
            word
            for name, file in files.items()
            for word in (f"--tls-{name}-file", str(self._certificates / file))
        ]
        super().start("--tls-port", str(self.port), "--tls-auth-clients", "no", *words, *options)
        self.url = f"rediss://127.0.0.1:{self.port}/0"


@pytest.fixture(scope="module")
def encrypted(certificates):
    server = Encrypted(certificates)
    yield server
    server.close()


@pytest.fixture(params=["own CA", "no CA"])
def trusted(request, encrypted, certificates, monkeypatch):
    """The server by a URL that names its CA, or that asks for no certificate."""
    option = f"ssl_ca_certs={certificates}/ca.pem" if request.param == "own CA" else "ssl_cert_reqs=none"
    monkeypatch.setattr(encrypted, "url", f"rediss://127.0.0.1:{encrypted.port}/0?{option}")
    return encrypted


def test_both_halves_and_the_commands(trusted, deploy):
    """Requests, streams, functions and commands pass as ever."""
    site = deploy("spawned:stub", server=trusted, secret="any", worker_wait=20, wait_seconds=20)
    until(lambda: function_workers(trusted, site.name) >= 1, 20, "the process for functions")
    assert ask(site.web.port, "/status/fc-unknown").status >= 400
    with joined(trusted.url, site.name, site.env):
        import spawned

        assert spawned.mirror.spawn("large", BODY).get(timeout=60)[-1000:] == BODY[-1000:]
        client().redis.close()
    env = {**site.env, "REDIS_URL": trusted.url}
    for words in ("calls", "workers", f"health --name {site.name}", "doctor --json"):
        code, output, errors = run(*words.split(), env=env)
        assert (code, errors) == (0, ""), output
    site.stop()


def test_requests(trusted, deploy):
    """Bodies larger than the buffer, and a call that is redirected, go through TLS."""
    site = deploy(server=trusted, wait_seconds=0.5, worker_wait=20, buffer=300_000)
    assert len(follow(site.web.port, "/slow?seconds=1.5")) > 1
    assert follow(site.web.port, "/mirror", "POST", body=BODY)[-1].body == BODY
    site.stop()


@pytest.mark.parametrize("scheme", ["rediss", "redis"])
def test_a_server_that_is_not_trusted_is_named(encrypted, scheme):
    """Without its CA, or without TLS, a command says in a line what is wrong, and the doctor what to do."""
    url = f"{scheme}://127.0.0.1:{encrypted.port}/0"
    env = {**environment(), "REDIS_URL": url}
    code, _, errors = run("calls", env=env)
    assert code == 2
    assert "Traceback" not in errors
    expected = "certificate verify failed" if scheme == "rediss" else "Redis"
    assert re.search(expected, errors), errors
    code, output, _ = run("doctor", env=env)
    assert (code, "fail" in output) == (1, True)
