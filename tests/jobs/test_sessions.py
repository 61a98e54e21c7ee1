"""The sign of sessions that are kept in the memory of one process, where there are several."""

import itertools

import pytest
from harness import ask, until

from wsgi_timeout.store.messages import ResponseHead
from wsgi_timeout_jobs.attempt.sessions import SessionSigns


def test_sessions_in_memory_are_told(deploy):
    """A client whose session another process does not know: the log names the cookie and the option."""
    site = deploy("remembering:app", pool=("--processes", "2"), wait_seconds=20)
    cookies = {}

    def told():
        answer = ask(site.web.port, "/", headers=cookies)
        if given := answer.header("Set-Cookie"):
            cookies["Cookie"] = given.partition(";")[0]
        return "the cookie SESSION_ID that another process had set" in site.pool.output

    until(told, 40, "the line in the log")
    assert "--processes 1 --threads 8" in site.pool.output


def seen(caplog, answers, name="session", kind="text/html"):
    """Show one process what a client sent and what it got, and return how often it spoke."""
    signs = SessionSigns()
    for came, given in answers:
        headers = [("Content-Type", kind), *([("Set-Cookie", f"{name}={given}; Path=/")] if given else [])]
        environ = {"REMOTE_ADDR": "192.0.2.1", "HTTP_COOKIE": f"other=1; {name}={came}"}
        signs.look(environ, ResponseHead("200 OK", headers))
    return len(caplog.records)


FOREIGN = [(f"theirs-{number}", f"of-here-{number}") for number in range(9)]


def test_it_is_told_once(caplog):
    """Three in a row are enough, and one line."""
    assert seen(caplog, FOREIGN[:2]) == 0
    assert seen(caplog, FOREIGN) == 1


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        ([(f"eyJh{number}.Zx.sig", f"eyJh{number + 1}.Zx.sig") for number in range(9)], "session"),
        (list(itertools.pairwise(f"renewed-{number}" for number in range(9))), "session"),
        ([each for pair in FOREIGN for each in (pair, ("shared-store", ""))], "session"),
        (FOREIGN, "last_page"),
        ([("", given) for _, given in FOREIGN], "sid"),
    ],
    ids=["signed cookies", "renewed each time", "logins", "another cookie", "first visits"],
)
def test_what_is_no_sign(caplog, answers, name):
    """Signed cookies, ids that are renewed by right, people who log in, and other cookies are no sign."""
    assert seen(caplog, answers, name) == 0
