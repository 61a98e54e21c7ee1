"""A Redis user with the rights that docs/reliability.md lists, and no more: all kinds of traffic pass."""

import re
import signal
from pathlib import Path

import pytest
from commands import run_here
from harness import RedisServer, ask, follow, function_workers, joined, until

from wsgi_timeout.functions.client import client
from wsgi_timeout.serving.doctor_rights import BASE, GROUPS, OPTIONAL, needed, rights
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import keys
from wsgi_timeout.store.connection import connect

USER, PASSWORD = "least", "any"
BODY = bytes(range(256)) * 4000
LUA = Path(keys.__file__).parent / "lua"
RELIABILITY = (Path(__file__).parents[2] / "docs/reliability.md").read_text()


@pytest.fixture(scope="module")
def server():
    server = RedisServer()
    yield server
    server.close()


class Limited:
    """The server as that user sees it."""

    def __init__(self, server, rights):
        self.client = server.client
        self.socket = server.socket
        server.client.execute_command("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *rights)
        self.url = f"unix://{USER}:{PASSWORD}@{server.socket}"


@pytest.fixture(scope="module")
def limited(server):
    server.client.execute_command("ACL", "LOG", "RESET")
    return Limited(server, needed())


def refused(limited):
    """Return what this user was refused."""
    return {entry["object"] for entry in limited.client.acl_log()}


def told(limited, *words):
    code, output, errors = run_here(*words, url=limited.url)
    assert code == 0, errors
    return output


def test_the_list_has_every_command_of_the_scripts():
    """What a script runs is a right of its user too."""
    found = set()
    for script in LUA.glob("*.lua"):
        found |= set(re.findall(r"(?:redis\.p?call|\bread)\('(\w+)'", script.read_text()))
    assert {command.lower() for command in found} <= {
        name for group in GROUPS.values() for name in group.probes
    }


def test_the_list_is_in_the_documents():
    """The command of docs/reliability.md gives the rights that the doctor looks for, and no more."""
    [command] = re.findall(r"^ACL SETUSER wsgi-timeout reset on >PASSWORD (.+)$", RELIABILITY, re.MULTILINE)
    assert tuple(command.split()) == needed()


@pytest.mark.parametrize("dropped", [*GROUPS, *BASE[:3]])
def test_the_doctor_names_what_is_missing(server, dropped):
    """Without one group, or one of the keys and channels, a line says what cannot work, and what to give."""
    group = [f"+{command}" for command in GROUPS[dropped].probes] if dropped in GROUPS else [dropped]
    limited = Limited(server, [right for right in needed() if right not in group])
    with connect(limited.url, connections=1) as redis:
        [finding] = rights(redis, Settings())
    kind = "keys" if dropped.startswith("~") else "channels" if dropped == "&rq:*" else dropped
    assert (finding.verdict, finding.what.partition(":")[0]) == ("fail", kind)
    assert all(right in finding.remedy.split("this user ")[1] for right in group)


def test_nothing_is_missing(server):
    """With the list of the documents the doctor has nothing to say, and leaves nothing behind."""
    with connect(Limited(server, needed()).url, connections=1) as redis:
        assert [finding.verdict for finding in rights(redis, Settings())] == ["ok"]
    assert not server.client.exists(keys.PROBE)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_requests_and_commands(limited, deploy, gate):
    """Requests, streams, a lost worker, a pause and all commands for them need nothing else."""
    site = deploy(
        pool=("--processes", "2", "--graceful-timeout", "1", "--metrics-port", "0"),
        gateway="routes={'/fast': {'wait_for_response': False}}",
        server=limited,
        idempotency_headers="Idempotency-Key",
        metrics_path="/metrics",
        wait_seconds=0.5,
        worker_wait=20,
        buffer=300_000,
        page_after=0.1,
    )
    port, running = site.web.port, f"rq:wip:wt:{site.name}"
    assert len(follow(port, "/slow?seconds=1.5")) > 1
    assert follow(port, "/mirror", "POST", body=BODY)[-1].body == BODY
    assert ask(port, "/fast").status == 202
    for _ in range(2):
        assert (
            ask(port, "/slow?seconds=0", "POST", headers={"Idempotency-Key": "one"}, body=b"").status == 200
        )
    person = {"Accept": "text/html", "Upgrade-Insecure-Requests": "1", "Sec-Fetch-Mode": "navigate"}
    page = ask(port, f"/gate?file={gate}", headers=person)
    assert (page.status, ask(port, page.location, headers=person).status) == (303, 303)
    [call] = [row for row in told(limited, "calls", "--name", site.name).splitlines() if "/gate" in row]
    call = re.search(r"fc-\S+", call)[0]
    assert "/gate" in told(limited, "show", call)
    site.pool.workers()[0].send_signal(signal.SIGKILL)
    site.pool.workers()[-1].send_signal(signal.SIGKILL)
    until(lambda: '"attempts": 2' in told(limited, "show", call, "--json"), 30, "its second run")
    told(limited, "cancel", call)
    until(lambda: not site.redis.client.zcard(running), 20, "its end")
    told(limited, "pause", site.name)
    told(limited, "resume", site.name)
    assert "wsgi_timeout_workers" in ask(port, "/metrics").text
    for words in ("calls --failed", "calls --json", "workers", "health"):
        told(limited, *words.split(), "--name", site.name)
    [pool] = set(re.findall(rf"\S+:{site.pool.pid}\b", told(limited, "workers")))
    told(limited, "drain", pool, "--wait")
    assert refused(limited) <= {*OPTIONAL, "config|get"}
    assert "Redis is away" not in site.web.output + site.pool.output


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_functions_and_commands(limited, deploy, gate):
    """The same of functions: large arguments and results, retries, delays, a cancel."""
    site = deploy("spawned:stub", server=limited, secret="any", worker_wait=20)
    until(lambda: function_workers(limited, site.name) >= 1, 20, "the process for functions")
    with joined(limited.url, site.name, site.env):
        import spawned

        assert spawned.mirror.spawn("large", BODY).get(timeout=40)[-1000:] == BODY[-1000:]
        held = spawned.held.spawn(str(gate))
        until(lambda: held.status()["state"] == "running", 20, "its start")
        told(limited, "cancel", held.object_id)
        flaky = spawned.flaky.spawn("flaky", 2)
        until(lambda: flaky.status()["state"] == "delayed", 20, "the pause before its retry")
        told(limited, "retry", flaky.object_id)
        assert flaky.get(timeout=60) == 3
        client().redis.close()
    assert refused(limited) <= {*OPTIONAL, "config|get"}
