"""Whether a request on a result URL is the call's own one: by digests, without Redis."""

import pytest

from wsgi_timeout.http.asked import Asked


def asked(method="GET", **headers):
    names = {f"HTTP_{name.upper()}": value for name, value in headers.items() if name != "query"}
    return Asked.by({"REQUEST_METHOD": method, "QUERY_STRING": headers.get("query", ""), **names})


def digest(uri, nonce="n", user="ann"):
    return f'Digest username="{user}", realm="r", nonce="{nonce}", uri="{uri}", nc=1, response="{uri}x"'


CHALLENGE = [("WWW-Authenticate", "Digest"), ("www-authenticate", "Negotiate")]


@pytest.mark.parametrize(
    ("first", "hop", "same"),
    [
        ("a=1&b=2", "b=2&a=1", True),
        ("a=%7e+x", "a=~%20x", True),
        ("a", "a=", True),
        ("a=1&a=2", "a=2&a=1", False),
        ("a=1%262", "a=1&2", False),
        ("a=1", "a=1&__wsgi_timeout%5fhop=3", True),
        ("a=1", "a=1;b", False),
    ],
)
def test_a_query_is_compared_decoded(first, hop, same):
    """Other escapes, another order of names are the same query; another value or order of values is not."""
    assert asked(query=hop).is_for(asked(query=first)) == same


@pytest.mark.parametrize(
    ("before", "now", "taken"),
    [
        (None, None, True),
        (None, "Basic eA==", False),
        ("Basic eA==", "Basic eA==", True),
        ("Basic eA==", "Basic eQ==", False),
        ("Basic eA==", None, True),
        (digest("/a"), digest("/a?hop"), True),
        (digest("/a"), digest("/a", nonce="new"), False),
        (digest("/a"), digest("/a", user="bob"), False),
        (None, "Negotiate one", False),
        ("Negotiate one", "Negotiate two", True),
    ],
)
def test_a_challenge_fits_the_same_credentials(before, now, taken):
    """New credentials make a new request of it; the same ones, signed anew, do not."""
    call, request = (asked(**({"authorization": value} if value else {})) for value in (before, now))
    assert request.takes("401 Unauthorized", CHALLENGE, call) == taken


def test_a_challenge_to_a_post_is_not_answered_by_a_get():
    """What a 303 has made of the method would be run as another request than was meant."""
    call, answer = asked("POST"), "401 Unauthorized"
    assert asked(authorization="Basic eA==").takes(answer, CHALLENGE, call)
    assert not asked("POST", authorization="Basic eA==").takes(answer, CHALLENGE, call)


def test_a_log_in_of_several_steps_goes_on():
    """A challenge with the server's part of a handshake is answered by a request of its own."""
    call, request = asked(authorization="Negotiate one"), asked(authorization="Negotiate two")
    assert not request.takes("401 Unauthorized", [("WWW-Authenticate", "Negotiate abc")], call)


@pytest.mark.parametrize(
    ("status", "call", "request_", "taken"),
    [
        ("304 Not Modified", {"if_none_match": '"1"'}, {}, False),
        ("304 Not Modified", {"if_none_match": '"1"'}, {"if_none_match": '"1"'}, True),
        ("304 Not Modified", {"if_none_match": '"1"'}, {"if_none_match": '"2"'}, False),
        ("412 Precondition Failed", {"if_unmodified_since": "x"}, {}, False),
        ("206 Partial Content", {"range": "bytes=0-"}, {"range": "bytes=0-", "if_range": '"1"'}, True),
        ("206 Partial Content", {"range": "bytes=0-"}, {"range": "bytes=5-"}, False),
        ("206 Partial Content", {}, {"range": "bytes=5-"}, True),
        ("200 OK", {"if_none_match": '"1"'}, {}, True),
    ],
)
def test_an_answer_to_a_condition_fits_that_condition(status, call, request_, taken):
    """304 and 412 fit a request with the same preconditions, 206 and 416 one for the same range."""
    assert asked(**request_).takes(status, [], asked(**call)) == taken


def test_a_failed_precondition_of_an_unsafe_request_is_its_answer():
    """Who followed a PUT's redirect by GET learns that it failed."""
    assert asked().takes("412 Precondition Failed", [], asked("PUT", if_match='"1"'))


def test_what_was_asked_survives_packing():
    """Digests come back from Redis as they went."""
    found = asked(query="a=1", range="bytes=0-", authorization="Basic x")
    assert Asked.unpack(found.pack()) == found


@pytest.mark.parametrize(
    ("headers", "confirmed"),
    [
        ({}, True),
        ({"sec_fetch_dest": "empty", "user_agent": "Mozilla/5.0"}, True),
        ({"sec_fetch_dest": "style", "user_agent": "Mozilla/5.0"}, False),
        ({"user_agent": "Mozilla/5.0"}, False),
        ({"user_agent": "curl/8"}, True),
    ],
)
def test_a_browsers_own_copy_is_not_confirmed(headers, confirmed):
    """What a browser loads by itself gets no 304 on a result URL; a program, and a page's script, may."""
    sent = {**headers, "if_none_match": '"1"'}
    environ = {"REQUEST_METHOD": "GET", **{f"HTTP_{name.upper()}": value for name, value in sent.items()}}
    asks = Asked.on_result_url(environ)
    assert asks.takes("304 Not Modified", [], Asked.by(environ)) == confirmed
    assert asks.has_terms == confirmed
