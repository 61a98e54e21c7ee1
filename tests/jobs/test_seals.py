"""Requests that nobody of ours has made: where a secret is set, no worker runs them."""

import hashlib
import random

import msgpack
import pytest
from harness import ask, until
from uploader import pieces

from wsgi_timeout.store import keys

SECRET = "of these tests, and long enough too"


def queued(site, send):
    """Return the record of the call that a request makes while no worker takes it, and the worker."""
    (worker,) = site.pool.workers()
    worker.suspend()
    redis = site.redis.client
    before = set(redis.scan_iter(keys.call("*")))
    send()
    return until(lambda: set(redis.scan_iter(keys.call("*"))) - before, what="its record").pop(), worker


def later(site, tag):
    """Queue a request whose result is fetched later, and return its result URL."""
    answer = ask(site.web.port, f"/slow?tag={tag}&seconds=0", "POST", headers={"Prefer": "respond-async"})
    assert answer.status == 202
    return answer.location


@pytest.fixture(scope="module")
def patient(deploy):
    return deploy(pool=("--processes", "1"), wait_seconds=20, secret=SECRET, prefer=True, buffer=524_288)


@pytest.mark.parametrize("forged", ["request", "seal", "none", "another's"])
def test_a_forged_request_is_refused(patient, forged):
    """A changed request, a changed seal, none, or that of another call: it does not run: 502."""
    urls = []
    record, worker = queued(patient, lambda: urls.append(later(patient, f"forged-{forged}")))
    redis = patient.redis.client
    if forged == "request":
        request = redis.hget(record, "request")
        values = msgpack.unpackb(request[1:], unicode_errors="surrogatepass")
        values[0]["REMOTE_USER"] = "admin"
        redis.hset(record, "request", request[:1] + msgpack.packb(values, unicode_errors="surrogatepass"))
    elif forged == "seal":
        redis.hset(record, "seal", b"x" * 32)
    elif forged == "none":
        redis.hdel(record, "seal")
    else:
        redis.hset(record, "seal", redis.hget(queued_too(patient, record), "seal"))
    worker.resume()
    answer = ask(patient.web.port, urls[0])
    assert answer.status == 502
    assert not patient.runs(f"forged-{forged}")
    patient.pool.wait_for("is not sealed with this WSGI_TIMEOUT_SECRET")


def queued_too(site, record):
    later(site, "another")
    redis = site.redis.client
    others = (key for key in redis.scan_iter(keys.call("*")) if key != record)
    return next(key for key in others if redis.hget(key, "state") == b"queued")


def swap(redis, stream):
    first, second = redis.hmget(stream, "0", "1")
    redis.hset(stream, mapping={"0": second, "1": first})


def cut(redis, stream):
    count = int(redis.hget(stream, "count"))
    redis.hset(stream, "count", count - 1)
    redis.hdel(stream, str(count - 1))


@pytest.mark.parametrize(
    "forge",
    [
        lambda redis, stream: redis.hset(stream, "1", b"forged"),
        lambda redis, stream: redis.hset(stream, "1", b"x" + redis.hget(stream, "1")[1:]),
        swap,
        cut,
    ],
    ids=["replaced", "a byte", "in another order", "its end"],
)
def test_a_forged_chunk_of_a_body_is_refused(patient, forge):
    """A chunk of a large body that was changed, moved or cut off: its handler never has it."""
    urls = []

    def send():
        body = random.randbytes(400_000)
        answer = ask(patient.web.port, "/echo", "POST", body=body, headers={"Prefer": "respond-async"})
        urls.append(answer.location)

    record, worker = queued(patient, send)
    forge(patient.redis.client, record.replace(b"wt:call:", b"wt:in:"))
    worker.resume()
    answer = ask(patient.web.port, urls[0])
    assert answer.status == 500, answer.body
    patient.pool.wait_for("UploadBroken")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [65_537, 262_144, 524_288, 3_000_000])
def test_a_sealed_body_arrives(patient, size, chunked):
    """A body in chunks is what was sent, whether its handler waits for it or reads while it comes."""
    body = random.randbytes(size)
    answer = ask(patient.web.port, "/hash", "POST", body=pieces(body) if chunked else body)
    assert answer.json == {"length": size, "sha256": hashlib.sha256(body).hexdigest()}


def test_a_sealed_request_runs(patient):
    """Nothing is seen of it by a client."""
    assert ask(patient.web.port, "/fast").status == 200


def test_a_web_process_without_the_secret_says_so(deploy):
    """They would all be refused: a 503 before they are accepted, and a line that tells what to set."""
    site = deploy(pool=("--processes", "1"), secret=SECRET)
    del site.env["WSGI_TIMEOUT_SECRET"]
    web = site.start_web()
    try:
        assert ask(web.port, "/fast").status == 503
        web.wait_for("have a WSGI_TIMEOUT_SECRET, this process has none")
    finally:
        web.stop()
    assert ask(site.web.port, "/fast").status == 200
