"""The answer to Prometheus: the metrics of every process of a site, and gauges read from Redis."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from wsgi_timeout import metrics
from wsgi_timeout.metrics import FAMILIES, FOLDER_VARIABLE
from wsgi_timeout.store import gauges
from wsgi_timeout.store.connection import connect
from wsgi_timeout.store.redis_errors import ANY

_OURS = "wsgi-timeout-metrics-"
#: Stands in place of a process id in the files that hold what dead processes have counted.
_DEAD = "0"
#: Seconds for which a scrape waits for Redis.
_REDIS_SECONDS = 2.0


def make_folder() -> str:
    """Make the folder in which this process's children keep their metrics, and return it.

    If the environment names a folder, that one is used, unless another process of ours has made it.
    """
    given = metrics.folder()
    mine = f"{_OURS}{os.getpid()}-"
    if given and (not Path(given).name.startswith(_OURS) or Path(given).name.startswith(mine)):
        return given
    # In memory: writing to a mapped file can block on the disk.
    shared = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108, PTH112
    os.environ[FOLDER_VARIABLE] = tempfile.mkdtemp(prefix=mine, dir=shared)
    return metrics.folder()


def remove_folder() -> None:
    """Remove the folder that `make_folder` has made in this process."""
    folder = Path(metrics.folder())
    if folder.name.startswith(f"{_OURS}{os.getpid()}-"):
        shutil.rmtree(folder, ignore_errors=True)


class Exposition:
    """Answers scrapes of one site."""

    def __init__(self, url: str) -> None:
        """Prepare a client for `url`, without connecting; raises what `connect` raises."""
        self._redis = connect(url, connections=1, socket_timeout=_REDIS_SECONDS)

    def answer(self) -> tuple[str, bytes]:
        """Return the content type and the text of all metrics."""
        from prometheus_client import CollectorRegistry, exposition, multiprocess  # noqa: PLC0415 - optional

        registry = CollectorRegistry()
        registry.register(self)
        folder = metrics.folder()
        if not folder:
            own = exposition.generate_latest(metrics.registry())
            return exposition.CONTENT_TYPE_LATEST, own + exposition.generate_latest(registry)
        multiprocess.MultiProcessCollector(registry, folder)
        with _alone(folder):
            if Path(folder).name.startswith(_OURS):
                _fold(folder)
            return exposition.CONTENT_TYPE_LATEST, exposition.generate_latest(registry)

    def describe(self) -> list[Any]:
        """Return nothing, so that registering this does not ask Redis for the names of metrics."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield the gauges from Redis; if Redis does not answer, a metric says so."""
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - optional

        try:
            found = gauges.read(self._redis)
        except ANY:
            found = [("redis_up", (), 0)]
        for family in FAMILIES.values():
            values = [value for value in found if f"wsgi_timeout_{value[0]}" == family.name]
            if family.kind == "redis" and values:
                shown = GaugeMetricFamily(family.name, family.meaning, labels=family.labels)
                for _, labels, value in values:
                    shown.add_metric(labels, value)
                yield shown


@contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Let one scrape run at a time: while files are merged, another would count them twice, or not at all."""
    with (Path(folder) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fold(folder: str) -> None:
    """Merge the files of dead processes into one of each kind, so that their number stays bounded."""
    from prometheus_client.mmap_dict import MmapedDict  # noqa: PLC0415 - optional

    for path in Path(folder).glob("*.db"):
        kind, _, process = path.stem.rpartition("_")
        if process == _DEAD or _lives(int(process)):
            continue
        if not kind.startswith("gauge"):
            total = MmapedDict(str(path.with_name(f"{kind}_{_DEAD}.db")))
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):
                total.write_value(key, total.read_value(key)[0] + value, 0.0)
            total.close()
        path.unlink()


def _lives(process: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True
