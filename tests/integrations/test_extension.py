"""`RequestTimeouts` in a Flask app: which requests run as calls, how, and where its middleware runs."""

import os
import re
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from harness import APPS, FAST, Gunicorn, Pool, ask, environment, follow, until
from werkzeug.test import create_environ

from wsgi_timeout import ConfigurationError, RequestTimeouts

#: What the front may cost a request that stays in the web process. It was 1.5 on a busy machine.
MICROSECONDS = 20

#: Settings of what is to be answered at once, however busy the machine is.
AMPLE = {"wait_seconds": 20}

ROUTES = {
    "/patient": {"wait_seconds": 30},
    "/limited": {"timeout": 0.3},
    "POST /later": {"wait_for_response": False},
    "/once": {"max_attempts": 1},
    **dict.fromkeys(("/", "/form", "/later", "/seen", "/web"), AMPLE),
    "/*": {"wait_seconds": 0.3},
}


@pytest.fixture(scope="module")
def runs_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("extension") / "runs"
    path.touch()
    return path


@pytest.fixture(scope="module")
def pool(redis_server, runs_file):
    """Workers as `wsgi-timeout worker extended_wsgi:app` starts them, without a name."""
    env = {**environment(**FAST), "RUNS_FILE": str(runs_file)}
    pool = Pool("extended_wsgi:app", None, redis_server.url, "--processes", "2", env=env, cwd=APPS)
    yield pool
    pool.stop()


def created(**options):
    """Return a target for the app's factory."""
    return f"extended:create_app({', '.join(f'{name}={value!r}' for name, value in options.items())})"


#: What gunicorn serves by the name under which tests ask for it, and settings in its environment.
SITES = {
    "plain": ("extended_wsgi:app", AMPLE),
    "admin": ("extended:admin", AMPLE),
    "main": (created(except_=["/web/*", "POST /form"], routes=ROUTES), {}),
    "only": (created(only=["/reports/*", "POST,PUT /ocr"]), AMPLE),
    "suspicious": (created(trusted_proxies="203.0.113.9"), {}),
    "gateway": (f"wsgi_timeout:gateway('extended_wsgi:app', name='extended', routes={ROUTES!r})", {}),
    "fresh": (created(), {}),
    "precedence": (
        created(config={"WSGI_TIMEOUT_WAIT_SECONDS": "0.2", "WSGI_TIMEOUT_TIMEOUT": 60.0}, timeout=0.6),
        {"wait_seconds": 60, "timeout": 50, "max_request_body": 10},
    ),
}


@pytest.fixture(scope="module")
def sites(redis_server, pool, runs_file):
    """Every site, each served by a gunicorn of its own."""
    started = {}
    for name, (app, settings) in SITES.items():
        env = {**environment(**{**FAST, **settings}), "RUNS_FILE": str(runs_file)}
        started[name] = Gunicorn(app, redis_server.url, env=env, cwd=APPS)
    yield started
    with ThreadPoolExecutor(len(started)) as threads:
        list(threads.map(Gunicorn.stop, started.values()))


@pytest.fixture(scope="module")
def web(sites):
    return sites["main"]


@pytest.fixture(scope="module")
def port(web):
    return web.port


def pids(process):
    return {child.pid for child in process.workers()}


def bare_app(**options):
    """Return a Flask app of this process, with the extension."""
    app = Flask("bare")
    app.add_url_rule("/pid", view_func=lambda: str(os.getpid()))
    RequestTimeouts(app, **options)
    return app


# -- which requests run as calls


def test_one_line_makes_every_request_a_call(sites, pool):
    """An app with `RequestTimeouts(app)`, its middleware and all, runs in the workers, found by its name."""
    answers = [ask(sites["plain"].port, path).json for path in ("/", "/web/page", "/reports/2025")]
    assert {answer["pid"] for answer in answers} <= pids(pool)


def test_apps_with_one_extension_do_not_mix(sites, pool):
    """A worker serves the app that it was told of, though its `RequestTimeouts()` has another one too."""
    answer = ask(sites["admin"].port, "/").json
    assert answer["who"] == "app"
    assert answer["pid"] in pids(pool)


def test_only_names_what_runs_as_calls(sites, pool):
    """With `only=` requests that match a pattern of method and path are calls, all others run in place."""
    web = sites["only"]
    for method, path in [("GET", "/reports/"), ("PUT", "/reports/1/2"), ("POST", "/ocr"), ("PUT", "/ocr")]:
        assert ask(web.port, path, method).json["pid"] in pids(pool), (method, path)
    for method, path in [("GET", "/reports"), ("GET", "/ocr"), ("POST", "/ocr/1"), ("GET", "/REPORTS/1")]:
        assert ask(web.port, path, method).json["pid"] in pids(web), (method, path)


