"""Payloads: signed before they are read, no larger than allowed, whole in any size."""

import hashlib
import os
import pickle
import signal
from dataclasses import replace
from pathlib import Path

import cloudpickle
import pytest
import redis
import requests
from faults.proxy import Break, Proxy
from harness import APPS, Pool, Serve, environment, joined, spawning_with

from wsgi_timeout.errors import ConfigurationError, PayloadRefused, PayloadTooLarge
from wsgi_timeout.functions import payload
from wsgi_timeout.functions.client import client
from wsgi_timeout.store import keys
from wsgi_timeout.store.messages import FunctionRequest

SECRET = "of these tests, and long enough too"
CALL, OTHER = "fc-one-call", "fc-another-call"
MIB = 1024 * 1024
ROOM = 100 * MIB


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.fixture
def trap(tmp_path):
    return Trap(tmp_path / "sprung")


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("WSGI_TIMEOUT_SECRET", SECRET)
    return lambda value: monkeypatch.setenv("WSGI_TIMEOUT_SECRET", value)


class TestSignatures:
    @pytest.mark.parametrize("value", [None, b"", "\u00e9", {"a": [1, 2.5]}, b"\x00." * 100_000], ids=type)
    @pytest.mark.usefixtures("secret")
    def test_what_was_packed_is_unpacked(self, value):
        """A payload comes back as it was, whatever bytes it holds."""
        assert payload.unpack(payload.pack(value, CALL, "result", ROOM), CALL, "result") == value

    @pytest.mark.usefixtures("secret")
    def test_the_trap_works(self, trap):
        """A payload that was signed is unpickled, with all that this may do."""
        payload.unpack(payload.pack(trap, CALL, "arguments", ROOM), CALL, "arguments")
        assert trap.file.exists()

    @pytest.mark.parametrize("place", [0, 1, 10, -50, -44, -43, -2, -1])
    @pytest.mark.usefixtures("secret")
    def test_a_changed_byte_is_refused(self, trap, place):
        """A payload of which any byte was changed is refused, before anything is unpickled."""
        blob = bytearray(payload.pack(trap, CALL, "arguments", ROOM))
        blob[place] ^= 4
        with pytest.raises(PayloadRefused):
            payload.unpack(bytes(blob), CALL, "arguments")
        assert not trap.file.exists()

    @pytest.mark.usefixtures("secret")
    def test_an_unsigned_payload_is_refused(self, trap):
        """A bare pickle is refused, unread, and the message says what to look for."""
        with pytest.raises(
            PayloadRefused, match=r"not signed with this WSGI_TIMEOUT_SECRET.*who else writes"
        ):
            payload.unpack(cloudpickle.dumps(trap), CALL, "arguments")
        for blob in (b"", b".", pickle.dumps(trap, protocol=0), cloudpickle.dumps(trap) + b"." + b"A" * 43):
            with pytest.raises(PayloadRefused):
                payload.unpack(blob, CALL, "arguments")
        assert not trap.file.exists()

    def test_another_secret_is_refused(self, trap, secret):
        """A payload that was signed with another secret is refused."""
        secret("another" * 5)
        blob = payload.pack(trap, CALL, "arguments", ROOM)
        secret(SECRET)
        with pytest.raises(PayloadRefused):
            payload.unpack(blob, CALL, "arguments")
        assert not trap.file.exists()

    @pytest.mark.parametrize(("call", "purpose"), [(OTHER, "arguments"), (CALL, "result"), (OTHER, "result")])
    @pytest.mark.usefixtures("secret")
    def test_one_payload_cannot_stand_for_another(self, trap, call, purpose):
        """A signature names its call and purpose: no payload can stand for another one."""
        blob = payload.pack(trap, CALL, "arguments", ROOM)
        with pytest.raises(PayloadRefused):
            payload.unpack(blob, call, purpose)
        assert not trap.file.exists()

    @pytest.mark.parametrize("value", [None, ""])
    def test_without_a_secret_nothing_is_packed(self, monkeypatch, value):
        """Without a secret, or with an empty one, the error names its variable and how to make one."""
        monkeypatch.delenv("WSGI_TIMEOUT_SECRET", raising=False)
        if value is not None:
            monkeypatch.setenv("WSGI_TIMEOUT_SECRET", value)
        for action in (
            lambda: payload.pack(1, CALL, "result", ROOM),
            lambda: payload.unpack(b"x", CALL, "result"),
        ):
            with pytest.raises(ConfigurationError, match=r"WSGI_TIMEOUT_SECRET is not set.*openssl rand"):
                action()

    @pytest.mark.usefixtures("secret")
    def test_a_payload_has_a_limit(self):
        """A payload over `max_payload` is an error with both sizes, and what to do instead."""
        with pytest.raises(PayloadTooLarge, match=r": 10\d\d bytes, max_payload allows 1000; pass a path"):
            payload.pack(b"x" * 1000, CALL, "arguments", 1000)


