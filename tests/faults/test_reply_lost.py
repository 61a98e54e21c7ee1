"""The sweep: a connection breaks at each command of a scenario in turn, and the outcome is always the same.

A reply that is lost is the worst: the server has executed what the client must take for undone.
"""

import contextlib
import os
import re
import sys
import time
from collections import Counter
from hashlib import sha1
from importlib.resources import files

import pytest
from faults.proxy import Break, nth
from harness import ask, calls_accepted, follow, function_workers, joined, until

from wsgi_timeout.functions.client import client
from wsgi_timeout.store import keys
from wsgi_timeout.store.lua_scripts import source

#: Larger than what travels with a call.
BODY = os.urandom(200_000)
ARGUMENT = os.urandom(1_500_000)

_NAMES = [file.name.removesuffix(".lua") for file in (files("wsgi_timeout") / "store" / "lua").iterdir()]
_SCRIPTS = {sha1(source(name).encode()).hexdigest(): name for name in _NAMES if name != "prelude"}
_ID = re.compile(rb"fc-[\w-]{22}")

pytestmark = [
    pytest.mark.usefixtures("nothing_is_left"),
    pytest.mark.timeout(150),
]
#: A lost reply is swept each time, the others with the slow tests.
BREAKS = [pytest.param(where, marks=[] if where is Break.AFTER else pytest.mark.slow) for where in Break]


@pytest.fixture(scope="module")
def site(deploy, proxy):
    return deploy(server=proxy, pool=("--processes", "1"), wait_seconds=5, delivery_grace=5)


@pytest.fixture(scope="module")
def hasty(site):
    """A web process that redirects soon."""
    web = site.start_web(gateway="wait_seconds=0.3")
    yield web
    web.stop()


@pytest.fixture(scope="module")
def functions(deploy, proxy):
    options = ("--processes", "1", "--function-processes", "1")
    site = deploy("spawned:stub", server=proxy, pool=options, secret="any", worker_wait=10, retry_backoff=0)
    until(lambda: function_workers(proxy, site.name) == 1, 20, "the process for functions")
    with joined(proxy.url, site.name, site.env):
        import spawned

        yield site, spawned
        client().redis.close()


#: How delivered calls are deleted.
DELETIONS = ("forget", "UNLINK")


def ids(exchange):
    """Return the ids of the calls that an exchange names."""
    return {found for text in (*exchange.words, exchange.reply or b"") for found in _ID.findall(text)}


def kind(exchange):
    """Return what an exchange is: the script or command, and its key without the call's id."""
    if exchange.name == "EVALSHA":
        return _SCRIPTS[exchange.words[1].decode()]
    key = b" ".join(exchange.words[1:2]) if exchange.name not in {"BLMOVE", "BLMPOP"} else b""
    return f"{exchange.name} {_ID.sub(b'', key).decode()}".strip()


class Recording:
    """What one run of a scenario sent to Redis about its own call, which no earlier run knew."""

    def __init__(self, proxy):
        self._proxy = proxy
        self._known = set()

    def begin(self):
        self._known |= self.calls()
        self._proxy.clear()

    def calls(self):
        # Delivered calls are deleted a moment later, many at a time: those of the test before too.
        told = (exchange for exchange in self._proxy.exchanges if not kind(exchange).startswith(DELETIONS))
        return set().union(*map(ids, told)) - self._known

    def about_its_call(self, exchange):
        return bool(ids(exchange) - self._known)

    def kinds(self):
        """Return the kinds of its exchanges, each with how often it was there before."""
        seen = Counter()
        for exchange in filter(self.about_its_call, self._proxy.exchanges):
            seen[kind(exchange)] += 1
            yield kind(exchange), seen[kind(exchange)]


def sweep(proxy, where, scenario, *, name, scripts, queued=1):
    """Run a scenario unbroken, then with a break at each of its exchanges in turn; `scripts` are among them.

    Each time one call is queued in the queue of this `name`, `queued` times. Returns the seconds that each
    broken run took.
    """
    recording = Recording(proxy)
    took = []

    def run(number, fault=None):
        before = calls_accepted(proxy.client, name)
        began = time.monotonic()
        try:
            scenario(number)
            took.append(time.monotonic() - began)
            with contextlib.suppress(AssertionError):
                # A client may have its answer before the worker's last reply has come by.
                until(lambda: fault is None or fault.struck, 0.5)
        finally:
            proxy.heal()
        nothing_waits(proxy, name)
        assert len(recording.calls()) == 1
        assert calls_accepted(proxy.client, name) == before + queued

    recording.begin()
    run(0)
    # A client has its answer before the last of them has come by.
    until(lambda: scripts <= {what for what, _ in recording.kinds()}, what=f"each of {scripts}")
    planned, struck = list(recording.kinds()), []
    for number, (what, occurrence) in enumerate(planned, 1):
        recording.begin()
        fault = proxy.break_at(
            where,
            nth(
                occurrence,
                lambda exchange, what=what: kind(exchange) == what and recording.about_its_call(exchange),
            ),
        )
        run(number, fault)
        struck += [what] if fault.struck else []
    sys.stdout.write(f"{where.name}: {len(struck)} breaks of {len(planned)}: {', '.join(struck)}\n")
    assert scripts <= set(struck), f"no break at {scripts - set(struck)}"
    # The first one was not broken.
    return took[1:]


