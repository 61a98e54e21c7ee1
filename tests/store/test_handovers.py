"""Which of a browser's calls it is led to its address for."""

from wsgi_timeout.store import handovers


def test_one_after_the_other(calls):
    """While a browser is on its way for one call it is not led there for another, but again for the same."""
    first, second = "fc-handover-1", "fc-handover-2"
    assert handovers.begin(calls, first, [second])
    assert handovers.begin(calls, first, [second])
    assert not handovers.begin(calls, second, [first])
    assert handovers.begin(calls, "fc-handover-3", [])
    handovers.end(calls, first)
    assert handovers.begin(calls, second, [first])
    assert not handovers.begin(calls, first, [second])
    handovers.end(calls, second)
