"""httpbin, an app that no one here wrote: by every way in it answers what it answers under gunicorn alone."""

import base64
import importlib.util
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest
import requests
from harness import APPS, FAST, Gunicorn, Pool, ask, environment, follow, is_missing
from requests.auth import HTTPDigestAuth
from result_urls import MARK

#: The routes whose requests are redirected; httpbin_extended and httpbin_host have it, too.
HASTY = {"/delay/0.8": {"wait_seconds": 0.3}}

#: What gunicorn serves by the way in, and the prefix below which httpbin is there.
WAYS = {
    "gateway": (f"wsgi_timeout:gateway('httpbin:app', routes={HASTY})", ""),
    "extension": ("httpbin_extended:app", ""),
    "blueprint": ("httpbin_host:app", "/bin"),
}

#: Seconds that all others wait, however busy the machine is.
WAIT = 30

#: What differs between two answers of httpbin: uuids, nonces, and times.
VOLATILE = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32,}|\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT"
)

#: Of these httpbin makes a status line that no server can send.
REFUSED = {"/status/99", "/status/1000"}
#: What httpbin answers with a 500, its own or gunicorn's.
FAILING = REFUSED | {"/status/500", "/delay/nan-sense", "/drip?numbytes=x", "/digest-auth/auth/user/pass"}


@dataclass(frozen=True)
class Case:
    """One request."""

    method: str
    target: str
    headers: dict = field(default_factory=dict)
    body: bytes | None = None
    #: The app gives another value each time: `VOLATILE` is compared by its kind alone.
    volatile: bool = False

    def __str__(self):
        more = ",".join(f"{name}={value[:20]}" for name, value in self.headers.items())
        return " ".join(filter(None, [self.method, self.target[:60], more])).encode("unicode_escape").decode()


def get(target, **headers):
    return Case("GET", target, {name.replace("_", "-"): value for name, value in headers.items()})


def basic(credentials):
    return "Basic " + base64.b64encode(credentials.encode()).decode()


def form(*parts):
    """Return a multipart case; a part is the name, the file name or None, and the data."""
    body = b""
    for name, filename, data in parts:
        file = f'; filename="{filename}"\r\nContent-Type: application/octet-stream' if filename else ""
        body += f'--part\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()
        body += data + b"\r\n"
    return Case(
        "POST", "/post", {"Content-Type": "multipart/form-data; boundary=part"}, body + b"--part--\r\n"
    )


JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
ALL_BYTES = bytes(range(256))

PAGES = [
    *("/", "/html", "/robots.txt", "/deny", "/ip", "/headers", "/user-agent", "/xml", "/json", "/forms/post"),
    *("/gzip", "/deflate", "/brotli", "/encoding/utf8", "/get", "/cookies", "/anything"),
    *("/image/png", "/image/jpeg", "/image/webp", "/image/svg"),
    *("/stream/3", "/stream/100", "/stream/0", "/stream/2?a=1"),
    *("/bytes/1024?seed=1", "/bytes/0?seed=1", "/bytes/200000?seed=7", "/bytes/x"),
    *("/stream-bytes/1024?seed=1", "/stream-bytes/5000?seed=2&chunk_size=100", "/stream-bytes/0?seed=3"),
    *("/links/10", "/links/10/0", "/links/10/9", "/links/3/7"),
    *("/redirect/1", "/redirect/4", "/redirect/3?absolute=true", "/redirect/1?absolute=false"),
    *("/relative-redirect/1", "/relative-redirect/3", "/absolute-redirect/1", "/absolute-redirect/3"),
    "/redirect-to?url=http%3A%2F%2Felsewhere.example%2Fa%3Fb%3Dc",
    "/redirect-to?url=%2Fget&status_code=307",
    "/redirect-to?url=%2F%E2%9C%93",
    *("/cookies/set?a=1&b=2", "/cookies/set/name/value", "/cookies/set/caf%C3%A9/%E2%9C%93"),
    *("/cookies/delete?a=&b=", "/cookies/delete"),
    *("/response-headers?X-One=1&X-Two=2", "/response-headers?X-Same=1&X-Same=2&X-Same=3"),
    "/response-headers?Content-Type=text%2Fplain%3B+charset%3DUTF-8&Server=mine",
    *("/response-headers?X-Latin=caf%C3%A9", "/response-headers?Set-Cookie=a%3D1&Set-Cookie=b%3D2"),
    "/response-headers?Cache-Control=public%2C+max-age%3D60&Accept-Ranges=bytes",
    *("/base64/SFRUUEJJTiBpcyBhd2Vzb21l", "/base64/4pyT", "/base64/%3D%3D%3D", "/base64/notbase64!"),
    *("/cache/60", "/cache/0", "/etag/abc", "/delay/0", "/delay/0.05", "/delay/nan-sense"),
    *("/drip?duration=0.05&numbytes=5&delay=0", "/drip?duration=0&numbytes=1&code=418"),
    *("/drip?duration=0.05&numbytes=3&delay=0.05", "/drip?numbytes=0", "/drip?numbytes=x"),
    *("/range/1024", "/range/26?chunk_size=5", "/range/26?duration=0.05&chunk_size=13", "/range/0"),
    *("/basic-auth/user/secret", "/hidden-basic-auth/user/secret", "/bearer"),
    *("/image", "/missing", "/get/", "//get", "/anything//a///b", "/status/", "/static/favicon.ico"),
    *(
        "/anything/a%2Fb",
        "/anything/caf%C3%A9/%E2%9C%93",
        "/anything/%FF",
        "/anything/a;b=c",
        "/anything/%00",
    ),
    *("/anything/../x", "/anything/a%20b+c%2Bd", "/anything/100%25", "/anything/%0d%0aX:y"),
    *("/get?a=1&a=2&b", "/get?", "/get?=&&", "/get?caf%C3%A9=%E2%9C%93", "/get?a=%FF%FE", "/get?a=b=c;d=e"),
    "/get?q=" + "x" * 3000,
]