def test_except_names_what_does_not(web, port, pool):
    """With `except_=` requests that match run in place, all others as calls."""
    for method, path in [("GET", "/web/x"), ("POST", "/web/x?a=/other"), ("POST", "/form")]:
        assert ask(port, path, method).json["pid"] in pids(web), (method, path)
    for method, path in [("GET", "/form"), ("GET", "/web"), ("GET", "/?x=/web/x")]:
        assert ask(port, path, method).json["pid"] in pids(pool), (method, path)


def test_a_result_url_is_answered_on_any_route(port):
    """Our parameter is never shown to an app, not on a route that stays in the web process either."""
    forged = "__wsgi_timeout_call=fc-0123456789abcdefghijkl.0123456789abcdef&__wsgi_timeout_hop=1"
    assert ask(port, f"/web/page?{forged}").status == 404


@pytest.mark.parametrize("patterns", [{"only": ["/reports/*"]}, {"except_": ["/pid"]}], ids=str)
def test_a_route_that_stays_costs_no_redis(monkeypatch, patterns):
    """A request that is not a call never connects to Redis; a call does, and is refused without one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{server.getsockname()[1]}")
        client = bare_app(**patterns).test_client()
        assert {client.get("/pid").get_data(as_text=True) for _ in range(20)} == {str(os.getpid())}
        with pytest.raises(BlockingIOError):
            server.accept()
    assert client.get("/reports/1").status_code == 503


def test_a_route_that_stays_costs_microseconds(capsys, monkeypatch):
    """The front before a request that is not a call takes a few microseconds."""

    monkeypatch.setenv("REDIS_URL", "unix:///nowhere/redis")

    def inner(environ, start_response):
        start_response("200 OK", [])
        return [b"inner"]

    app = Flask("bare")
    app.wsgi_app = inner
    RequestTimeouts(app, only=["/reports/*", "POST /ocr", "GET,HEAD /export*"], eager=False)
    environ = create_environ("/pages/about?lang=en")
    gained = median_microseconds(app.wsgi_app, environ) - median_microseconds(inner, environ)
    with capsys.disabled():
        print(f"\n[the front costs {gained:.1f} µs] ", end="")  # noqa: T201 - a figure to watch
    assert gained < MICROSECONDS


def median_microseconds(app, environ, calls=5000):
    def start_response(status, headers, exc_info=None):
        pass

    def once():
        begun = time.perf_counter_ns()
        app(environ, start_response)
        return time.perf_counter_ns() - begun

    return statistics.median(once() for _ in range(calls)) / 1000


def test_a_web_process_has_four_connections(sites, gate):
    """However many requests come first at the same moment, a web process connects to Redis four times."""
    web = sites["fresh"]
    web.wait_for("Booting worker")
    (worker,) = until(web.workers, what="gunicorn's worker")
    before = len(worker.net_connections("unix"))
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: ask(web.port, f"/held?file={gate}"), range(16)))
    assert [answer.status for answer in answers] == [303] * 16
    assert len(worker.net_connections("unix")) - before == 4


# -- settings of routes


@pytest.fixture(params=["main", "gateway"])
def routed(request, sites):
    """Return the port of a site whose routes have settings of their own."""
    return sites[request.param].port


def test_a_route_has_its_own_wait(routed, gate):
    """`wait_seconds` of a route holds its requests, where others are redirected."""
    with ThreadPoolExecutor(1) as thread:
        patient = thread.submit(ask, routed, f"/patient?file={gate}")
        assert ask(routed, f"/held?file={gate}").status == 303
        assert not patient.done()
        gate.touch()
        assert patient.result().status == 200


def test_a_route_has_its_own_timeout(routed, gate):
    """A handler that runs longer than its route's `timeout` ends in a 504."""
    assert follow(routed, f"/limited?file={gate}")[-1].status == 504


def test_a_route_answers_at_once(routed):
    """A route with `wait_for_response=False` answers 202, for the method that its pattern names."""
    accepted = ask(routed, "/later", "POST")
    assert accepted.status == 202
    assert follow(routed, accepted.location)[-1].status == 200
    assert ask(routed, "/later").status == 200


@pytest.mark.parametrize(("path", "attempts"), [("/once", 1), ("/", 2)])
def test_a_route_has_its_own_number_of_attempts(routed, pool, runs_file, path, attempts):
    """A request whose worker dies runs as often as `max_attempts` of its route says."""
    tag = f"attempts-{attempts}-{routed}"
    answer = follow(routed, f"{path}?die&tag={tag}")[-1]
    assert (answer.status, len(runs(runs_file, tag))) == (502, attempts)
    until(lambda: len(pids(pool)) == 2, what="a new worker process")
    # It is there before it has loaded the app.
    until(lambda: ask(routed, "/").status == 200, what="a worker that takes calls")


