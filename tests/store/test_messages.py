"""Messages between processes: what is packed comes back the same."""

import dataclasses

import msgpack
import pytest
from call_steps import a_request
from hypothesis import given, settings
from hypothesis import strategies as st

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.store.messages import WIRE_VERSION, CallRequest, FunctionRequest, ResponseHead

EVERY_LATIN1 = "".join(map(chr, range(256)))

derandomized = settings(derandomize=True, max_examples=100, deadline=None)
# Surrogates too: a server may let them through.
any_text = st.text(st.characters(exclude_categories=()))


def test_every_latin1_character_survives():
    """All 256 code points that a WSGI string may hold come back, in keys, values, headers and bodies."""
    request = a_request(environ={EVERY_LATIN1: EVERY_LATIN1}, body=EVERY_LATIN1.encode("latin-1"))
    assert CallRequest.unpack(request.pack()) == request
    head = ResponseHead(f"200 {EVERY_LATIN1}", [("X-All", EVERY_LATIN1)])
    assert ResponseHead.unpack(head.pack()) == head


@derandomized
@given(st.dictionaries(any_text, any_text), st.none() | st.binary(), any_text)
def test_a_request_survives(environ, body, entry):
    """A request comes back as it was sent, whatever text its server let through."""
    request = a_request(environ=environ, body=body, entry=entry)
    assert CallRequest.unpack(request.pack()) == request


@derandomized
@given(any_text, st.lists(st.tuples(any_text, any_text)))
def test_a_head_survives(status, headers):
    """Status and headers come back in order, case and number, as a list of tuples."""
    head = ResponseHead.unpack(ResponseHead(status, headers).pack())
    assert (head.status, head.headers) == (status, headers)
    assert type(head.headers) is list
    assert all(type(pair) is tuple for pair in head.headers)


@pytest.mark.parametrize("arguments", [None, b"", b"\x80signed\xff"])
def test_a_function_request_survives(arguments):
    """What a worker needs to run a function comes back, with its arguments or without."""
    request = FunctionRequest("slow", arguments, 600.0, 2, 1.0, 65536, 2**27, 604800.0)
    assert FunctionRequest.unpack(request.pack()) == request


def test_no_body_differs_from_an_empty_one():
    """None, which says that the body lies in a stream, does not become an empty body."""
    assert CallRequest.unpack(a_request(body=None).pack()).body is None
    assert CallRequest.unpack(a_request(body=b"").pack()).body == b""


def test_numbers_keep_their_types():
    """Seconds stay floats, bytes stay whole numbers, also large ones."""
    request = CallRequest.unpack(a_request(timeout=0.25, max_result=2**40).pack())
    assert (request.timeout, request.max_result) == (0.25, 2**40)
    assert [type(value) for value in (request.timeout, request.max_result)] == [float, int]


@pytest.mark.parametrize(
    "blob", [b"", bytes([WIRE_VERSION + 1]) + b"\x90", b"\x00", b"\x80\x04.", b'{"a": 1}']
)
@pytest.mark.parametrize("message", [CallRequest, FunctionRequest, ResponseHead])
def test_another_wire_version_is_refused(message, blob):
    """What another version has written is not guessed at: the message says what to do."""
    with pytest.raises(ConfigurationError, match="run the same version"):
        message.unpack(blob)


def test_the_version_comes_first():
    """One byte before the msgpack data names the version."""
    packed = ResponseHead("200 OK", []).pack()
    assert packed[0] == WIRE_VERSION
    assert msgpack.unpackb(packed[1:]) == ["200 OK", []]


@pytest.mark.parametrize("message", [a_request(), ResponseHead("200 OK", [])])
def test_messages_are_frozen(message):
    """What crosses a process is not changed on the way."""
    field = dataclasses.fields(message)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(message, field, "changed")
