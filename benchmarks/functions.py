"""Functions that are spawned, against other job queues: from spawn to result, and how many a second."""

import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import contestants
from contestants import BIN, FOLDER
from harness import Pool, Process
from rows import Row, at_once, detail

NAMES = ("rq.SimpleWorker", "Celery", "Dramatiq", "Huey", "taskiq", "arq")


def functions(server, quick):
    """Latency of one after another, and throughput of many at a time, ours and each peer in turns."""
    rounds, count, crowd = (2, 50, 160) if quick else (5, 100, 400)
    rows = []
    with at_once([_running(server, name) for name in ("ours", *NAMES)]) as (ours, *peers):
        for name, peer in zip(NAMES, peers, strict=True):
            times, rates = {name: [], "ours": []}, {name: [], "ours": []}
            for _ in range(rounds):
                for one, ask in ((name, peer), ("ours", ours)):
                    times[one].append(1e6 * ask(f"call {count}"))
                    rates[one].append(crowd / ask(f"many {crowd}"))
            faster = statistics.median(times[name]) / statistics.median(times["ours"])
            more = statistics.median(rates["ours"]) / statistics.median(rates[name])
            rows += [
                Row(
                    f"functions, from spawn to result: {name} / ours",
                    f"{faster:.2f}",
                    "1 at least",
                    faster >= 1,
                    [detail(one, values, "us") for one, values in times.items()],
                ),
                Row(
                    f"functions a second, spawned at once: ours / {name}",
                    f"{more:.2f}",
                    "1 at least",
                    more >= 1,
                    [detail(one, values, "/s") for one, values in rates.items()],
                ),
            ]
        shares = [ours(f"scripts {count}") for _ in range(rounds)]
    share = statistics.median(shares)
    what = "spawn / a bare EVALSHA of its script"
    return [
        *rows,
        Row(what, f"{share:.2f}", "1.5 at most", share <= 1.5, [detail("ours", shares, "times")]),
    ]


@contextmanager
def _running(server, name):
    """Run a worker and a client; yield a function that has the client measure, and returns its figure."""
    env = {**contestants.env(server), "BENCH_TASKS": name, "WSGI_TIMEOUT_SECRET": "s" * 32}
    with ExitStack() as running:
        running.callback(_worker(server, name, env).stop)
        client = subprocess.Popen(
            [sys.executable, "-c", "import tasks; tasks.main()"],
            env=env,
            cwd=FOLDER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.callback(client.wait)
        running.callback(client.stdin.close)

        def ask(what):
            client.stdin.write(f"{what}\n")
            client.stdin.flush()
            answer = client.stdout.readline()
            assert answer, f"the client of {name} has ended"
            return float(answer)

        time.sleep(0.5)
        ask("call 20")
        yield ask


def _worker(server, name, env):
    if name == "ours":
        options = ("--processes", "1", "--function-processes", "1")
        return Pool("tasks:stub", None, server.url, *options, env=env, cwd=FOLDER)
    command = {
        "rq.SimpleWorker": [
            *(BIN / "rq", "worker", "--worker-class", "rq.SimpleWorker"),
            *("-q", "--url", server.url, "tasks"),
        ],
        "Celery": [
            *(BIN / "celery", "-A", "tasks:celery_app", "worker", "-c", "1", "-l", "WARNING"),
            *("--without-gossip", "--without-mingle"),
        ],
        "Dramatiq": [BIN / "dramatiq", "tasks", "--processes", "1", "--threads", "1"],
        "Huey": [BIN / "huey_consumer", "tasks.huey_app", "-w", "1", "-q"],
        "taskiq": [BIN / "taskiq", "worker", "tasks:taskiq_broker", "--workers", "1", "--log-level", "ERROR"],
        "arq": [BIN / "arq", "tasks.ArqWorker"],
    }[name]
    return Process(command, env=env, cwd=FOLDER)


ROWS = (functions,)
