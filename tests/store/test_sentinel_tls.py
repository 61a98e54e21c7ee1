"""Sentinels and servers that speak TLS alone, each with a password of its own."""

import shutil
import socket
import ssl

import pytest
from certificates import self_signed
from harness import Process, is_missing, until

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.store.connection import connect
from wsgi_timeout.store.redis_errors import AWAY

pytestmark = pytest.mark.slow


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key, and a certificate that it has signed itself."""
    folder = tmp_path_factory.mktemp("tls")
    self_signed(folder)
    return folder


@pytest.fixture(scope="module")
def watched(certificate):
    """A server and its sentinel, of Debian's Redis: the embedded one has no TLS. Returns their ports."""
    binary = certificate / "redis-server"
    binary.symlink_to(shutil.which("redis-check-rdb") or is_missing("redis-check-rdb"))
    ports = server, sentinel = free_port(), free_port()
    tls = ["--port", "0", "--tls-auth-clients", "no", "--tls-replication", "yes"]
    tls += ["--tls-cert-file", certificate / "certificate.pem", "--tls-key-file", certificate / "key.pem"]
    tls += ["--tls-ca-cert-file", certificate / "certificate.pem", "--dir", certificate]
    configuration = certificate / "sentinel.conf"
    configuration.write_text(
        f"sentinel monitor calls 127.0.0.1 {server} 1\nsentinel auth-pass calls one\nrequirepass two\n"
    )
    processes = [
        Process([binary, *tls, "--tls-port", server, "--requirepass", "one", "--save", ""]),
        Process([binary, configuration, "--sentinel", *tls, "--tls-port", sentinel]),
    ]
    context = ssl.create_default_context(cafile=certificate / "certificate.pem")
    until(lambda: all(answers(context, port) for port in ports), 20, "both")
    yield ports
    for process in processes:
        process.stop()


def answers(context, port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            context.wrap_socket(sock, server_hostname="127.0.0.1").close()
    except OSError:
        return False
    return True


def test_both_passwords_and_the_certificate_are_used(watched, certificate):
    """The sentinel is asked with its password, the server with its own, both under one certificate."""
    url = f"rediss+sentinel://:one@127.0.0.1:{watched[1]}/calls/0?sentinel_password=two"
    client = connect(f"{url}&ssl_ca_certs={certificate}/certificate.pem", connections=1)
    until(lambda: client.set("wt:doctor", "1"), 10, "the primary's address")
    assert client.get("wt:doctor") == b"1"
    assert client.connection_pool.connection_kwargs["ssl_ca_certs"] == f"{certificate}/certificate.pem"
    client.close()


@pytest.mark.parametrize("changed", ["no certificate", "sentinel's password", "server's password", "no TLS"])
def test_a_wrong_one_reaches_nobody(watched, certificate, changed):
    """Without the certificate, with another password, or in plain text, no command passes."""
    url = f"rediss+sentinel://:one@127.0.0.1:{watched[1]}/calls/0?sentinel_password=two"
    url += f"&ssl_ca_certs={certificate}/certificate.pem"
    before, after = {
        "no certificate": (f"&ssl_ca_certs={certificate}/certificate.pem", ""),
        "sentinel's password": ("=two", "=three"),
        "server's password": (":one@", ":three@"),
        "no TLS": ("rediss+", "redis+"),
    }[changed]
    with pytest.raises((*AWAY, ConfigurationError)):
        connect(url.replace(before, after), connections=1).ping()
