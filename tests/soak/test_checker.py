"""The soak's checker finds what it is there to find: every doctored history is seen."""

import pytest

from soak.checker import check, summary


def client(kind, *whats, number="1", **last):
    """Return a client's story; `last` belongs to its last line."""
    story = [{"number": number, "what": "sent", "kind": kind, "at": 0.0}]
    story += ({"number": number, "what": what, "at": 1.0} for what in whats)
    story[-1] |= last
    return story


def handler(*whats, number="1"):
    return [{"number": number, "what": what, "pid": 1, "at": 1.0} for what in whats]


FINE = {
    "answered": (client("read", "answer", status=200, right=True), handler("start", "end")),
    "redirected": (client("write", "accepted", "answer", status=200, right=True), handler("start", "end")),
    "run again": (client("read", "answer", status=200, right=True), handler("start", "start", "end")),
    "lost": (client("write", "accepted", "answer", status=502, right=False), handler("start")),
    "refused": (client("write", "refused"), []),
    "left and run": (client("leave", "left"), handler("start", "start")),
    "left and not run": (client("leave-write", "left"), []),
    "read drop by drop": (client("slow", "answer", status=409, right=False), handler("start")),
    "unknown and run": (client("write", "unknown"), handler("start", "end")),
    "unknown and not run": (client("write", "unknown"), []),
    "cancelled": (
        client("read", "accepted", "cancelled", "answer", status=410, right=False),
        handler("start"),
    ),
    "shared, and late": (
        client("read", "accepted", "shared", "answer", status=410, right=False, late=True),
        handler("start", "end"),
    ),
    "trimmed": (client("download", "accepted", "answer", status=409, right=False), handler("start")),
    "reloaded": (
        client("write", "accepted", "answer", "again", status=200, right=True, late=False),
        handler("start", "end"),
    ),
    "reloaded late": (
        client("write", "accepted", "answer", "again", status=410, right=False, late=True),
        handler("start", "end"),
    ),
    "broken off": (client("download", "answer", status="broken", right=False), handler("start")),
}

BROKEN = {
    "no outcome": (client("write", "accepted"), handler("start", "end"), "0 outcomes"),
    "two outcomes": (
        client("read", "answer", "answer", status=200, right=True)
        + 1 * [{"number": "1", "what": "refused", "at": 2.0}],
        handler("start", "end"),
        "outcomes",
    ),
    "never told": (client("read", "accepted", "gone", why="404"), handler("start"), "never told: 404"),
    "left and run twice": (client("leave-write", "left"), handler("start", "start"), "started 2 times"),
    "another target's": (
        client("read", "answer", status=200, right=True),
        [line | {"target": "second"} for line in handler("start", "end")],
        "another target's handler",
    ),
    "another's bytes": (
        client("read", "answer", status=200, right=False),
        handler("start", "end"),
        "other bytes than its own",
    ),
    "started twice": (
        client("write", "answer", status=200, right=True),
        handler("start", "start", "end"),
        "started 2 times, 1 at most",
    ),
    "a function started twice": (
        client("function", "accepted", "answer", status=200, right=True),
        handler("start", "end", "start", "end"),
        "started 2 times",
    ),
    "started too often": (
        client("read", "answer", status=200, right=True),
        handler("start", "start", "start", "end"),
        "started 3 times, 2 at most",
    ),
    "refused and run": (client("write", "refused"), handler("start"), "refused, and its handler started"),
    "an answer from nowhere": (
        client("read", "answer", status=200, right=True),
        handler("start"),
        "no handler",
    ),
    "a failure": (client("read", "answer", status=500, right=False), handler("start"), "answered with 500"),
    "a 409 for nothing": (
        client("read", "accepted", "answer", status=409, right=False),
        handler("start", "end"),
        "answered with 409",
    ),
    "a 410 for nothing": (
        client("read", "accepted", "answer", status=410, right=False),
        handler("start", "end"),
        "was neither",
    ),
    "a 410 for what was shared, soon": (
        client("read", "accepted", "shared", "answer", status=410, right=False, late=False),
        handler("start", "end"),
        "was neither",
    ),
    "a reload with another's bytes": (
        client("read", "accepted", "answer", "again", status=200, right=False, late=False),
        handler("start", "end"),
        "its reload holds other bytes",
    ),
    "a reload that is gone": (
        client("write", "accepted", "answer", "again", status=410, right=False, late=False),
        handler("start", "end"),
        "its reload with 410",
    ),
    "a reload that ran again": (
        client("write", "accepted", "answer", "again", status=200, right=True, late=False),
        handler("start", "start", "end"),
        "started 2 times",
    ),
    "nobody asked": ([], handler("start", number="2"), "no client asked for"),
}
# An answer before the last line has a status as well.
for _clients, *_ in (*FINE.values(), *BROKEN.values()):
    for _line in _clients[:-1]:
        if _line["what"] == "answer":
            _line.update(status=200, right=True)


@pytest.mark.parametrize("name", FINE)
def test_what_keeps_the_promises_passes(name):
    """A history that keeps every promise has nothing to complain about."""
    clients, handlers = FINE[name]
    assert check(clients, handlers) == []


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_a_promise_is_found(name):
    """A doctored history is seen, and the sentence says what is wrong and with which call."""
    clients, handlers, said = BROKEN[name]
    found = check(clients, handlers)
    assert found
    assert any(said in text for text in found), found


def test_one_bad_call_among_good_ones():
    """The bad one is named."""
    clients = client("read", "answer", status=200, right=True) + client("write", "accepted", number="2")
    assert [text.partition(":")[0] for text in check(clients, handler("start", "end"))] == ["2"]


def test_the_summary_counts_outcomes():
    """Outcomes are counted by kind."""
    clients = client("read", "answer", status=200, right=True) + client("write", "refused", number="2")
    assert summary(clients) == {("read", 200): 1, ("write", "refused"): 1}
