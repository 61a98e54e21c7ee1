"""Which requests run as calls."""

import re

import pytest

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.http.routes import PER_ROUTE, Routes, compile_pattern
from wsgi_timeout.settings import Settings

SETTINGS = Settings()


def environ(request):
    method, path = request.split(" ", 1)
    return {"REQUEST_METHOD": method, "PATH_INFO": path.encode().decode("latin-1")}


def captured(request, **patterns):
    return Routes(SETTINGS, **patterns).match(environ(request)) is not None


@pytest.mark.parametrize(
    ("pattern", "request_line", "matches"),
    [
        ("/a", "GET /a", True),
        ("/a", "POST /a", True),
        ("/a", "PROPFIND /a", True),
        ("/a", "GET /a/", False),
        ("/a", "GET /ab", False),
        ("/a", "GET /A", False),
        ("/a", "GET /x/a", False),
        ("/", "GET /", True),
        ("/", "GET /a", False),
        ("*", "GET /anything/at all", True),
        ("*", "OPTIONS *", True),
        ("/a/*", "GET /a/", True),
        ("/a/*", "GET /a/b/c", True),
        ("/a/*", "GET /a", False),
        ("/a*", "GET /a", True),
        ("/*.pdf", "GET /a/b.pdf", True),
        ("/*.pdf", "GET /a/bXpdf", False),
        ("*/ocr", "POST /x/ocr", True),
        ("/a*b*c", "GET /a1b2c", True),
        ("/a*b*c", "GET /a1c", False),
        ("/a+(b)[c]?", "GET /a+(b)[c]?", True),
        ("/a+", "GET /aa", False),
        ("GET /a", "GET /a", True),
        ("GET /a", "POST /a", False),
        ("GET /a", "GETGET /a", False),
        ("get /a", "GET /a", True),
        ("GET,POST /a", "POST /a", True),
        ("GET,POST /a", "PUT /a", False),
        ("GET,HEAD *", "HEAD /a", True),
        ("  POST   /a  ", "POST /a", True),
        ("/caf\xe9", "GET /caf\xe9", True),
        ("/\u2713*", "GET /\u2713x", True),
        ("/a*", "GET /a\nb", True),
        ("/a", "GET /a\n", False),
    ],
)
def test_a_pattern(pattern, request_line, matches):
    """A pattern is held against the method and the whole decoded path, case and all."""
    assert captured(request_line, only=[pattern]) is matches
    assert captured(request_line, except_=[pattern]) is not matches


def test_a_path_that_is_not_utf8():
    """A path of other bytes matches a star, and raises nothing."""
    routes = Routes(SETTINGS, only=["/a*"])
    assert routes.match({"REQUEST_METHOD": "GET", "PATH_INFO": "/a\xff\xfe"}) is SETTINGS
    assert routes.match({"REQUEST_METHOD": "GET"}) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        " ",
        "a",
        "reports/*",
        "POST",
        "POST ",
        "GET /a /b",
        "/a b",
        "GET, POST /a",
        "http://host/a",
        "G=T /a",
    ],
)
def test_a_bad_pattern(pattern):
    """What is no pattern is refused, with its text and an example of a good one."""
    with pytest.raises(ConfigurationError, match=f"route pattern {re.escape(repr(pattern))}.*'POST /ocr'"):
        compile_pattern(pattern)
    with pytest.raises(ConfigurationError):
        Routes(SETTINGS, except_=[pattern])


def test_without_patterns_all_is_captured():
    """Every request is a call where nothing was said."""
    routes = Routes(SETTINGS)
    assert routes.capture_all
    assert routes.match(environ("BREW /pot")) is SETTINGS


def test_only_and_except_together():
    """What `only` names runs as calls, but for what `except_` names."""
    patterns = {"only": ["/a/*", "POST /ocr"], "except_": ["/a/static/*", "HEAD *"]}
    assert not Routes(SETTINGS, **patterns).capture_all
    expected = {
        "GET /a/b": True,
        "POST /ocr": True,
        "GET /ocr": False,
        "GET /a/static/x.css": False,
        "HEAD /a/b": False,
        "GET /": False,
    }
    assert {line: captured(line, **patterns) for line in expected} == expected


def test_patterns_may_come_from_any_iterable():
    """Patterns are read once, so that a generator serves for many requests."""
    routes = Routes(SETTINGS, only=(pattern for pattern in ["/a"]))
    assert [routes.match(environ("GET /a")) for _ in range(2)] == [SETTINGS, SETTINGS]


def test_settings_of_a_route():
    """A route has its own settings, by the first pattern that matches; all others have the common ones."""
    routes = Routes(
        SETTINGS,
        routes={"POST /ocr": {"wait_for_response": False, "timeout": 7200.0}, "/ocr*": {"timeout": 5.0}},
    )
    assert routes.match(environ("POST /ocr")) == SETTINGS.replace(wait_for_response=False, timeout=7200.0)
    assert routes.match(environ("GET /ocr")) == SETTINGS.replace(timeout=5.0)
    assert routes.match(environ("GET /")) is SETTINGS
    assert routes.capture_all


def test_settings_of_a_route_do_not_capture_it():
    """`routes` gives settings to what runs as a call, and does not make one of what is left out."""
    patterns = {"only": ["/a"], "routes": {"/b": {"timeout": 5.0}}}
    assert not captured("GET /b", **patterns)


@pytest.mark.parametrize("name", ["max_waiting", "lease_seconds", "no_such_setting"])
def test_a_setting_that_no_route_has(name):
    """A setting of the whole process, or none at all, is refused for a route, and those allowed are named."""
    with pytest.raises(ConfigurationError, match=f"route '/a': {name} cannot be set per route.*wait_seconds"):
        Routes(SETTINGS, routes={"/a": {name: 1}})


def test_a_bad_value_of_a_route():
    """A setting of a route is checked like any other."""
    with pytest.raises(ConfigurationError, match="timeout=-1"):
        Routes(SETTINGS, routes={"/a": {"timeout": -1}})


def test_settings_per_route_are_settings():
    """Every name that a route may set is a setting."""
    assert all(hasattr(SETTINGS, name) for name in PER_ROUTE)


def test_few_patterns_are_told_apart():
    """Of two thousand patterns logs and metrics name the first hundred; each has its settings."""
    routes = Routes(SETTINGS, routes={f"/page/{number}": {"timeout": 1 + number} for number in range(2000)})
    found = {routes.route(environ(f"GET /page/{number}")) for number in range(0, 2000, 9)}
    assert found == {"*", *(f"/page/{number}" for number in range(0, 100, 9))}
    assert routes.match(environ("GET /page/1999")).timeout == 2000
