"""No answer of ours says anything of the machines: not even of those that a stranger can provoke."""

import re
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from harness import APPS, ROOT, Gunicorn, ask, follow, raw_request, until
from result_urls import has_ended, status_url

from wsgi_timeout.store import keys

#: What clients accept: a program, a person's browser, an EventSource, one that says nothing.
PROGRAM = {"Accept": "application/json"}
PERSON = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
EVENTS = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
#: A browser's download, or a form's answer.
PAGE = {"Accept": "text/html"}
CLIENTS = [PROGRAM, PERSON, EVENTS, {}]
#: What differs between any two answers, and could look like a process id.
OWN = re.compile(r"fc-[\w-]+(\.[\w-]+)?|^(Date|Content-Length|ETag|Last-Modified):.*$", re.MULTILINE)


@pytest.fixture(scope="module")
def site(deploy):
    """Calls wait for a moment; handlers of /guarded are timed out, a delivered result is gone at once."""
    settings = {
        "wait_seconds": 0.1,
        "page_after": 0.05,
        "prefer": True,
        "max_request_body": 200_000,
        "delivery_grace": 0,
        "head_timeout": 0.5,
        "idempotency_headers": "Idempotency-Key",
        "cors_origins": "https://a.example",
    }
    gateway = "routes={'/guarded': {'timeout': 0.3}}"
    return deploy(pool=("--processes", "2"), gateway=gateway, **settings)


@pytest.fixture(scope="module")
def refusing(site):
    """Web processes that refuse: no workers, another app's workers, Redis away, no byte or place free."""
    settings = "worker_wait=0.1, event_streams='resumable'"
    apps = {
        "no worker": (f"wsgi_timeout:gateway('basic:app', name='nobody', {settings})", site.redis.url),
        "another app": (f"wsgi_timeout:gateway('host:app', name={site.name!r}, {settings})", site.redis.url),
        "redis away": (f"wsgi_timeout:gateway('basic:app', {settings})", f"unix://{site.redis.folder}/none"),
        "full": (
            f"wsgi_timeout:gateway('basic:app', name={site.name!r}, max_buffered_bytes=1, {settings})",
            site.redis.url,
        ),
    }
    webs = {
        what: Gunicorn(app, url, "-c", "python:wsgi_timeout.gunicorn_conf", env=site.env, cwd=APPS)
        for what, (app, url) in apps.items()
    }
    yield webs
    for web in webs.values():
        web.stop()


def of_a_call(port, headers):
    """Yield what a call's client may be told from its first 303 to the 410."""
    with tempfile.TemporaryDirectory() as folder:
        target = f"/gate?file={folder}/gate"
        location = ask(port, target, headers=PROGRAM).location
        for asked in ("/slow?seconds=0.5", location, status_url(location)):
            yield ask(port, asked, headers=headers)
        Path(folder, "gate").touch()
        until(lambda: has_ended(port, location), what="the end of the call")
    yield ask(port, status_url(location), headers=headers)
    yield ask(port, location, "HEAD", headers=headers)
    yield ask(port, location, headers={**headers, "Sec-Purpose": "prefetch"})
    yield ask(port, location)
    until(lambda: ask(port, location, headers=PROGRAM).status == 410, what="the end of the grace")
    for method in ("GET", "POST"):
        yield ask(port, location, method, headers=headers)
    yield ask(port, status_url(location), "DELETE", headers=headers)
    yield ask(port, location.replace("fc-", "fc-x"), headers=headers)
    yield ask(port, "/slow?seconds=0.1", headers={**headers, "Prefer": "respond-async"})


def of_failures(port, headers):
    """Yield how calls end that failed."""
    for target, method in (("/raises", "GET"), ("/dies", "GET"), ("/guarded?seconds=9", "GET")):
        yield follow(port, target, method, headers=headers)[-1]
    location = ask(port, "/slow?seconds=30", "POST").location
    for _ in range(2):
        yield ask(port, status_url(location), "POST", headers=headers)
    yield ask(port, location, headers=headers)


