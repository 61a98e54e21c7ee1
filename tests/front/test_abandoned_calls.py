"""`abandon_after`: a handler ends with the last client that waits for it."""

import socket

from harness import until

from wsgi_timeout.store import keys


def ask_for(site, gate, tag):
    client = socket.create_connection(("127.0.0.1", site.web.port), timeout=30)
    client.sendall(f"GET /gate?file={gate}&tag={tag} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    until(lambda: site.runs(tag), what="its start")
    return client


def calls_of(site):
    """Return the keys of the site's records by their states."""
    redis = site.redis.client
    found = [key for key in redis.scan_iter(keys.call("*")) if redis.hget(key, "name") == site.name.encode()]
    return {redis.hget(key, "state"): key for key in found}


def test_a_running_call_is_abandoned_with_its_last_client(deploy, gate, nothing_is_left):
    """A handler that nobody waits for is interrupted; one that is waited for goes on."""
    site = deploy(pool=("--processes", "2"), wait_seconds=60, abandon_after=1.5)
    with ask_for(site, gate, "left") as left, ask_for(site, gate, "waits") as waits:
        left.close()
        until(lambda: calls_of(site).keys() == {b"ended", b"running"}, 20, "the end of the one that was left")
        abandoned = calls_of(site)[b"ended"]
        assert site.redis.client.hget(abandoned, "outcome") == b"cancelled"
        assert site.redis.client.ttl(abandoned) <= 60
        gate.touch()
        assert waits.recv(1000).startswith(b"HTTP/1.1 200")