def nothing_waits(proxy, name):
    """Check that the queue is empty, that nobody holds a call, and that RQ counts none as running."""

    def idle():
        workers = [worker.decode() for worker in proxy.client.hkeys(keys.leases(name))]
        lists = [f"rq:queue:wt:{name}", *map(keys.held, workers)]
        return not any(map(proxy.client.llen, lists)) and not proxy.client.zcard(f"rq:wip:wt:{name}")

    until(idle, 5, "an empty queue")


@pytest.mark.parametrize("where", BREAKS)
def test_a_small_request(site, proxy, seen, where):
    """A small request is run once, and answered."""

    def scenario(number):
        tag = f"small-{where.name}-{number}"
        answer = ask(site.web.port, f"/fast?tag={tag}", "POST", body=b"small")
        assert (answer.status, answer.text) == (200, f"fast {tag}\n")
        assert len(site.runs(tag)) == 1

    took = sweep(proxy, where, scenario, name=site.name, scripts={"enqueue", "take", "finish"})
    seen("a run with a break", took)


@pytest.mark.slow
def test_a_cancel(site, hasty, proxy, seen):
    """Who cancels a call is told 202, the handler ends, and the result is 410."""

    def scenario(number):
        tag = f"cancelled-{number}"
        location = ask(hasty.port, f"/guarded?seconds=30&tag={tag}").location
        until(lambda: site.runs(tag), what="the handler's begin")
        status = location.replace("__wsgi_timeout_call", "__wsgi_timeout_status")
        assert ask(hasty.port, status, "DELETE").status == 202
        assert follow(hasty.port, location)[-1].status == 410
        until(lambda: site.runs(f"{tag}-finally"), what="its finally")

    seen("a run with a break", sweep(proxy, Break.AFTER, scenario, name=site.name, scripts={"end"}))


@pytest.mark.slow
@pytest.mark.parametrize("where", Break)
def test_a_redirected_request(site, hasty, proxy, seen, where):
    """A request that is redirected is run once and answered, and its result can be had again for a while."""

    def scenario(number):
        tag = f"redirected-{where.name}-{number}"
        answers = follow(hasty.port, f"/slow?seconds=0.5&tag={tag}", "POST", body=b"some")
        assert len(answers) >= 2
        assert (answers[-1].status, answers[-1].text) == (200, f"slow POST {tag} 4\n")
        assert follow(hasty.port, answers[-2].location)[-1].body == answers[-1].body
        assert len(site.runs(tag)) == 1

    scripts = {"enqueue", "take", "finish", "join", "deliver"}
    seen("a run with a break", sweep(proxy, where, scenario, name=site.name, scripts=scripts))


@pytest.mark.parametrize("where", BREAKS)
def test_streams(site, proxy, seen, where):
    """An upload and a download in chunks come whole: none is lost, none is there twice."""

    def scenario(number):
        tag = f"streams-{where.name}-{number}"
        answer = ask(site.web.port, f"/mirror?tag={tag}", "POST", body=BODY)
        assert (answer.status, answer.body == BODY) == (200, True)
        assert len(site.runs(tag)) == 1

    scripts = {"enqueue", "take", "finish", "write", "read", "close"}
    seen("a run with a break", sweep(proxy, where, scenario, name=site.name, scripts=scripts))


@pytest.mark.slow
@pytest.mark.parametrize("where", Break)
def test_a_function_with_a_retry(functions, proxy, seen, where):
    """A function that is spawned with large arguments, fails once and returns them: two runs, one result."""
    site, app = functions

    def scenario(number):
        tag = f"function-{where.name}-{number}"
        call = app.mirror.spawn(tag, ARGUMENT)
        assert call.get(timeout=30) == ARGUMENT
        assert call.status()["attempts"] == 2
        assert len(site.runs(tag)) == 2

    scripts = {"enqueue", "take", "retry", "join", "store", "finish"}
    # A retry is queued again.
    took = sweep(proxy, where, scenario, name=f"{site.name}:functions", scripts=scripts, queued=2)
    seen("a run with a break", took)
