"""The sign of sessions that are kept in the memory of one process, where there are several."""

import random

import pytest
from harness import ask, until

from wsgi_timeout.store.messages import ResponseHead
from wsgi_timeout_jobs.attempt.sessions import SessionSigns
from wsgi_timeout_jobs.process.cookie_table import CookieTable


def test_sessions_in_memory_are_told(deploy):
    """Ids that are renewed by right are no sign; unknown ids of one client after another are told once."""
    site = deploy("remembering:app", pool=("--processes", "2"), wait_seconds=20)

    def seen(path, cookies):
        answer = ask(site.web.port, path, headers=cookies)
        if given := answer.header("Set-Cookie"):
            cookies["Cookie"] = given.partition(";")[0]
        return "set anew" in site.pool.output

    two = {}, {}
    assert not any(seen("/renewed", client) for _ in range(20) for client in two)
    alone = {}
    until(lambda: any(seen("/", alone) for _ in range(50)), 40, "the line in the log")
    for _ in range(40):
        seen("/", alone)
    assert site.pool.output.count("set anew") == 1
    assert "the cookie SESSION_ID that another process had set" in site.pool.output
    assert "--processes 1 --threads 8" in site.pool.output


class Pool:
    """Worker processes that share a table, and the clients of an app in them, each with its cookie."""

    def __init__(self, app, processes, seed):
        self.random = random.Random(seed)
        table = CookieTable(processes)
        self.processes = [SessionSigns(table, process=number) for number in range(1, processes + 1)]
        self.app = app
        self.known = [set() for _ in self.processes]
        self.cookies = [""] * 5

    def ask(self):
        client = self.random.randrange(len(self.cookies))
        process = self.random.randrange(len(self.processes))
        before = self.cookies[client]
        given = self.app(self, process, before)
        headers = [("Content-Type", "text/html"), *([("Set-Cookie", f"id={given}; Path=/")] if given else [])]
        environ = {"HTTP_COOKIE": f"other=1; id={before}"}
        self.processes[process].look(environ, ResponseHead("200 OK", headers))
        if self.app is not to_a_client_that_keeps_none:
            self.cookies[client] = given or before

    def new(self, process=0):
        value = f"{self.random.getrandbits(128):032x}"
        self.known[process].add(value)
        return value


def in_memory(pool, process, before):
    return "" if before in pool.known[process] else pool.new(process)


def in_memory_on_some_pages(pool, process, before):
    return in_memory(pool, process, before) if pool.random.random() < 0.5 else ""


def shared(pool, process, before):
    return "" if before in pool.known[0] else pool.new()


def renewed_on_each_request(pool, process, before):
    return pool.new()


def renewed_at_logins(pool, process, before):
    return shared(pool, process, before) if pool.random.random() < 0.7 else pool.new()


def signed(pool, process, before):
    return f"eyJh.{pool.new()[:8]}.{pool.new()[:8]}"


def names_the_process(pool, process, before):
    return f"process-{process}"


def to_a_client_that_keeps_none(pool, process, before):
    pool.cookies = [pool.cookies[0] or pool.new()] * 5
    return "" if before in pool.known[0] and process == 0 else pool.new(process)


@pytest.mark.parametrize("processes", [2, 8])
@pytest.mark.parametrize("app", [in_memory, in_memory_on_some_pages])
def test_it_is_told_once(caplog, app, processes):
    """However many processes see it, and whatever pages do not look at the session: one line."""
    pool = Pool(app, processes, seed=1)
    for _ in range(600):
        pool.ask()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("processes", [2, 8])
@pytest.mark.parametrize(
    "app",
    [
        shared,
        renewed_on_each_request,
        renewed_at_logins,
        signed,
        names_the_process,
        to_a_client_that_keeps_none,
    ],
)
def test_what_is_no_sign(caplog, app, processes):
    """Ids that all processes know, or that are renewed by right, and values that are no ids: no line."""
    for seed in range(10):
        pool = Pool(app, processes, seed)
        for _ in range(300):
            pool.ask()
    assert not caplog.records
