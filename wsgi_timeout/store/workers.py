"""The workers of one name: their leases, and recovering the calls of dead ones."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from wsgi_timeout import metrics
from wsgi_timeout.store import keys, rq_state
from wsgi_timeout.store.queue import Queue
from wsgi_timeout.store.record import now_ms, text

#: How many calls one step of a recount looks at, and the ms between two steps of all processes together.
#: Redis serves nobody else during a step: 2 to 8 ms.
_RECOUNTED = 500
_RECOUNT_MS = 400
#: Renewals of a lease between two updates of what RQ shows of its worker: about a minute.
SHOWN_RENEWALS = 20
#: How many ids one `wanted` command carries.
_WANTED = 1000


class Workers(Queue):
    """The workers of one name, for pools that run them and processes that watch them."""

    def register(self, worker: str, pool_inbox: str, info: dict[str, str], birth: dict[str, Any]) -> None:
        """Register a worker: its lease, its description (`info`), and the fields that RQ keeps (`birth`)."""
        self.mend()
        key = rq_state.worker_key(worker)
        info = {**info, "clock": rq_state.timestamp()}
        args: list[Any] = [
            worker,
            pool_inbox,
            keys.WORKER_TTL,
            self._queue,
            key,
            len(info) * 2,
        ]
        for mapping in (info, birth):
            for item in mapping.items():
                args.extend(item)
        self.scripts.run(
            "register",
            [
                self._leases,
                keys.worker(worker),
                rq_state.WORKERS,
                rq_state.workers_of_queue_key(self.name),
                rq_state.QUEUES,
                key,
                keys.held(worker),
            ],
            args,
        )

    def renew(self, workers: list[str]) -> list[str]:
        """Renew the leases of live workers; return those whose lease was lost, and their calls recovered."""
        return self.renew_and_look(workers, workers)[0]

    def renew_and_look(
        self, workers: list[str], busy: Collection[str]
    ) -> tuple[list[str], dict[bytes, bytes]]:
        """Do as `renew`, with the workers of which some are `busy`: they run calls.

        Returns also all leases of this name, by worker.
        """
        first = sorted(workers, key=lambda worker: worker not in busy)
        args = [rq_state.timestamp(), keys.WORKER_TTL, SHOWN_RENEWALS, len(busy), *first]
        lost, leases = self.scripts.run("renew", [self._leases], args)
        return [text(worker) for worker in lost], dict(zip(leases[::2], leases[1::2], strict=True))

    def is_empty(self, *others: str) -> bool:
        """Return whether nothing is there that an observer has to look at, nor any of `others`; one command.

        That is: no call that keeps bytes here, none that waits or is delayed, and none that stock workers of
        RQ have popped or failed.
        """
        looked_at = (
            self.buffered,
            self._queue,
            keys.delayed(self.name),
            rq_state.intermediate_key(self.name),
            rq_state.failed_key(self.name),
        )
        return not self.redis.exists(*looked_at, *others)

    def slots(self) -> int:
        """Return how many live worker processes take calls of this name."""
        return int(self.redis.hlen(self._leases))

    def put_back(self, call_id: str) -> None:
        """Put a call back into the queue that an `rq worker` popped and did not start."""
        popped = rq_state.intermediate_key(self.name)
        self.scripts.run("put_back", [popped, self._queue, keys.call(call_id)], [call_id])

    def revive(self, call_id: str) -> bool:
        """Queue a call again that an `rq worker` failed before it began; return whether it was one."""
        failed, job = rq_state.failed_key(self.name), rq_state.job_key(call_id)
        return bool(self.scripts.run("revive", [failed, self._queue, keys.call(call_id), job], [call_id]))

    def release(self) -> None:
        """Queue the function calls whose pause before a retry is over."""
        self.scripts.run("release", [keys.delayed(self.name), self._queue, self.buffered], [1000])

    def recount(self) -> tuple[list[str], list[str]]:
        """Recount the bytes that some calls keep in Redis, and find calls that are to end.

        Returns two lists of ids: calls that RQ's own tools removed from the queue, which this has ended, and
        running calls for which nobody has asked within their `abandon_after`.
        """
        touched = [self.buffered, keys.delayed(self.name), keys.abandon_times(self.name), self._sequence]
        taken_out, unasked = self.scripts.run("recount", touched, [_RECOUNTED, _RECOUNT_MS])
        return [text(call_id) for call_id in taken_out], [text(call_id) for call_id in unasked]

    def wanted(self, ids: list[str]) -> None:
        """Record that requests wait for these calls, so that they are not abandoned."""
        for start in range(0, len(ids), _WANTED):
            if not self.scripts.run("wanted", [keys.abandon_times(self.name)], ids[start : start + _WANTED]):
                return

    def reading(self, ids: list[str]) -> None:
        """Note that the responses of these calls are being read: they are kept meanwhile."""
        records = [keys.call(call_id) for call_id in ids]
        for start in range(0, len(records), _WANTED):
            self.scripts.run("reading", records[start : start + _WANTED], [])

    def mend(self) -> list[str]:
        """Delete and return keys of this name that have a wrong type, so that commands on them fail.

        Something else has written them; with them no call of the name could be served.
        """
        wanted = {
            self._queue: b"list",
            rq_state.intermediate_key(self.name): b"list",
            rq_state.failed_key(self.name): b"zset",
            self._started: b"zset",
            self._leases: b"hash",
            self._sequence: b"string",
            self.buffered: b"hash",
            keys.delayed(self.name): b"zset",
            keys.abandon_times(self.name): b"zset",
            keys.failed(self.name): b"list",
            keys.done(self.name): b"list",
            keys.tombstones(self.name): b"hash",
            keys.tombstone_ids(self.name): b"list",
            keys.web(self.name): b"hash",
            rq_state.QUEUES: b"set",
            rq_state.WORKERS: b"set",
            rq_state.workers_of_queue_key(self.name): b"set",
        }
        pipe = self.redis.pipeline(transaction=False)
        for key in wanted:
            pipe.type(key)
        found = dict(zip(wanted, pipe.execute(), strict=True))
        wrong = [key for key, kind in wanted.items() if found[key] not in {kind, b"none"}]
        if wrong:
            self.redis.unlink(*wrong)
        if found[self._leases] == b"hash" and found[rq_state.QUEUES] != b"set":
            # By this list operators' commands and RQ's find the queues; workers add theirs when they start.
            self.redis.sadd(rq_state.QUEUES, self._queue)
        return wrong

    def recover(self, worker: str, lease: bytes | None, detail: str) -> list[tuple[str, str]] | None:
        """Recover the calls that a dead worker held; return None if the worker lives.

        Args:
            worker: its name.
            lease: as last seen in Redis, since a change proves that it lives; None: it has certainly died.
            detail: why the calls are lost, for their records.

        Returns:
            `(call id, "requeued" | "lost" | "cancelled" | "dropped")` of each call.
        """
        self.mend()
        key = rq_state.worker_key(worker)
        answer = self.scripts.run(
            "recover",
            [
                self._leases,
                keys.held(worker),
                self._queue,
                self._started,
                rq_state.WORKERS,
                rq_state.workers_of_queue_key(self.name),
                key,
                keys.worker(worker),
            ],
            [worker, "" if lease is None else lease, now_ms(), detail, key, keys.FENCE_TTL],
        )
        if answer is None:
            return None
        words = [text(word) for word in answer]
        settled = list(zip(words[::2], words[1::2], strict=True))
        for _, what in settled:
            metrics.count("recovered_calls_total", self.name, what)
            if what == "lost":
                metrics.count("calls_total", self.name, metrics.UNKNOWN_ROUTE, what)
        return settled