STATUSES = [
    *(200, 201, 202, 203, 204, 205, 206, 207, 226, 300, 301, 302, 303, 304, 305, 307, 308),
    *(400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 415, 416, 418, 422, 428, 429),
    *(431, 451, 499, 500, 501, 502, 503, 504, 505, 511, 599, 700, 999),
]

CASES = [
    *(get(target) for target in PAGES),
    *(Case(method, "/get") for method in ("HEAD", "POST", "PUT", "OPTIONS", "TRACE", "PROPFIND", "BREW")),
    *(Case("HEAD", target) for target in ("/", "/image/png", "/gzip", "/stream/3", "/bytes/99?seed=1")),
    *(Case("HEAD", target) for target in ("/status/404", "/redirect/2", "/range/100", "/missing", "/drip")),
    *(Case("OPTIONS", target) for target in ("/", "/post", "/anything", "/missing")),
    *(
        Case(method, target, FORM, b"a=1&b=%E2%9C%93&a=2")
        for method, target in [
            *(("POST", "/post"), ("PUT", "/put"), ("PATCH", "/patch"), ("DELETE", "/delete")),
            *((method, "/anything/x?y=z") for method in ("POST", "PUT", "PATCH", "DELETE", "TRACE")),
        ]
    ),
    Case("POST", "/post", JSON, '{"caf\xe9": "\u2713", "n": [1, 2.5, null]}'.encode()),
    Case("POST", "/post", JSON, b"{broken"),
    Case("POST", "/post", JSON, b""),
    Case("POST", "/post", {"Content-Type": "application/octet-stream"}, ALL_BYTES),
    Case("POST", "/post", {"Content-Type": "text/plain; charset=utf-8"}, "gr\xfc\xdfe \u2713".encode()),
    Case("POST", "/post", {}, b"untyped"),
    Case("POST", "/post"),
    Case("PUT", "/put", {}, ALL_BYTES * 1000),
    Case("POST", "/post", FORM, b"&".join(b"key%d=value" % n for n in range(200))),
    Case("POST", "/post", {**JSON, "Content-Encoding": "gzip"}, ALL_BYTES),
    form(("field", None, b"value"), ("caf\xe9", None, "\u2713".encode())),
    form(("field", None, b"value"), ("file", "a.txt", b"text"), ("binary", "b.bin", ALL_BYTES)),
    form(("large", "large.bin", ALL_BYTES * 400)),
    Case("POST", "/response-headers?X-One=1&X-One=2"),
    *(Case("POST", f"/redirect-to?url=%2Fpost&status_code={code}") for code in (301, 302, 303, 307, 308)),
    *(Case("POST", "/redirect-to", FORM, f"url=/get&status_code={code}".encode()) for code in (302, 308)),
    *(get(f"/status/{code}") for code in STATUSES),
    *(Case(method, "/status/418") for method in ("POST", "PUT", "PATCH", "DELETE", "TRACE")),
    *(get(f"/status/{code}") for code in ("abc", "200:1", "404:1,404:2", "99", "1000")),
    *(Case("POST", f"/status/{code}", {}, b"body") for code in (201, 204, 303, 413, 500)),
    # Authorization
    *(
        get(f"/{kind}/user/secret", Authorization=basic(credentials))
        for kind in ("basic-auth", "hidden-basic-auth")
        for credentials in ("user:secret", "user:wrong", "us\xe9r:\u2713", "")
    ),
    *(get("/bearer", Authorization=value) for value in ("Bearer token", "Bearer", "Basic x")),
    *(
        Case("GET", f"/digest-auth/{rest}", volatile=True)
        for rest in ("auth/user/secret", "auth-int/user/pass", "auth/user/pass/SHA-256", "auth/u/p/MD5/never")
    ),
    get("/digest-auth/auth/user/pass", Authorization='Digest username="user", realm="x"'),
    # Negotiation and conditions
    *(
        get("/image", Accept=accept)
        for accept in (
            "image/png",
            "image/jpeg",
            "image/webp",
            "image/svg+xml",
            "image/*",
            "*/*",
            "text/html",
        )
    ),
    *(get(f"/{name}", Accept_Encoding="gzip, deflate, br") for name in ("gzip", "deflate", "brotli", "html")),
    *(Case("GET", "/cache", headers, volatile=True) for headers in ({}, {"If-None-Match": "x"})),
    get("/cache", If_Modified_Since="Mon, 23 Nov 2026 00:00:00 GMT"),
    *(get("/etag/abc", If_None_Match=value) for value in ("abc", '"abc"', "*", "x", 'W/"abc", "d"')),
    *(get("/etag/abc", If_Match=value) for value in ("abc", '"abc"', "*", "x")),
    *(
        get("/range/1024", Range=f"bytes={value}")
        for value in ("0-99", "1000-", "-10", "0-0", "2000-3000", "5-2", "0-1,4-5", "x", "-2000")
    ),
    get("/range/100", If_Range='"range100"', Range="bytes=0-9"),
    # Headers and cookies of the request
    get("/cookies", Cookie='a=1; b="two words"; c=; d=%C3%A9; a=2'),
    get("/cookies/delete?a", Cookie="a=1"),
    get("/headers", X_Long="x" * 7000),
    get("/headers", X_Empty="", X_Latin="caf\xe9", X_Spaces="  a  b  "),
    get("/headers", Origin="https://other.example", Referer="https://other.example/?a=b#c"),
    get("/get", Origin="null", Access_Control_Request_Method="PUT"),
    get("/get?show_env=1", X_Forwarded_For="203.0.113.9", X_Forwarded_Proto="https", X_Forwarded_Host="a.b"),
    get("/ip", X_Forwarded_For="203.0.113.9, 198.51.100.7"),
    get("/user-agent", User_Agent="Mozilla/5.0 (caf\xe9)"),
    get("/get", Upgrade="h2c", HTTP2_Settings="AAAA"),
    get("/get", Prefer="respond-async", Idempotency_Key="1", TE="trailers"),
    Case("GET", "/uuid", volatile=True),
    Case("GET", "/get", {"Content-Type": "text/plain"}, b"a body in a GET"),
    Case("DELETE", "/delete", {}, b""),
]


