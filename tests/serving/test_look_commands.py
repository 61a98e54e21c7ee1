"""`wsgi-timeout calls`, `show`, `cancel`, `retry` and `workers`: what those see who are woken at night."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from call_steps import a_call, fresh_calls
from commands import run, run_here
from harness import RedisServer, ask, environment, follow, until

from wsgi_timeout.serving.command_parts import duration
from wsgi_timeout.serving.watch import of_failed
from wsgi_timeout.store.failed_calls import FailedCall

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "1"), wait_seconds=30, prefer="true")


@pytest.fixture
def look(site):
    """Return a function that runs a command at this site's Redis, and returns its output."""

    def at_site(*words):
        code, output, errors = run_here(*words, url=site.redis.url)
        assert code == 0, errors
        return output

    return at_site


def test_calls_are_seen_from_the_queue_to_their_end(site, look, gate):
    """One that runs and one that waits are listed; cancelled and done they are listed as ended."""

    def calls():
        return [json.loads(line) for line in look("calls", "--name", site.name, "--json").splitlines()]

    def states():
        return {call["call"]: call["state"] for call in calls()}

    with ThreadPoolExecutor(2) as threads:
        runs = threads.submit(ask, site.web.port, f"/gate?file={gate}")
        until(lambda: states() == {"GET /gate": "running"}, what="the first call")
        waits = threads.submit(ask, site.web.port, "/fast?secret=1", headers={"Cookie": "a=secret"})
        until(lambda: states() == {"GET /gate": "running", "GET /fast": "queued"}, what="the second call")
        first, second = sorted(calls(), key=lambda call: call["state"] == "queued")
        assert first["attempts"] == 1
        assert first["worker"]
        assert first["waited_for"] == 1
        assert 0 <= second["queued_for"] <= second["age"]
        [worker] = [json.loads(line) for line in look("workers", "--name", site.name, "--json").splitlines()]
        assert (worker["target"], worker["calls"]) == ("basic:app", first["id"])
        shown = json.loads(look("show", second["id"], "--json"))
        assert shown["state"] == "queued"
        assert "T" in shown["queued"]
        assert "secret" not in json.dumps(shown)
        assert "is cancelled" in look("cancel", second["id"])
        assert waits.result().status == 410
        gate.touch()
        assert runs.result().status == 200
    until(lambda: not site.redis.client.exists(f"wt:call:{second['id']}"), what="its end in Redis")
    assert json.loads(look("show", second["id"], "--json"))["detail"] == "cancelled by an operator"
    ended = {call["call"]: (call["state"], call["outcome"]) for call in calls()}
    assert ended == {"GET /gate": ("ended", "done"), "GET /fast": ("ended", "cancelled")}
    assert "GET /gate" in look("calls", "--state", "ended", "--name", site.name)


def test_what_became_of_a_call_is_shown(site, look):
    """An ended call has its route, first byte and hops; one that was sent to its waiter is known still."""
    hops = follow(site.web.port, "/slow?seconds=0.3", headers={"Prefer": "wait=0"})
    call_id = re.search(r"fc-[\w-]+", hops[0].location)[0]
    shown = json.loads(look("show", call_id, "--json"))
    assert (shown["hops"], shown["route"], shown["outcome"]) == (len(hops) - 1, "*", "done")
    assert shown["queued"] <= shown["taken"] <= shown["first_byte"] <= shown["ended"]
    assert shown["delivered"]
    assert ask(site.web.port, "/fast?tag=direct").status == 200
    listed = json.loads(look("calls", "--state", "ended", "--name", site.name, "--json").splitlines()[0])[
        "id"
    ]
    until(lambda: not site.redis.client.exists(f"wt:call:{listed}"), what="its end in Redis")
    found = json.loads(look("show", listed, "--json"))
    assert (found["outcome"], "result is not kept" in found["detail"]) == ("done", True)


@pytest.mark.slow
def test_a_million_queued_calls_are_listed_at_once(site):
    """However many wait, a list costs as many commands as it has lines, and none that walks the keys."""
    server = RedisServer()
    try:
        fill = "for i = 1, 1000 do redis.call('RPUSH', KEYS[1], unpack(cjson.decode(ARGV[1]))) end"
        ids = [f"fc-{number:016}" for number in range(1000)]
        server.client.eval(fill, 1, "rq:queue:wt:many", json.dumps(ids))
        server.client.sadd("rq:queues", "rq:queue:wt:many")
        server.client.hset(f"wt:call:{ids[0]}", mapping={"state": "queued", "name": "many", "created": 1})
        server.client.config_resetstat()
        code, output, _ = run_here("calls", "--json", "--limit", "50", url=server.url)
        assert (code, json.loads(output.splitlines()[0])["id"]) == (0, ids[0])
        used = {name: found["calls"] for name, found in server.client.info("commandstats").items()}
        assert not used.keys() & {"cmdstat_keys", "cmdstat_scan"}
        assert sum(used.values()) < 100
    finally:
        server.close()


