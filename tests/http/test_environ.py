"""A WSGI environ to a message, and back."""

import io
import os
import socket
import sys
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import check_environ

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsgi_timeout.http.environ import capture, restore
from wsgi_timeout.http.file_wrapper import FileWrapper

OURS = "__wsgi_timeout_call=fc-AbC_-123456.t0ken_t0ken-t0ken&__wsgi_timeout_hop=3"


def gunicorns(**changes):
    """Return an environ as gunicorn makes it."""
    environ = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/b",
        "QUERY_STRING": "x=1",
        "RAW_URI": "/a%2Fb?x=1",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "3",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "gunicorn/27",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "4711",
        "HTTP_HOST": "example.org",
        "HTTP_COOKIE": "a=1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(b"abc"),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": object,
        "wsgi.input_terminated": True,
        "gunicorn.socket": socket.socket,
    }
    return {**environ, **changes}


def restored(environ, *, multithread=False):
    return restore(capture(environ), io.BytesIO(b"body"), sys.stderr, multithread=multithread)


def test_facts_of_the_request_are_kept():
    """What describes the request arrives as the server gave it."""
    environ = gunicorns()
    kept = {key for key in environ if key.isupper()} | {"wsgi.url_scheme"}
    assert capture(environ) == {key: environ[key] for key in kept}


@pytest.mark.parametrize(
    "key",
    [
        "REMOTE_USER",
        "AUTH_TYPE",
        "REMOTE_HOST",
        "REQUEST_URI",
        "SSL_CLIENT_S_DN",
        "PROXY_PROTOCOL",
        "HTTP_EXPECT",
        "HTTP_X_FORWARDED_FOR",
    ],
)
def test_optional_facts_are_kept(key):
    """Variables that only some servers and proxies give are passed on."""
    assert capture(gunicorns(**{key: "fact"}))[key] == "fact"


@pytest.mark.parametrize(
    "key",
    [
        "wsgi.input",
        "wsgi.errors",
        "wsgi.file_wrapper",
        "wsgi.early_hints",
        "gunicorn.socket",
        "werkzeug.request",
        "werkzeug.proxy_fix.orig",
        "flask._preserve_context",
        "wsgi_timeout.call",
        "myapp.user",
        "HOME",
    ],
)
@pytest.mark.parametrize("value", ["text", b"bytes", 1, None, object()])
def test_what_belongs_to_a_process_is_left_behind(key, value):
    """Sockets, functions, caches and the like do not cross, whatever their type."""
    assert key not in capture(gunicorns(**{key: value}))


def test_a_value_that_is_no_text_is_left_behind():
    """A key of the request whose value another process cannot use is dropped."""
    assert "HTTP_X_ODD" not in capture(gunicorns(HTTP_X_ODD=b"bytes"))


def test_the_environ_given_is_not_changed():
    """Neither capturing nor restoring changes its argument, and each run has an environ of its own."""
    environ = gunicorns(QUERY_STRING=OURS)
    before = dict(environ)
    captured = capture(environ)
    assert environ == before
    kept = dict(captured)
    restore(captured, io.BytesIO(), sys.stderr, multithread=False)["PATH_INFO"] = "/changed"
    assert captured == kept


def test_our_parameters_are_not_shown():
    """The app sees our parameters nowhere: not in its query, its raw URI, nor a browser's Referer."""
    environ = gunicorns(
        QUERY_STRING=f"x=1&{OURS}",
        RAW_URI=f"/a?{OURS}",
        REQUEST_URI=f"http://example.org/a?{OURS}&y",
        HTTP_REFERER=f"https://example.org/form?n=%201&{OURS}#top",
    )
    captured = capture(environ)
    assert captured["QUERY_STRING"] == "x=1"
    assert captured["RAW_URI"] == "/a"
    assert captured["REQUEST_URI"] == "http://example.org/a?y"
    assert captured["HTTP_REFERER"] == "https://example.org/form?n=%201#top"


def test_there_is_always_a_query():
    """QUERY_STRING is there even where a server leaves an empty one out."""
    environ = gunicorns()
    del environ["QUERY_STRING"]
    assert capture(environ)["QUERY_STRING"] == ""


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.text(st.characters(max_codepoint=255, exclude_characters="&")))
def test_other_queries_are_not_touched(query):
    """A query without our parameters arrives byte for byte."""
    assert capture(gunicorns(QUERY_STRING=query))["QUERY_STRING"] == query


def test_what_an_app_sees_is_valid():
    """The restored environ passes the checks of wsgiref.validate."""
    environ = restored(gunicorns())
    assert type(environ) is dict
    check_environ(environ)


def test_a_minimal_environ_is_valid_too():
    """What a server of another make gives passes the checks as well."""
    environ = {}
    setup_testing_defaults(environ)
    check_environ(restored(environ))


@pytest.mark.parametrize("multithread", [True, False])
def test_the_process_describes_itself(multithread):
    """Keys about the process are those of the worker, not those of the web server."""
    environ = restored(gunicorns(), multithread=multithread)
    assert environ["wsgi.version"] == (1, 0)
    assert isinstance(environ["wsgi.version"], tuple)
    assert environ["wsgi.multithread"] is multithread
    assert environ["wsgi.multiprocess"] is True
    assert environ["wsgi.run_once"] is False
    assert environ["wsgi.url_scheme"] == "https"
    assert environ["wsgi.input"].read(-1) == b"body"
    assert environ["wsgi.errors"] is sys.stderr
    assert environ["wsgi.file_wrapper"] is FileWrapper


def test_a_chunked_body_has_an_end_of_its_own():
    """The header is told as gunicorn tells it, no length is invented, and the input ends by itself."""
    chunked = gunicorns(HTTP_TRANSFER_ENCODING="chunked")
    del chunked["CONTENT_LENGTH"]
    environ = restored(chunked)
    assert environ["HTTP_TRANSFER_ENCODING"] == "chunked"
    assert "CONTENT_LENGTH" not in environ
    assert environ["wsgi.input_terminated"] is True


def test_a_mount_point_is_kept():
    """SCRIPT_NAME and PATH_INFO are split in the worker as they were in the web process."""
    environ = restored(gunicorns(SCRIPT_NAME="/mount", PATH_INFO="/a"))
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/mount", "/a")


def test_no_header_is_taken_for_an_environment_variable():
    """A `Proxy:` header stays HTTP_PROXY in the environ, and reaches no process environment (httpoxy)."""
    environ = restored(gunicorns(HTTP_PROXY="http://evil.com"))
    assert environ["HTTP_PROXY"] == "http://evil.com"
    assert os.environ.get("HTTP_PROXY") != "http://evil.com"