def of_refusals(port, headers):
    """Yield what is refused for what it is."""
    keyed = {**headers, "Idempotency-Key": "k"}
    for body in (b"1", b"2"):
        yield ask(port, "/fast", "POST", headers=keyed, body=body)
    yield ask(port, "/fast", "POST", headers=headers, body=bytes(200_001))
    yield ask(port, "/fast", headers={**headers, "Upgrade": "websocket", "Connection": "Upgrade"})
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
    yield ask(port, "/fast?__wsgi_timeout_call=fc-1.2", "OPTIONS", headers={**headers, **asked})
    for path in ("live", "ready", "none"):
        yield ask(port, f"/__wsgi_timeout/{path}", headers=headers)


def refused(port, headers):
    """Yield what a web process answers that takes nothing."""
    yield ask(port, "/fast", headers=headers)


def broken(port):
    """Yield what raw bytes are answered: a body that ends early, bad chunks, half a head, no HTTP."""
    head = b"POST /fast HTTP/1.1\r\nHost: a\r\n"
    for data in (
        head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n0\r\n\r\n",
        head + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        head + b"X: ",
        b"\x16\x03\x01\r\n\r\n",
    ):
        with suppress(ConnectionResetError):
            yield raw_request(port, data)


def as_text(answer):
    """Return an answer, its head included, without what is its own."""
    if isinstance(answer, bytes):
        text = answer.decode("latin-1")
    else:
        head = "\n".join(f"{name}: {value}" for name, value in answer.headers)
        text = f"{answer.status} {answer.reason}\n{head}\n\n{answer.body.decode('latin-1')}"
    return OWN.sub("", text)


def secrets_of(site, processes):
    """Return what no answer may hold: names of hosts and workers, paths, Redis' URL, ids of processes."""
    workers = site.redis.client.hkeys(keys.leases(site.name))
    pools = {site.redis.client.hget(keys.worker(worker.decode()), "pool") or b"" for worker in workers}
    names = [socket.gethostname(), *(name.decode() for name in {*workers, *pools} if name)]
    places = [str(site.redis.folder), str(APPS), str(ROOT), str(Path.home()), "site-packages", "Traceback"]
    numbers = [str(each.pid) for process in processes for each in process.descendants()]
    numbers += [str(process.pid) for process in processes]
    words = [name for name in names if name] + [number for number in numbers if len(number) > 3]
    return [rf"(?<![\w.-]){re.escape(word)}(?![\w.-])" for word in words] + [
        re.escape(place) for place in places if len(place) > 1
    ]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_no_answer_of_ours_says_where_it_comes_from(site, refusing):
    """No redirect, page, refusal or failure holds a host, a worker, a process, a path or Redis' URL."""
    port, forbidden = site.web.port, secrets_of(site, [site.web, site.pool, *refusing.values()])
    asked = [(of_a_call, port, headers) for headers in CLIENTS]
    asked += [(kind, port, headers) for kind in (of_failures, of_refusals) for headers in (PROGRAM, PAGE)]
    asked += [(refused, web.port, headers) for web in refusing.values() for headers in CLIENTS]
    with ThreadPoolExecutor(8) as threads:
        answers = sum(threads.map(lambda each: list(each[0](*each[1:])), asked), list(broken(port)))
    forbidden += secrets_of(site, [site.web, site.pool])  # workers died, and others took their places
    # One that does would be found.
    assert any(re.search(pattern, f"on {socket.gethostname()}") for pattern in forbidden)
    found = [
        (pattern, text)
        for text in map(as_text, answers)
        for pattern in forbidden
        if re.search(pattern, text, re.IGNORECASE)
    ]
    assert found == []
    kinds = {answer.status for answer in answers if not isinstance(answer, bytes)}
    assert kinds >= {200, 202, 303, 307, 404, 409, 410, 413, 422, 500, 501, 502, 503, 504}
