"""Result URLs with a wrong token while Redis cannot say whose they are: whatever comes then is not theirs."""

import http.client
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import APPS, Gunicorn, answer_of, ask, until
from result_urls import call_in, status_url

from wsgi_timeout.store import keys

USER, PASSWORD = "wrong-tokens", "anything"
#: What a web process asks for before it answers on a result URL.
LOOKS = ("hmget", "hget")

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(wait_seconds=1.2)


class Rights:
    """What a web process with a user of its own may ask of Redis."""

    def __init__(self, client):
        self._client = client
        client.acl_deluser(USER)
        client.acl_setuser(USER, enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], commands=["+@all"])

    def take(self):
        """Refuse every look at a call; its wakes still come."""
        self._client.acl_log_reset()
        self._client.acl_setuser(USER, enabled=True, commands=[f"-{command}" for command in LOOKS])

    def give(self):
        self._client.acl_setuser(USER, enabled=True, commands=["+@all"])

    def refusals(self):
        """Return how often somebody who waits was refused: only they ask for tombstones."""
        log = self._client.acl_log()
        return sum(
            int(entry["count"]) for entry in log if (entry["username"], entry["object"]) == (USER, "hget")
        )


@pytest.fixture
def rights(redis_server):
    rights = Rights(redis_server.client)
    yield rights
    redis_server.client.acl_deluser(USER)


@pytest.fixture(params=["gthread", "gevent"])
def web(request, site, rights):
    """A web process that is that user."""
    url = site.redis.url.replace("://", f"://{USER}:{PASSWORD}@")
    worker = "wsgi_timeout.gunicorn_gevent.GeventWorker"
    options = ("-k", worker) if request.param == "gevent" else ()
    web = Gunicorn(
        f"wsgi_timeout:gateway('basic:app', name={site.name!r})", url, *options, env=site.env, cwd=APPS
    )
    yield web
    web.stop()


@pytest.fixture
def aside():
    with ThreadPoolExecutor(10) as threads:
        yield threads


def kept_connection(web):
    """Return a connection that had one answer, and may ask for more."""
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=20)
    connection.request("GET", "/fast")
    assert answer_of(connection).status == 200
    return connection


def asked(connection, method, target):
    try:
        connection.request(method, target)
        return answer_of(connection)
    finally:
        connection.close()


@pytest.mark.parametrize("end", ["time is up", "stop"])
def test_a_wake_opens_no_call_to_a_wrong_token(site, web, rights, aside, gate, end):
    """A response that comes with a wake goes to nobody whose token was not looked at, when the wait ends."""
    client, methods = site.redis.client, ("GET", "HEAD", "POST")
    location = ask(web.port, f"/gate?tag={end.split()[0]}&file={gate}").location
    call_id, token, _ = call_in(location)
    wrong = location.replace(token, "A" * len(token))
    record = keys.call(call_id)
    inbox = keys.inbox(client.hget(record, "inboxes").decode())
    connections = [kept_connection(web) for _ in methods]
    rights.take()
    answers = [
        aside.submit(asked, connection, method, wrong)
        for connection, method in zip(connections, methods, strict=True)
    ]
    until(lambda: rights.refusals() >= len(methods), what="the refusals of their first looks")
    gate.touch()
    until(lambda: client.hget(record, "state") == b"ended" and not client.exists(inbox), what="the wake")
    if end == "stop":
        web.popen.send_signal(signal.SIGTERM)
    for answer in answers:
        assert answer.result().status == 303
        assert b"passed" not in answer.result().body
        assert "A" * len(token) in answer.result().location
    rights.give()
    assert ask(site.web.port, status_url(location)).json["delivered"] is None
    assert ask(site.web.port, wrong).status == 404
    assert ask(site.web.port, location).text == f"passed {end.split()[0]}\n"