@pytest.fixture(scope="module")
def env():
    """`Allow` and the like are sets in the order of their hashes."""
    if importlib.util.find_spec("httpbin") is None:
        is_missing("httpbin")
    return {**environment(**{**FAST, "wait_seconds": WAIT}), "PYTHONHASHSEED": "0"}


@pytest.fixture(scope="module")
def ports(redis_server, env):
    """Where httpbin is by each way in, and without us under the same prefix: `way` and `direct way`."""
    pools = [
        Pool(target, None, redis_server.url, "--processes", "2", env=env, cwd=APPS, wait=False)
        for target in ("httpbin:app", "httpbin_extended:app")
    ]
    plain = ("-k", "gthread", "--threads", "8", "--no-control-socket")
    webs = {}
    for way, (app, prefix) in WAYS.items():
        webs[way] = Gunicorn(app, redis_server.url, env=env, cwd=APPS)
        if f"direct{prefix}" not in webs:
            more = {"SCRIPT_NAME": prefix} if prefix else {}
            webs[f"direct{prefix}"] = Gunicorn(
                "httpbin:app", redis_server.url, *plain, config=None, env={**env, **more}, cwd=APPS
            )
    for pool in pools:
        pool.wait_until_ready()
    yield {name: web.port for name, web in webs.items()}
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda process: process.stop(), [*webs.values(), *pools]))


@pytest.fixture(params=WAYS)
def way(request, ports):
    """Return the port of one way in, the port without us, and the prefix."""
    prefix = WAYS[request.param][1]
    return ports[request.param], ports[f"direct{prefix}"], prefix


def seen(answer, *, volatile=False):
    """Return all that a client sees of an answer, but for when it was sent and by what."""
    headers = [(name, value) for name, value in answer.headers if name not in {"Date", "Server"}]
    if not volatile:
        # A gzip file tells in its bytes 4 to 7 when it was made (RFC 1952).
        body = answer.body[:4] + answer.body[8:] if answer.body.startswith(b"\x1f\x8b") else answer.body
        return answer.status, answer.reason, headers, body
    headers = [(name, VOLATILE.sub("...", value)) for name, value in headers]
    return answer.status, answer.reason, headers, VOLATILE.sub("...", answer.text)


