"""What a test must not leave behind: processes, calls that a dead worker holds, keys that stay for ever."""

import os
import re
from contextlib import suppress

import psutil

from wsgi_timeout.store import keys


def alive(process):
    """Return whether a process runs; one that waits to be reaped does not."""
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def processes_of(deployments):
    """Return the processes that deployments started, by pid; their environment tells."""
    files = {str(deployment.runs_file) for deployment in deployments}
    found = {}
    for process in psutil.process_iter(["environ", "ppid", "status"]):
        runs = process.info["status"] != psutil.STATUS_ZOMBIE
        if runs and (process.info["environ"] or {}).get("RUNS_FILE") in files:
            found[process.pid] = process
    return found


def orphans(deployments):
    """Return the processes of deployments whose parent is gone."""
    ours = processes_of(deployments)
    return [process for process in ours.values() if process.info["ppid"] not in {*ours, os.getpid()}]


def held_by_the_dead(client):
    """Return the lists of held calls whose worker has no lease any more."""
    living = {worker for key in client.scan_iter(keys.leases("*")) for worker in client.hkeys(key)}
    held = client.scan_iter(keys.held("*"), _type="list")
    return [key for key in held if key.removeprefix(keys.held("").encode()) not in living]


#: What RQ keeps of queues that are not ours.
_OTHERS = re.compile(r"rq:(queue|workers|wip|finished|failed|deferred|scheduled|canceled):(?!wt:).*")


def eternal(client):
    """Return the keys of ours without a TTL that the table in `keys` does not list as such."""
    listed = [*listed_as_eternal(), _OTHERS]
    names = [key.decode() for key in client.scan_iter() if client.ttl(key) == -1]
    return [name for name in names if not any(row.fullmatch(name) for row in listed)]


def listed_as_eternal():
    """Return the patterns of keys that the table in `keys` lists as having no TTL."""
    rows = re.findall(r"^    ((?:wt|rq):\S+) .* none: ", keys.__doc__, re.MULTILINE)
    return [re.compile(re.sub(r"<\w+>", ".+", row)) for row in rows]