def change(call, **changes):
    """Change a queued call's request as an attacker that can write to Redis would."""
    record = keys.call(call.object_id)
    request = FunctionRequest.unpack(client().redis.hget(record, "request"))
    client().redis.hset(record, "request", replace(request, **changes).pack())


def arguments_of(call):
    return FunctionRequest.unpack(client().redis.hget(keys.call(call.object_id), "request")).arguments


@pytest.fixture(scope="module")
def env():
    return {**environment(secret=SECRET), "RUNS_FILE": os.devnull}


@pytest.fixture(scope="module")
def name():
    return f"payload-{os.getpid()}"


@pytest.fixture(scope="module")
def app(redis_server, name, env):
    """The functions, spawned from here; a pool comes up only after calls were tampered with."""
    with joined(redis_server.url, name, env):
        import spawned

        yield spawned


@pytest.fixture(scope="module")
def attacked(app, redis_server, name, env, tmp_path_factory):
    """Calls that were tampered with in Redis while they were queued, by what was done to them."""
    folder = tmp_path_factory.mktemp("attacked")
    calls = {}

    calls["changed"] = app.touch.spawn(str(folder / "changed"))
    blob = arguments_of(calls["changed"])
    change(calls["changed"], arguments=blob.replace(b"changed", b"changes"))

    calls["unsigned"] = app.add.spawn(1)
    change(calls["unsigned"], arguments=cloudpickle.dumps(Trap(folder / "unsigned")))

    calls["another secret"] = app.add.spawn(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSGI_TIMEOUT_SECRET", "another" * 5)
        trap = ("add", (Trap(folder / "another secret"),), {})
        blob = payload.pack(trap, calls["another secret"].object_id, "arguments", ROOM)
    change(calls["another secret"], arguments=blob)

    calls["replayed"], source = app.add.spawn(1), app.touch.spawn(str(folder / "replayed"))
    change(calls["replayed"], arguments=arguments_of(source), function="touch")
    source.cancel()

    calls["a large chunk"] = app.digest.spawn(b"x" * 3 * MIB)
    client().redis.hset(keys.arguments(calls["a large chunk"].object_id), "1", b"y" * MIB)

    other = app.add.spawn(str(folder), "/another function")
    change(other, function="touch")
    forged = app.add.spawn(20, 22)
    job = {"data": b'["os.mkdir", null, ["%s"], {}]' % os.fsencode(folder / "job")}
    client().redis.hset(f"rq:job:{forged.object_id}", mapping=job)

    pool = Pool("spawned:stub", name, redis_server.url, env=env, cwd=APPS)
    yield folder, calls, other, forged
    pool.stop()


class TestAttacks:
    @pytest.mark.parametrize("what", ["changed", "unsigned", "another secret", "replayed", "a large chunk"])
    def test_tampered_arguments_are_refused(self, attacked, what):
        """Arguments that were tampered with in Redis are refused unread, and whoever waits is told."""
        folder, calls, *_ = attacked
        with pytest.raises(PayloadRefused, match=r"the arguments of call .* and not read"):
            calls[what].get(timeout=30)
        assert list(folder.iterdir()) == []

    def test_the_function_is_signed_with_its_arguments(self, attacked):
        """Nobody but its caller says which function takes the arguments."""
        folder, _, other, _ = attacked
        assert other.get(timeout=30) == f"{folder}/another function"
        assert list(folder.iterdir()) == []

    def test_a_job_cannot_name_a_function(self, attacked):
        """What stands in RQ's job is not what runs."""
        folder, _, _, forged = attacked
        assert forged.get(timeout=30) == 42
        assert list(folder.iterdir()) == []

    @pytest.mark.usefixtures("attacked")
    def test_a_tampered_result_is_refused(self, app, trap):
        """A result that was put into Redis by somebody else is refused unread, small or large."""
        small, large = app.add.spawn(1), app.blob.spawn(2 * MIB)
        assert (small.get(timeout=30), len(large.get(timeout=30))) == (1, 2 * MIB)
        client().redis.hset(keys.call(small.object_id), "body", cloudpickle.dumps(trap))
        client().redis.hset(keys.value(large.object_id, 1), "0", cloudpickle.dumps(trap))
        for call in (small, large):
            with pytest.raises(PayloadRefused, match=r"the result of call .* and not read"):
                call.get()
        assert not trap.file.exists()


@pytest.mark.usefixtures("attacked")
class TestSizes:
    @pytest.mark.parametrize("size", [60_000, 70_000, 5 * MIB + 1])
    def test_arguments_and_results_of_any_size(self, app, size):
        """Arguments and results arrive whole, whether they travel with their call or in chunks."""
        data = os.urandom(size)
        assert app.digest.spawn(data).get(timeout=30) == hashlib.sha256(data).hexdigest()
        assert app.blob.spawn(size).get(timeout=30) == b"x" * size

    @pytest.mark.slow
    def test_a_hundred_megabytes(self, app):
        """Arguments and results of 100 MB come whole; of those beyond `max_payload` both sizes are named."""
        data = os.urandom(100 * MIB - 1000)
        assert app.digest.spawn(data).get(timeout=50) == hashlib.sha256(data).hexdigest()
        assert app.blob.spawn(len(data)).get(timeout=50) == b"x" * len(data)
        sizes = r": 1048576\d\d bytes, max_payload allows 104857600; pass a path"
        with pytest.raises(PayloadTooLarge, match=f"the arguments .*{sizes}"):
            app.digest.spawn(b"x" * 100 * MIB)
        with pytest.raises(PayloadTooLarge, match=f"the result .*{sizes}"):
            app.blob.spawn(100 * MIB).get(timeout=50)

    def test_a_large_payload_lies_in_chunks(self, app):
        """A payload of several MB lies in chunks of one MiB, which live as long as their call."""
        call = app.blob.spawn(3 * MIB)
        call.get(timeout=30)
        key = keys.value(call.object_id, 1)
        sizes = [client().redis.hstrlen(key, number) for number in range(client().redis.hlen(key))]
        assert sizes[:3] == [MIB] * 3
        assert 0 < sizes[3] < MIB
        assert client().redis.ttl(key) > 0

    def test_a_chunk_never_stays_without_its_ttl(self, redis_server, tmp_path):
        """Whoever is cut off while he writes a chunk leaves none that would stay for ever."""
        proxy = Proxy(redis_server, tmp_path / "s")
        try:
            hasty = redis.Redis.from_url(proxy.url, retry=None)
            fault = proxy.break_at(Break.BEFORE, lambda exchange: exchange.name == "EXPIRE")
            with pytest.raises(redis.exceptions.ConnectionError):
                payload.write_chunk(hasty, keys.arguments("fc-cut"), 0, b"x" * payload.CHUNK, 60)
            assert fault.struck
            assert redis_server.client.ttl(keys.arguments("fc-cut")) != -1
            payload.write_chunk(hasty, keys.arguments("fc-cut"), 0, b"x" * payload.CHUNK, 60)
            assert 0 < redis_server.client.ttl(keys.arguments("fc-cut")) <= 60
        finally:
            proxy.close()

    def test_arguments_over_the_limit_are_refused_at_once(self, app):
        """Arguments over `max_payload` are an error at the spawn, and nothing is written to Redis."""
        before = set(client().redis.keys("wt:*:fc-*"))
        expected = r"the arguments .*: 1000\d\d bytes, max_payload allows 100000"
        with spawning_with(max_payload=100_000), pytest.raises(PayloadTooLarge, match=expected):
            app.digest.spawn(b"x" * 100_000)
        assert set(client().redis.keys("wt:*:fc-*")) <= before

    def test_a_result_over_the_limit_is_an_error(self, app):
        """A result over the caller's `max_payload` fails the call, with both sizes."""
        expected = r"the result .*: 1000\d\d bytes, max_payload allows 100000"
        with spawning_with(max_payload=100_000), pytest.raises(PayloadTooLarge, match=expected):
            app.blob.spawn(100_000).get(timeout=30)

    def test_a_spawn_without_a_secret(self, app, monkeypatch):
        """A spawn without a secret is an error that names its variable."""
        monkeypatch.delenv("WSGI_TIMEOUT_SECRET")
        with pytest.raises(ConfigurationError, match="WSGI_TIMEOUT_SECRET is not set"):
            app.add.spawn(1)


class TestServe:
    @pytest.mark.slow
    def test_serve_makes_a_secret_and_keeps_it(self, tmp_path):
        """`serve` makes a secret that only its user can read, and what was signed is read after a restart."""
        first = Serve("spawned:stub", folder=APPS, state=tmp_path)
        call_id = requests.post(f"{first.url}/spawn", timeout=30).json()["id"]
        assert requests.get(f"{first.url}/get/{call_id}", timeout=30).json() == {"result": 3}
        first.stop(signal.SIGINT)
        (file,) = tmp_path.glob("wsgi-timeout/*/secret")
        assert file.stat().st_mode & 0o777 == 0o600
        assert len(file.read_text().removeprefix("made-by-serve-")) == 64
        made = file.read_text()
        second = Serve("spawned:stub", folder=APPS, state=tmp_path)
        assert requests.get(f"{second.url}/get/{call_id}", timeout=30).json() == {"result": 3}
        second.stop(signal.SIGINT)
        assert file.read_text() == made

    def test_a_given_secret_needs_no_file(self, redis_server, tmp_path):
        """With a secret in the environment `serve` makes none, and needs no folder of its own."""
        state = tmp_path / "no-folder"
        state.touch()
        server = Serve(
            "webless:stub", folder=APPS, state=state, env={"REDIS_URL": redis_server.url}, secret="given"
        )
        server.stop(signal.SIGINT)