def send(port, prefix, case):
    headers = {"Host": "bin.example", **case.headers}
    return ask(port, prefix + case.target, case.method, headers=headers, body=case.body)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_answers_what_it_answers_directly(way, case):
    """Status line, headers in their order, and body are those of gunicorn alone."""
    port, direct, prefix = way
    expected, answer = send(direct, prefix, case), send(port, prefix, case)
    assert (expected.status == 500) == (case.target in FAILING)
    if prefix and case.target in REFUSED:
        # Under the host, Flask answers an exception before gunicorn can.
        assert answer.status == expected.status
    else:
        assert seen(answer, volatile=case.volatile) == seen(expected, volatile=case.volatile)


def test_the_cases_are_many():
    """The list covers httpbin's routes: all of them, and more than a hundred different requests."""
    from httpbin import app

    assert len({str(case) for case in CASES}) > 250
    called = " ".join(case.target for case in CASES)
    rules = {rule.rule.partition("<")[0] for rule in app.url_map.iter_rules()}
    assert [rule for rule in sorted(rules) if rule not in called] == []


def test_a_digest_login(way):
    """A client answers the challenge of one call with its next one: nonce, cookie and all."""
    port, _, prefix = way
    for name, password, status in [("user", "secret", 200), ("user", "wrong", 401)]:
        url = f"http://127.0.0.1:{port}{prefix}/digest-auth/auth/user/secret"
        answer = requests.get(url, auth=HTTPDigestAuth(name, password), timeout=30)
        assert answer.status_code == status
        assert len(answer.history) == 1


def test_cookies_are_kept_by_a_client(way):
    """What `/cookies/set` sets comes back on the page to which it redirects."""
    port, _, prefix = way
    answer = requests.get(f"http://127.0.0.1:{port}{prefix}/cookies/set?a=1&b=2", timeout=30)
    assert answer.json() == {"cookies": {"a": "1", "b": "2"}}
    assert [hop.status_code for hop in answer.history] == [302]


def test_a_chunked_body(way):
    """A chunked body arrives whole, and is told of as it is directly."""
    port, direct, prefix = way
    sent = []
    for number in (port, direct):
        pieces = iter([b"a=1&", b"b=2&" * 30_000, b"c=3"])
        url = f"http://127.0.0.1:{number}{prefix}/post"
        answer = requests.post(url, data=pieces, headers={"Host": "bin.example", **FORM}, timeout=30)
        sent.append(answer.json())
    assert sent[1]["headers"]["Transfer-Encoding"] == "chunked"
    assert sent[0] == sent[1]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_slow_answer_is_the_same(way, method):
    """What takes longer than the wait is the direct answer at the end of its redirects, kept from caches."""
    port, direct, prefix = way
    target, host = f"{prefix}/delay/0.8?a=b", {"Host": "bin.example"}
    *redirects, answer = follow(port, target, method, headers=host)
    assert redirects
    status, reason, headers, body = seen(ask(direct, target, method, headers=host))
    headers.append(("Cache-Control", "private, no-store"))
    assert seen(answer) == (status, reason, headers, body)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_answer_is_the_same_behind_redirects(ports, redis_server, env):
    """With each answer slower than the wait, all of them end as they do directly, kept from caches."""
    env = {**env, "APP_SLOW": "httpbin", "WSGI_TIMEOUT_WAIT_SECONDS": "0.2"}
    app = "wsgi_timeout:gateway('third_slow:app', name='slowbin')"
    pool = Pool("third_slow:app", "slowbin", redis_server.url, "--processes", "8", env=env, cwd=APPS)
    web = Gunicorn(app, redis_server.url, env=env, cwd=APPS)
    try:
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda case: redirected(web.port, case), CASES))
        for case, answer in zip(CASES, answers, strict=True):
            expected = seen(send(ports["direct"], "", case), volatile=case.volatile)
            assert behind(expected) == seen(answer, volatile=case.volatile), case
    finally:
        web.stop()
        pool.stop()


def redirected(port, case):
    """Return the answer at the end of our redirects, which the client follows with all that it sent."""
    answer = send(port, "", case)
    assert MARK in (answer.location or ""), case
    while MARK in (answer.location or ""):
        answer = send(port, "", replace(case, target=answer.location))
    return answer


def behind(expected):
    """Return what of an answer is seen on a result URL."""
    status, reason, headers, body = expected
    if status == 500 and not any(name == "Access-Control-Allow-Origin" for name, _ in headers):
        return expected  # the server's own
    headers = [(name, value) for name, value in headers if name != "Accept-Ranges"]
    if not any(name == "Cache-Control" for name, _ in headers):
        headers.append(("Cache-Control", "private, no-store"))
    return status, reason, headers, body
