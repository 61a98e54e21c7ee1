"""Junk in every kind of key: nothing that is read from Redis ends a process, and new calls are served."""

import http.client
import json
import os
import random
import re
import threading
import time
from contextlib import suppress

import pytest
import redis
from harness import ask, follow, until
from junk import VALUES, kinds, write_junk

from wsgi_timeout.store import keys, rq_state

SEED = int(os.environ.get("SEED", "20261128"))
ROUNDS = int(os.environ.get("ROUNDS", "30"))
#: Seconds within which a new call is served: ten times what it takes on an idle machine, at the worst.
SERVED = 60

#: What the table of keys lists, and no junk is written to, with the reason.
LEFT_OUT = {
    "rq:suspended": "whatever stands there suspends the workers, as RQ's own do",
    "wt:paused:<name>": "whatever stands there pauses the name",
    "wt:doctor": "the doctor's own, for a moment",
}


def test_every_kind_of_key_is_meant():
    """What the table of keys lists is junked, or left out for a stated reason."""
    listed = set(re.findall(r"^    ((?:wt|rq):\S+) ", keys.__doc__, re.MULTILINE))
    assert listed <= {*kinds("n", "w", "i", "c", {}), *LEFT_OUT}


#: What a browser sends when a person goes to a page.
NAVIGATION = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def meanwhile(site, number):
    """Ask for what runs while junk is written; what comes of it is nobody's."""
    target = f"/slow?tag=during-{number % 3}&seconds=0.3"
    keyed = {"Idempotency-Key": f"key-{number % 3}"}
    method, headers = ("GET", NAVIGATION) if number % 2 else ("POST", keyed)
    with suppress(OSError, http.client.HTTPException):
        ask(site.web.port, target, method, headers=headers)


def digests_of(client, rng):
    """Return one digest of each kind of key that has one, as far as there are any."""
    found = {}
    for kind in ("key", "first"):
        if there := sorted(client.scan_iter(f"wt:{kind}:*")):
            found[kind] = rng.choice(there).rpartition(b":")[2].decode(errors="replace")
    return found


@pytest.mark.timeout(600)
def test_junk_in_every_kind_of_key(deploy, seen):
    """Seeded junk in fields, entries and in place of whole keys: both halves live and serve."""
    site = deploy(
        pool=("--processes", "2"), lease_seconds=2, wait_seconds=4, idempotency_headers="Idempotency-Key"
    )
    rng, client = random.Random(SEED), site.redis.client
    done, seconds = [], []
    for number in range(ROUNDS):
        leases = keys.leases(site.name)
        workers = client.hkeys(leases) if client.type(leases) == b"hash" else []
        worker = rng.choice(workers or [b"w"]).decode(errors="replace")
        inbox = "none"
        with suppress(redis.exceptions.ResponseError):
            inbox = (client.hget(keys.worker(worker), "pool") or b"none").decode(errors="replace")
        threading.Thread(target=meanwhile, args=(site, number), daemon=True).start()
        records = [key for key in client.scan_iter(keys.call("*")) if client.type(key) == b"hash"]
        call = rng.choice(records).decode(errors="replace").removeprefix(keys.call("")) if records else "fc-x"
        meant = kinds(site.name, worker, inbox, call, digests_of(client, rng))
        done.append(write_junk(client, rng, rng.choice(list(meant.values()))))
        client.publish(rq_state.command_channel(worker), rng.choice(VALUES))

        def served(number=number):
            return follow(site.web.port, f"/fast?tag=after-{number}", timeout=SERVED)[-1].status == 200

        written = time.monotonic()
        until(served, SERVED, f"a new call after {json.dumps(done[-3:])}")
        seconds.append(time.monotonic() - written)
    seen("a new call is served", seconds)
    assert site.pool.popen.poll() is None
    assert site.web.popen.poll() is None
    # What is odd in a key that all share must not reach the next test.
    client.flushdb()
