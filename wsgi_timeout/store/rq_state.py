"""The part of RQ's own state that we write, so that `rq info` and rq-dashboard show our calls and workers.

RQ 3.0 is the source of every name here (`rq.job.Job.to_dict`, `rq.registry.StartedJobRegistry`,
`rq.worker.BaseWorker.serialize`); `tests/store/test_rq_state.py` reads it all back with RQ itself. Our own
code does not depend on these keys: a call's state is in its record.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

#: The function that all RQ jobs of ours name.
ENTRY_POINT = "wsgi_timeout_jobs.entry.run_call"
#: What stands before and after the id in a job's `data`, which RQ reads as JSON.
_DATA = json.dumps([ENTRY_POINT, None, ["@"], {}]).split('"@"')

QUEUES = "rq:queues"
#: This key exists while `rq suspend` is in force.
SUSPENDED = "rq:suspended"
WORKERS = "rq:workers"


def queue_name(name: str) -> str:
    """Return the RQ queue of a name: the queue of `legacy` is `wt:legacy`."""
    return f"wt:{name}"


def name_of_queue(queue: str) -> str:
    """Return the name that an RQ queue belongs to."""
    return queue.removeprefix(queue_name(""))


def queue_key(name: str) -> str:
    return f"rq:queue:{queue_name(name)}"


def intermediate_key(name: str) -> str:
    """Return the key of the list to which `rq worker` moves an id until it has started the job."""
    return f"{queue_key(name)}:intermediate"


def canceled_key(name: str) -> str:
    """Return the key of the registry in which RQ's `job.cancel()` lists jobs."""
    return f"rq:canceled:{queue_name(name)}"


def failed_key(name: str) -> str:
    """Return the key of RQ's registry of failed jobs."""
    return f"rq:failed:{queue_name(name)}"


def started_key(name: str) -> str:
    return f"rq:wip:{queue_name(name)}"


def job_key(call_id: str) -> str:
    return f"rq:job:{call_id}"


def worker_key(worker: str) -> str:
    return f"rq:worker:{worker}"


def command_channel(worker: str) -> str:
    """Return the channel of RQ's commands to a worker: shutdown, stop-job, kill-horse."""
    return f"rq:pubsub:{worker}"


def workers_of_queue_key(name: str) -> str:
    return f"rq:workers:{queue_name(name)}"


def timestamp(moment: datetime | None = None) -> str:
    """Return a time as RQ writes it."""
    if moment is not None:
        return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds // 1000:06d}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()[:19]


def job_values(call_id: str, description: str, timeout: float) -> list[str | int]:
    """Return what differs between queued jobs: data, description, time, timeout; `enqueue.lua` has the rest.

    A job's only argument is the call's id, since RQ logs arguments.
    """
    return [
        f'{_DATA[0]}"{call_id}"{_DATA[1]}',  # an id needs no escapes
        description,
        timestamp(),
        # More than the call's own timeout, which acts first.
        int(timeout) + 60,
    ]


def worker_fields(name: str, pid: int, hostname: str, versions: tuple[str, str]) -> dict[str, Any]:
    """Return the fields of a new worker; `versions` are RQ's and Python's."""
    moment = timestamp()
    return {
        "birth": moment,
        "last_heartbeat": moment,
        "queues": queue_name(name),
        "pid": pid,
        "hostname": hostname,
        "ip_address": "unknown",
        "version": versions[0],
        "python_version": versions[1],
        "state": "idle",
    }


def worker_progress(state: str, succeeded: int, failed: int) -> Mapping[Any, Any]:
    """Return the fields of a worker that change while it works; `state` is "busy" or "idle"."""
    return {"state": state, "successful_job_count": succeeded, "failed_job_count": failed}
