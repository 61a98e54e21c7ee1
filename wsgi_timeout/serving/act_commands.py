"""The commands that act on a deployment: cancel, retry, pause, resume, drain."""

from __future__ import annotations

import time

import click
import redis

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.serving.command_parts import at_redis, known, known_name, name_option, show
from wsgi_timeout.store import keys, pauses
from wsgi_timeout.store.calls import Calls
from wsgi_timeout.store.worker_list import ListedWorker, list_workers

#: Seconds between two looks whether a pool has drained.
_LOOK_SECONDS = 0.5
#: Seconds in which pools notice a pause: while nothing runs they look once a second.
_NOTICED_SECONDS = 1.5


@click.command("cancel")
@click.argument("call_id")
def cancel_command(call_id: str) -> None:
    """End a call: its waiting clients get 410, its handler is interrupted."""

    def work(client: redis.Redis) -> None:
        found = known(client, call_id)
        if not Calls(client, found["name"]).cancel(call_id, "cancelled by an operator", None):
            raise ConfigurationError(f"{call_id} has ended already: {found['outcome']}")
        show([f"{call_id} is cancelled"])

    at_redis(work)


@click.command("retry")
@click.argument("call_id")
def retry_command(call_id: str) -> None:
    """Run a function's call now that waits for its next attempt."""

    def work(client: redis.Redis) -> None:
        found = known(client, call_id)
        if found["state"] != "delayed":
            raise ConfigurationError(
                f"{call_id} is {found['state']}: only a call that waits for its next attempt can be hurried; "
                "the request of one that has ended is not kept, send it again"
            )
        client.zadd(keys.delayed(found["name"]), {call_id: 0}, xx=True)
        show([f"{call_id} is queued within a second"])

    at_redis(work)


@click.command("pause")
@click.argument("name")
def pause_command(name: str) -> None:
    """Have the workers of NAME take no calls until `resume NAME`: what runs goes on, new calls wait.

    The functions of NAME are paused with it; NAME:functions pauses those alone.
    """

    def work(client: redis.Redis) -> None:
        begun = pauses.pause(client, known_name(client, name))
        time.sleep(_NOTICED_SECONDS)
        show([f"queue wt:{name} is paused" if begun else f"queue wt:{name} was paused already"])

    at_redis(work)


@click.command("resume")
@click.argument("name")
def resume_command(name: str) -> None:
    """End a pause: the workers of NAME take calls again."""

    def work(client: redis.Redis) -> None:
        ended = pauses.resume(client, name)
        if not ended:
            known_name(client, name)
        show([f"queue wt:{name} is resumed" if ended else f"queue wt:{name} was not paused"])
        if pauses.is_paused(client, name):
            base = name.partition(":")[0]
            raise ConfigurationError(
                f"queue wt:{name} is paused still, by `rq suspend`"
                + (f" or `pause {base}`" if base != name else "")
            )

    at_redis(work)


@click.command("drain")
@click.argument("pool")
@name_option
@click.option("--wait", is_flag=True, help="Return when its workers have ended.")
def drain_command(pool: str, *, name: str | None, wait: bool) -> None:
    """Have a pool take no more calls, and end when what it runs has ended, however long that takes.

    POOL is as `workers` shows it, HOST:PID; or HOST, for every pool there. SIGTERM to a pool that drains
    gives it its --graceful-timeout.
    """

    def work(client: redis.Redis) -> None:
        found = _of_pool(client, pool, name)
        if not found:
            raise ConfigurationError(
                f"no live worker is of pool {pool!r}: `wsgi-timeout workers` lists pools"
            )
        pauses.drain(client, [worker.worker for worker in found])
        running = sum(bool(worker.calls) for worker in found)
        show([f"{len(found)} worker processes end, {running} of them when what they run has ended"])
        ours = {worker.worker for worker in found}
        while wait and ours & {worker.worker for worker in _of_pool(client, pool, name)}:
            time.sleep(_LOOK_SECONDS)

    at_redis(work)


def _of_pool(client: redis.Redis, pool: str, name: str | None) -> list[ListedWorker]:
    workers = list_workers(client, name)
    return [worker for worker in workers if worker.pool and pool in {worker.pool, worker.hostname}]