@pytest.mark.slow
def test_a_watch_goes_on_until_ctrl_c(site, gate):
    """`--watch` shows what runs in full screen, anew each second, and ends with 0 at Ctrl-C."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "wsgi_timeout.serving.cli", "calls", "--watch", "--name", site.name]
    env = {**site.env, "REDIS_URL": site.redis.url, "TERM": "xterm", "COLUMNS": "200", "LINES": "30"}
    watch = subprocess.Popen(command, env=env, stdin=slave, stdout=slave, stderr=slave)
    seen = b""
    try:
        with ThreadPoolExecutor(1) as threads:
            runs = threads.submit(ask, site.web.port, f"/gate?file={gate}")
            while b"1 running" not in seen or b"GET /gate" not in seen:
                assert select.select([master], [], [], 30)[0], seen
                seen += os.read(master, 65536)
            gate.touch()
            assert runs.result().status == 200
        watch.send_signal(signal.SIGINT)
        while select.select([master], [], [], 0.1)[0]:
            os.read(master, 65536)
        assert watch.wait(20) == 0
    finally:
        watch.kill()
        watch.wait()
        os.close(master)
        os.close(slave)


def test_what_cannot_be_done_is_one_line(site):
    """An unknown call, one that is no function's, and no Redis are said in one line, with 2 as exit code."""
    for words, told in [
        (("show", "fc-none"), "there is no call fc-none"),
        (("cancel", "fc-none"), "there is no call fc-none"),
        (("retry", "fc-none"), "there is no call fc-none"),
    ]:
        code, _, errors = run_here(*words, url=site.redis.url)
        assert code == 2
        assert told in errors
        assert errors.count("\n") == 1
    code, _, errors = run_here("calls", url="unix:///nowhere")
    assert code == 2
    assert "Redis does not answer" in errors


def test_what_is_not_shown_is_told(redis_server):
    """Of a long queue the first calls are shown, and how many there are; a misspelt name is told."""
    with fresh_calls(redis_server, "long", workers=("a",)) as calls:
        url = f"{redis_server.url}?db=1"
        for _ in range(5):
            calls.enqueue(a_call())
        code, output, errors = run_here("calls", "--limit", "2", url=url)
        assert (code, output.count("queued")) == (0, 2)
        assert errors == "queue wt:long: 5 calls are queued, the first 2 are shown (--limit)\n"
        assert run_here("calls", "--limit", "5", url=url)[2] == ""
        errors = run_here("calls", "--name", "lnog", url=url)[2]
        assert errors == "no worker has ever served 'lnog' here: long is known\n"


def test_the_serve_of_this_folder_is_found(serve, folder, env):
    """Without REDIS_URL a command speaks to the embedded server of the `serve` that runs in its folder."""
    assert "no serve with an embedded server runs in this folder" in run("calls", env=env, cwd=folder)[2]
    server = serve("shop:app")
    server.get()
    code, output, _ = run("calls", env=env, cwd=folder)
    assert code == 0
    assert "done" in output
    server.ctrl_c()
    assert server.popen.wait(20) == 0
    assert run("calls", env=env, cwd=folder)[0] == 2


def test_times_have_units_and_failures_colors():
    """Tables and `show` say times as people do, and `--watch --failed` shows its table in red."""
    told = [duration(seconds) for seconds in (0, 59.94, 60, 3599, 3600, 86_399, 86_400, 266_400)]
    assert told == [
        "0.0 s",
        "59.9 s",
        "1 min 0 s",
        "59 min 59 s",
        "1 h 0 min",
        "23 h 59 min",
        "1 d 0 h",
        "3 d 2 h",
    ]
    call = FailedCall(
        "fc-1", "shop", "GET /", "lost", 2, "2026-11-28T00:00:00+00:00", "Traceback:\nits worker died"
    )
    shown = of_failed([call])
    assert shown.colors == ["red"]
    assert dict(zip(shown.heads, shown.rows[0], strict=True))["DETAIL"] == "its worker died"


def test_output_that_nobody_reads_is_no_error(redis_server):
    """Where the reader has gone, as `head` does, a command ends without a word."""
    with fresh_calls(redis_server, "unread", workers=("a",)) as calls:
        calls.enqueue(a_call())
        read, write = os.pipe()
        os.close(read)
        env = {**environment(), "REDIS_URL": f"{redis_server.url}?db=1"}
        command = [sys.executable, "-m", "wsgi_timeout.serving.cli", "calls"]
        done = subprocess.run(command, env=env, stdout=write, stderr=subprocess.PIPE, check=False)
        os.close(write)
        assert (done.returncode, done.stderr) == (1, b"")


def test_a_mistake_of_the_environment_is_told():
    """A broken REDIS_URL is one line."""
    code, _, errors = run_here("workers", url="nonsense")
    assert code == 2
    assert "Traceback" not in errors
