"""Every Redis key.

    key                        type    written by                TTL
    -------------------------  ------  ------------------------  ------------------------------------
    wt:call:<id>               hash    the scripts in lua/       queue_ttl + timeout of each run, then
                                                                 result_ttl, then delivery_grace; 1 to 2
                                                                 minutes where nobody can ask for it
    wt:in:<id>                 hash    web: request body         as its call; 60 s until it is queued
    wt:out:<id>:<attempt>      hash    worker: response body     as its call
    wt:args:<id>               hash    spawn: large arguments    as its call; 60 s until it is queued
    wt:value:<id>:<attempt>    hash    worker: a large result    as its call
    wt:delayed:<name>          zset    retry.lua                 none: a member goes when it is due
    wt:abandon:<name>          zset    enqueue, join, wanted     none: when each call is abandoned; a
                                                                 member goes with its call
    wt:key:<name>:<digest>     hash    web: an idempotency key   60 s until the body is in, then as long
                                                                 as a call may take and be kept
    wt:hand:<id>               string  hand.lua: a browser is    3 s
                                       led to its address
    wt:first:<name>:<digest>   hash    first_begin.lua: a        its first wait, and 15 s
                                       navigation that waits
    wt:gone:<name>             hash    deliver.lua (tombstones)  7 days after the last one; each is kept
                                                                 7 days, the last 100,000 of a name
    wt:gone-ids:<name>         list    deliver.lua               the same: when each of them was delivered
    wt:failed:<name>           list    prelude.lua: the last     7 days after the last entry
                                       1,000 not done
    wt:done:<name>             list    finish.lua: the last      7 days, renewed at each 200th
                                       1,000 done
    wt:doctor                  string  `wsgi-timeout doctor`,    deleted at once, else 5 s
                                       and `durability=fsync`
                                       at start
    wt:web:<name>              hash    web processes, by web.lua 60 s after the last one told of itself
    wt:inbox:<random>          list    what changes a call       60 s after the last messages
    wt:held:<worker>           list    BLMOVE from the queue     none: goes with the worker's lease
                               string  recover.lua: no command   20 min
                                       moves a call to it
    wt:paused:<name>           string  `wsgi-timeout pause`      none: until `wsgi-timeout resume`
    wt:leases:<name>           hash    pools, one field a worker none: a field goes with its worker
    wt:buffered:<name>         hash    enqueue, write, recount   none: bytes of each call, and of all;
                                                                 a field goes with its call; '#' is the
                                                                 last call's sequence number
    wt:sequence:<name>         string  recount.lua               none: that number, once there is no call
    wt:worker:<worker>         hash    pools (what it serves)    30 days, renewed with the lease
    rq:queue:wt:<name>         list    enqueue.lua, recover.lua  none: RQ's queue
    rq:queue:wt:<name>:intermediate  list  stock rq workers    none: what they popped and not started
    rq:failed:wt:<name>        zset    stock rq workers          none: RQ's registry of failed jobs
    rq:wip:wt:<name>           zset    take.lua, finish.lua      none: RQ's registry of started jobs
    rq:canceled:wt:<name>      zset    RQ's `job.cancel()`       none: a member goes with its job
    rq:job:<id>                hash    the scripts in lua/       as its call
    rq:worker:<worker>         hash    pools (RQ's description)  30 days, renewed with the lease
    rq:queues                  set     register.lua              none: RQ's list of queues
    rq:workers                 set     pools, recover.lua        none: RQ's list of workers
    rq:workers:wt:<name>       set     pools, recover.lua        none: RQ's workers of a queue
    rq:suspended               string  `rq suspend`              RQ's: as its user says

`<id>` is public and stands in logs; a call's token lies in its record only.
"""

from __future__ import annotations

#: What a Redis user of ours may touch: keys, and channels.
PATTERNS = tuple(f"{prefix}:*" for prefix in ("wt", "rq"))
CHANNELS = PATTERNS[1]
#: Written and deleted by `doctor`, to see whether that is allowed.
PROBE = "wt:doctor"
#: Seconds that a tombstone is kept, which tells "delivered" from "never existed".
TOMBSTONE_TTL = 7 * 86_400
#: How many tombstones are kept of one name, 20 MB of Redis' memory: the oldest ones go first.
MOST_TOMBSTONES = 100_000
#: Seconds that the list of failed calls outlives its last entry.
FAILED_TTL = 7 * 86_400
#: Seconds after which an unread inbox expires: its process may have died.
INBOX_TTL = 60
#: Seconds after its last write for which an upload is kept whose call is not queued yet.
UPLOAD_TTL = 60
#: Seconds that a call is kept whose client had left when it was sent, unless it is given up before.
LEFT_TTL = 60
#: Seconds for which no call can be moved to a dead worker: a command that it sent may still arrive. Linux
#: retransmits for a quarter of an hour.
FENCE_TTL = 20 * 60
#: Seconds that the description of a silent worker is kept: longer than an outage or a laptop's sleep, after
#: which the worker goes on. If it has died, whoever notices that deletes the description.
WORKER_TTL = 30 * 86_400


def call(call_id: str) -> str:
    return f"wt:call:{call_id}"


def request_body(call_id: str) -> str:
    return f"wt:in:{call_id}"


def response_body(call_id: str, attempt: int) -> str:
    return f"wt:out:{call_id}:{attempt}"


def arguments(call_id: str) -> str:
    return f"wt:args:{call_id}"


def value(call_id: str, attempt: int) -> str:
    return f"wt:value:{call_id}:{attempt}"


def delayed(name: str) -> str:
    return f"wt:delayed:{name}"


def abandon_times(name: str) -> str:
    return f"wt:abandon:{name}"


def claim(name: str, digest: str) -> str:
    return f"wt:key:{name}:{digest}"


def handover(call_id: str) -> str:
    return f"wt:hand:{call_id}"


def first_wait(name: str, digest: str) -> str:
    return f"wt:first:{name}:{digest}"


def tombstones(name: str) -> str:
    return f"wt:gone:{name}"


def tombstone_ids(name: str) -> str:
    return f"wt:gone-ids:{name}"


def failed(name: str) -> str:
    return f"wt:failed:{name}"


def done(name: str) -> str:
    return f"wt:done:{name}"


def web(name: str) -> str:
    return f"wt:web:{name}"


def inbox(process: str) -> str:
    return f"wt:inbox:{process}"


def held(worker: str) -> str:
    return f"wt:held:{worker}"


def leases(name: str) -> str:
    return f"wt:leases:{name}"


def paused(name: str) -> str:
    return f"wt:paused:{name}"


def pauses(name: str) -> tuple[str, ...]:
    """Return the keys each of which has the workers of a name take nothing; a queue of functions has two."""
    return tuple(paused(each) for each in dict.fromkeys((name, name.partition(":")[0])))


def buffered(name: str) -> str:
    return f"wt:buffered:{name}"


def sequence(name: str) -> str:
    return f"wt:sequence:{name}"


def worker(worker_name: str) -> str:
    return f"wt:worker:{worker_name}"
