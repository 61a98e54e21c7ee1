"""The error tree: each error knows its HTTP status, and the drawing of the tree is true."""

import inspect
import re
from http import HTTPStatus

import pytest

from wsgi_timeout import errors
from wsgi_timeout.errors import CallInterrupted, WsgiTimeoutError

CLASSES = {
    name: kind
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if kind.__module__ == errors.__name__
}
OURS = [kind for kind in CLASSES.values() if issubclass(kind, WsgiTimeoutError)]


def drawn():
    """Return the tree at the top of the file: `{name: (parent, status code or "")}`."""
    found, stack = {}, []
    tree = errors.__doc__.partition("\n\n")[2]
    for indent, name, rest in re.findall(r"^( *)([A-Z]\w+)(.*)$", tree, re.MULTILINE):
        del stack[len(indent) // 2 :]
        based = re.match(r" \((\w+)\)", rest)
        status = re.match(r" +(\d{3})\b", rest)
        parent = stack[-1] if stack else (based.group(1) if based else "Exception")
        found[name] = (parent, status.group(1) if status else "")
        stack.append(name)
    return found


def test_the_tree_names_every_class():
    """Every class of the file stands in the drawing, and nothing else."""
    assert sorted(drawn()) == sorted(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_the_tree_shows_the_parent(name):
    """A class stands below the class that it derives from."""
    parent, _ = drawn()[name]
    assert CLASSES[name].__bases__[0].__name__ == parent


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_the_tree_shows_the_status(kind):
    """The status in the drawing is the error's own, or its parent's where none is written."""
    tree = drawn()
    name = kind.__name__
    while not tree[name][1]:
        name = tree[name][0]
    assert kind.status[:3] == tree[name][1]


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_a_status_is_a_status_line(kind):
    """Each error has a registered code, and the reason that belongs to it."""
    code, _, reason = kind.status.partition(" ")
    known = HTTPStatus(int(code))
    # RFC 9110 renamed two that Python before 3.13 calls by their old names.
    assert reason in {known.phrase, "Content Too Large", "Unprocessable Content"}
    assert reason


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_an_error_says_what_it_is(kind):
    """Each error has a docstring of its own, and a message given to it is its text."""
    assert kind.__doc__ != (WsgiTimeoutError.__doc__ if kind is not WsgiTimeoutError else None)
    assert str(kind("what happened")) == "what happened"


def test_refusals_say_when_to_come_back():
    """Everything that was not accepted is a 503 with seconds to wait."""
    refusals = [kind for kind in OURS if issubclass(kind, errors.CallRefused)]
    assert len(refusals) > 1
    assert {kind.status for kind in refusals} == {"503 Service Unavailable"}
    assert all(kind.retry_after > 0 for kind in refusals)


def test_an_interruption_passes_every_handler():
    """What ends a running handler is no Exception, and carries its reason."""
    assert not issubclass(CallInterrupted, Exception)
    assert CallInterrupted("timeout").reason == "timeout"