def runs(path, tag):
    return re.findall(rf"^{tag} ", path.read_text(), re.MULTILINE)


# -- middleware


def test_middleware_outside_runs_in_the_web_process(port, web, pool):
    """What is put around the app later runs once, in the web process; what was there, in the worker."""
    answer = ask(port, "/seen")
    assert answer.json["pid"] in pids(pool)
    assert answer.json["inside"] == str(answer.json["pid"])
    assert {int(answer.json["outside"])} == pids(web)
    stamps = [item for item in answer.headers if item[0] in {"X-Inside", "X-Outside"}]
    assert stamps == [("X-Inside", answer.json["inside"]), ("X-Outside", answer.json["outside"])]


FORWARDED = {
    "X-Forwarded-For": "198.51.100.1, 203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "shop.example",
    "X-Forwarded-Prefix": "/app",
}


def test_a_worker_sees_what_proxy_fix_did(port, pool):
    """Behind a ProxyFix outside the handler sees the client's address and URL, fixed once."""
    answer = ask(port, "/seen?a=1", headers=FORWARDED).json
    assert answer["pid"] in pids(pool)
    assert (answer["remote"], answer["url"]) == ("203.0.113.9", "https://shop.example/app/seen?a=1")


def test_a_redirect_keeps_the_prefix_that_a_proxy_took_off(port, gate):
    """The result URL behind a ProxyFix begins with the prefix under which the client knows the app."""
    location = ask(port, f"/held?file={gate}", headers=FORWARDED).location
    assert location.startswith("/app/held?")
    gate.touch()
    answer = follow(port, location.removeprefix("/app"), headers=FORWARDED)[-1]
    assert answer.json["url"].startswith("https://shop.example/app/held?")


def test_a_prefix_of_an_untrusted_peer_is_not_believed(sites, gate):
    """Behind a ProxyFix, too, the trusted one must be the connection's peer, not the client that it names."""
    port = sites["suspicious"].port
    assert ask(port, f"/held?file={gate}", headers=FORWARDED).location.startswith("/held?")


# -- in place


def test_testing_runs_in_place(monkeypatch):
    """With `app.testing` handlers run in the test's own process, without a Redis."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    app = bare_app()
    app.testing = True
    assert app.test_client().get("/pid").get_data(as_text=True) == str(os.getpid())


def test_eager_runs_in_place(monkeypatch):
    """`eager=True` does what `app.testing` does, and `eager=False` leaves a test to real workers."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert bare_app(eager=True).test_client().get("/pid").get_data(as_text=True) == str(os.getpid())
    app = bare_app(eager=False)
    app.testing = True
    with pytest.raises(ConfigurationError, match="REDIS_URL is not set: set it to your Redis"):
        app.test_client().get("/pid")


# -- settings


def test_a_keyword_wins_over_config_over_the_environment(sites, gate):
    """Settings come from keyword arguments, else from `app.config`, else from the environment."""
    port = sites["precedence"].port
    assert ask(port, "/", "POST", body=b"x" * 11).status == 413
    *redirects, last = follow(port, f"/?file={gate}")
    assert redirects
    assert last.status == 504


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"only": ["reports/*"]}, "route pattern 'reports/*': write a path that begins with /"),
        ({"except_": ["GET  POST /x"]}, "route pattern 'GET  POST /x': write a path"),
        ({"only": "/reports/*"}, "only='/reports/*': write a list of patterns, ['/reports/*']"),
        ({"routes": {"ocr": {}}}, "route pattern 'ocr': write a path"),
        (
            {"routes": {"/ocr": {"wait": 3}}},
            "route '/ocr': wait cannot be set per route, only",
        ),
        ({"routes": {"/ocr": {"timeout": -1}}}, "route '/ocr': timeout=-1: must be at least 0.01 s"),
        ({"wait": 20}, "unknown setting 'wait': use one of wait_seconds, timeout"),
        ({"wait_seconds": "20"}, "wait_seconds='20': must be of type float"),
        ({"timeout": 0}, "timeout=0: must be at least 0.01 s"),
    ],
)
def test_mistakes_are_told_where_they_are_written(options, complaint):
    """A bad pattern or setting fails when the extension is made, not with the first request."""
    with pytest.raises(ConfigurationError, match=re.escape(complaint)):
        RequestTimeouts(**options)


def test_a_mistake_in_the_config_is_told(monkeypatch):
    """A setting in `app.config` that cannot be read is named with its value, at the first request."""
    monkeypatch.setenv("REDIS_URL", "unix:///nowhere/redis")
    app = bare_app()
    app.config["WSGI_TIMEOUT_MAX_WAITING"] = "many"
    with pytest.raises(ConfigurationError, match="WSGI_TIMEOUT_MAX_WAITING='many' is not a whole number"):
        app.test_client().get("/pid")
