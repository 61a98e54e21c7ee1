"""What a request may ask of us: not to wait, or to be run once however often it is sent."""

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import ask, follow, until

SLOW = "seconds=1"
BODY = b"01234" * 40_000


@pytest.fixture(scope="module")
def site(deploy):
    options = "prefer=True, idempotency_headers='Idempotency-Key, X-Request-ID'"
    return deploy("addresses:app", pool=("--processes", "2"), gateway=options, wait_seconds=20)


@pytest.fixture(scope="module")
def port(site):
    return site.web.port


@pytest.mark.parametrize(
    ("prefer", "status"), [("respond-async", 202), ("wait=0", 303), ("foo, wait=15", 200), ("wait=x", 200)]
)
def test_a_preference_is_followed_and_said(port, prefer, status):
    """`respond-async` is a 202, `wait=N` shortens the wait, and the answer says what was applied."""
    answer = ask(port, f"/list?page=1&{SLOW}", headers={"Prefer": prefer})
    assert answer.status == status
    applied = prefer.removeprefix("foo, ") if "x" not in prefer else None
    assert answer.header("Preference-Applied") == applied
    if status == 202:
        assert follow(port, answer.location)[-1].text == "page 1"


@pytest.mark.parametrize(
    ("prefer", "status", "applied"),
    [
        ('wait="0", wait=9', 303, "wait=0"),
        ("wait=99999999999", 200, "wait=99999999999"),
        ('foo="a, respond-async", bar;wait=0', 200, None),
        ('Respond-Async="" ; x', 202, "respond-async"),
        ("respond-async=1, wait=0.5, wait=\xb2", 200, None),
        ("respond-async, wait=0", 202, "respond-async, wait=0"),
        ("respond-async, wait=15", 200, "respond-async, wait=15"),
    ],
)
def test_preferences_are_read_as_the_rfc_writes_them(port, prefer, status, applied):
    """Quoted, empty and repeated values, parameters; with both of ours a 202 comes after the wait."""
    answer = ask(port, "/list?page=1&seconds=0.1", headers={"Prefer": prefer})
    assert (answer.status, answer.header("Preference-Applied")) == (status, applied)
    if status == 202:
        assert follow(port, answer.location)[-1].text == "page 1"


@pytest.mark.parametrize(("limit", "seconds"), [(0.3, 1), pytest.param(1, 4, marks=pytest.mark.slow)])
def test_a_client_that_tries_again_and_again_gets_its_one_run(site, port, limit, seconds):
    """A POST that takes longer than its client has patience runs once; the last try gets its answer."""
    tries, headers = [], {"Idempotency-Key": f"order-{seconds}"}
    target = f"/shared?tag=tries{seconds}&seconds={seconds}"

    def done():
        with contextlib.suppress(TimeoutError):
            tries.append(ask(port, target, "POST", headers=headers, body=b"a=1", timeout=limit))
        return tries

    (answer,) = until(done, 20, what="an answer")
    assert (answer.status, answer.text) == (200, "POST a=1")
    assert answer.header("Idempotent-Replayed") == "true"
    again = ask(port, target, "POST", headers=headers, body=b"a=1")
    assert (again.text, again.header("Idempotent-Replayed")) == ("POST a=1", "true")
    assert len(site.runs(f"tries{seconds}-POST")) == 1


@contextlib.contextmanager
def half_sent(port, tag, headers):
    """Send half of a POST's body, more than what is received without a thread; gives the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        lines = [
            f"POST /shared?tag={tag} HTTP/1.1",
            "Host: x",
            f"Content-Length: {len(BODY)}",
            "Connection: close",
        ]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        sock.sendall("\r\n".join([*lines, "", ""]).encode() + BODY[:100_000])
        yield sock


@pytest.mark.parametrize("first", ["goes on", "leaves"])
def test_a_repeat_while_the_first_body_comes_in_waits_for_it(site, port, first):
    """It joins the first one's call when that is in, and takes its place when that client leaves: one run."""
    tag = f"half-{first[:4].strip()}"
    headers = {"Idempotency-Key": tag}
    claims = f"wt:key:{site.name}:*"
    before = site.redis.client.keys(claims)
    with half_sent(port, tag, headers) as sock, ThreadPoolExecutor() as pool:
        until(lambda: len(site.redis.client.keys(claims)) > len(before), what="a claim")
        with pytest.raises(TimeoutError):
            ask(port, f"/shared?tag={tag}", "POST", headers=headers, body=BODY, timeout=0.3)
        repeat = pool.submit(ask, port, f"/shared?tag={tag}", "POST", headers=headers, body=BODY)
        if first == "leaves":
            sock.close()
        else:
            sock.sendall(BODY[100_000:])
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
        answer = repeat.result()
    assert (answer.status, answer.text) == (200, f"POST {BODY.decode()}")
    # Of two that wait either may take the place of the first.
    assert first == "leaves" or answer.header("Idempotent-Replayed") == "true"
    assert len(site.runs(f"{tag}-POST")) == 1


@pytest.mark.parametrize("size", [3, 300_000])
def test_a_key_belongs_to_its_body_and_its_caller(site, port, size):
    """Another body is a 422; another caller, URL or key is another request."""
    tag, body = f"key{size}", b"x" * size
    target = f"/shared?tag={tag}"
    first = ask(port, target, "POST", headers={"X-Request-ID": tag}, body=body)
    assert (first.status, first.header("Idempotent-Replayed")) == (200, None)
    assert len(first.body) == size + 5
    assert ask(port, target, "POST", headers={"X-Request-ID": tag}, body=body).body == first.body
    assert ask(port, target, "POST", headers={"X-Request-ID": tag}, body=body[:-1] + b"y").status == 422
    assert ask(port, target, "POST", headers={"X-Request-ID": tag}).status == 422
    assert len(site.runs(f"{tag}-POST")) == 1
    for headers in ({"Authorization": "Bearer other"}, {"Cookie": "session=other"}, {"X-Request-ID": "2"}):
        answer = ask(port, target, "POST", headers={"X-Request-ID": tag, **headers}, body=body)
        assert (answer.status, answer.header("Idempotent-Replayed")) == (200, None)
    assert len(site.runs(f"{tag}-POST")) == 4
