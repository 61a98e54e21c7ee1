"""The places that waiting requests take in one web process."""

import contextlib
import threading

import pytest
from harness import until

from wsgi_timeout.errors import TooManyWaiting
from wsgi_timeout.front import places as places_module
from wsgi_timeout.front.places import HOP_RESERVE, Places

#: Seconds within which a place is free again.
SOON = 1.5


def take(places, number, call_id=""):
    return [places.take(call_id).__enter__() for _ in range(number)]


def test_places_are_limited():
    """Over `max_waiting` no request is taken in, until one ends."""
    places = Places(2)
    first, _ = take(places, 2)
    with pytest.raises(TooManyWaiting, match="2 requests wait in this process already"):
        places.take()
    first.__exit__(None, None, None)
    take(places, 1)
    with pytest.raises(TooManyWaiting):
        places.take()


def test_a_place_is_given_back_after_an_error():
    """A request that fails gives its place back."""
    places = Places(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="as intended"), places.take():
            raise ValueError("as intended")


@pytest.mark.parametrize(("threads", "more"), [(float("inf"), 3), (2 + HOP_RESERVE + 3, 3), (4, 0)])
def test_a_response_on_its_way_takes_no_place(threads, more):
    """What is sent lets others wait, as long as the server has threads for both."""
    places = Places(2, threads)
    sent = []
    for _ in range(more):
        sent += take(places, 1)
        sent[-1].deliver()
    waiting = take(places, 2)
    with pytest.raises(TooManyWaiting):
        places.take()
    waiting[0].deliver()
    if threads == float("inf"):
        waiting += take(places, 1)
    else:
        with pytest.raises(TooManyWaiting):
            places.take()
    for place in (*sent, *waiting):
        place.__exit__(None, None, None)
    take(places, 2)


def test_a_place_is_kept_for_the_next_hop():
    """A place that was left with a redirect is its call's for a moment, and nobody else's."""
    places = Places(1)
    with places.take() as place:
        place.kept_for = "fc-1"
    with pytest.raises(TooManyWaiting):
        places.take()
    with places.take("fc-1"), pytest.raises(TooManyWaiting):
        places.take()
    with places.take():
        pass


def test_a_kept_place_is_taken_once():
    """Of two requests for one call the second has no place kept."""
    places = Places(1)
    with places.take() as place:
        place.kept_for = "fc-1"
    take(places, 1, "fc-1")
    take(places, 1 + HOP_RESERVE, "fc-1")
    with pytest.raises(TooManyWaiting):
        places.take("fc-1")


def test_a_place_that_nobody_came_back_for(monkeypatch):
    """A kept place is free again after a moment."""
    monkeypatch.setattr(places_module, "_KEPT_SECONDS", 0.1)
    places = Places(1)
    with places.take() as place:
        place.kept_for = "fc-1"
    with pytest.raises(TooManyWaiting):
        places.take()

    def free():
        with contextlib.suppress(TooManyWaiting):
            return places.take()

    until(free, SOON)


def test_hops_have_a_reserve():
    """The hops of accepted calls find a place where newcomers find none: as many again, and the reserve."""
    places = Places(2)
    take(places, 2)
    for number in range(2 + HOP_RESERVE):
        take(places, 1, f"fc-{number}")
    for call_id in ("", "fc-more"):
        with pytest.raises(TooManyWaiting):
            places.take(call_id)


@pytest.mark.parametrize(("threads", "hops"), [(416, 408), (300, 292), (216, 208), (50, 200)])
def test_hops_leave_threads_free(threads, hops):
    """Of a server with fewer threads hops take fewer places; those of `max_waiting` always."""
    places = Places(200, threads)
    take(places, hops, "fc-1")
    with pytest.raises(TooManyWaiting):
        places.take("fc-1")


def test_threads_share_the_places():
    """Of many threads at once exactly as many get a place as there are."""
    places, got = Places(10), []

    def come():
        with contextlib.suppress(TooManyWaiting):
            got.append(places.take())

    threads = [threading.Thread(target=come) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 10
