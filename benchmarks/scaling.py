"""How the cost of a call grows: with what is pending and waiting, with processes, with the size of a body.

make scaling                       prints the figures and draws docs/scaling-*.svg, about ten minutes
make scaling ARGS='bodies'         only these
"""

import os
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

import click
import contestants
import crowds
import load
import matplotlib as mpl
import psutil
import redis
from halves import BothHalves
from harness import RedisServer, until
from rows import GEVENT_OURS

from wsgi_timeout.store import rq_state
from wsgi_timeout.store.calls import forget
from wsgi_timeout.store.connection import connect
from wsgi_timeout.store.messages import CallRequest, ResponseHead
from wsgi_timeout.store.record import NewCall, Outcome, new_id, new_token

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "wsgi-timeout"
import matplotlib.pyplot as plt  # noqa: E402 - after its back end was chosen

DOCS = Path(__file__).parent.parent / "docs"
KIB, MIB = 1024, 1024 * 1024
HEAD = ResponseHead("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "200")])
#: The environ of a browser's request, as gunicorn gives it.
ENVIRON = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/reports/2025",
    "QUERY_STRING": "format=html",
    "RAW_URI": "/reports/2025?format=html",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_SOFTWARE": "gunicorn/27.0.1",
    "REMOTE_ADDR": "127.0.0.1",
    "REMOTE_PORT": "51234",
    "wsgi.url_scheme": "http",
    "HTTP_HOST": "example.com",
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "HTTP_ACCEPT_LANGUAGE": "en-US,en;q=0.5",
    "HTTP_ACCEPT_ENCODING": "gzip, deflate, br",
    "HTTP_COOKIE": "session=" + "x" * 120,
}


@click.command()
@click.argument("names", nargs=-1)
def main(names):
    """Measure, print and draw all, or what NAMES say."""
    all_parts = (pending, waiting, crowds.three_crowds, registered, processes, in_flight, bodies)
    parts = {part.__name__: part for part in all_parts}
    if unknown := set(names) - set(parts):
        raise click.UsageError(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    for name in names or parts:
        click.echo(f"-- {name}")
        parts[name]()


# -- pending calls


def pending():
    """Redis' own time for a call, and its memory, with more and more calls pending."""
    server = RedisServer()
    calls = BothHalves(connect(server.url, connections=2), "scaling")
    calls.workers.register("w", "pool", {"target": "x:app", "wire": "1", "folder": "/"}, {"birth": "now"})
    rows, there = [], 0
    empty = server.client.info("memory")["used_memory"]
    for count in (10, 1000, 10_000, 100_000, 1_000_000):
        started, before = time.monotonic(), cpu(server)
        more = count - there
        while there < count:
            enqueue(calls)
            there += 1
        if count == 1_000_000:
            spent = cpu(server) - before
            click.echo(f"{more} more: {time.monotonic() - started:.0f} s, {spent:.0f} s of Redis")
        used = server.client.info("memory")["used_memory"] - empty
        cycle = redis_time(server, lambda: through(calls), 2000)
        status = redis_time(server, lambda: calls.status(first(server)), 1000)
        rows.append((count, cycle, status, used / count))
        text = f"{cycle:.0f} us of Redis a call, {status:.0f} us a status, {used / count:.0f} bytes each"
        click.echo(f"{count:9d} pending: {text}")
    server.close()
    draw(
        "pending",
        "calls pending",
        "microseconds of Redis' CPU",
        [row[0] for row in rows],
        {
            "a call: enqueue, take, finish, delete": [row[1] for row in rows],
            "a look at its status": [row[2] for row in rows],
        },
    )


def first(server):
    return server.client.lindex(rq_state.queue_key("scaling"), 0).decode()


def enqueue(calls):
    request = CallRequest(ENVIRON, b"", "", 3600.0, 64 * KIB, 16 * MIB, 256 * MIB, 600.0, 86_400.0)
    calls.enqueue(
        NewCall(new_id(), new_token(), "/reports/2025", "GET", request, 2, 10**9, 86_400.0, 10**12), "inbox"
    )


def through(calls):
    """Put one call into the queue and take another out, through its whole life."""
    enqueue(calls)
    taken = calls.attempts.take("", "w")
    calls.attempts.finish(
        taken.attempt,
        Outcome.DONE,
        600,
        response=(HEAD, b"x" * 200),
    )
    forget(calls.scripts, calls.name, {taken.attempt.call_id: taken.attempt.number})
    calls.redis.delete("wt:inbox:inbox")


def redis_time(server, action, count):
    """Return the microseconds of Redis' main thread for one action, the median of five."""
    times = []
    for _ in range(5):
        before = cpu(server)
        for _ in range(count // 5):
            action()
        times.append(1e6 * (cpu(server) - before) / (count // 5))
    return statistics.median(times)


def cpu(server):
    found = server.client.info("cpu")
    return found["used_cpu_user_main_thread"] + found["used_cpu_sys_main_thread"]


# -- requests that wait


def waiting():
    """What waiting requests cost while nothing happens: of Redis, and of their gevent process."""
    server = RedisServer()
    rows = []
    top = 10_000
    options = {"max_waiting": top + 100, "max_queued": 2 * top, "wait_seconds": 600}
    with contestants.ours(server, GEVENT_OURS, **options) as ours, ExitStack() as crowds:
        (worker,) = ours.worker.workers()
        (web,) = psutil.Process(ours.web.pid).children()
        empty = server.client.info("memory")["used_memory"]
        worker.suspend()
        there = 0
        for count in (100, 1000, 3000, top):
            crowd = load.Crowd(ours.port, count - there)
            crowds.callback(crowd.answers, 120)
            until(lambda count=count: server.client.llen("rq:queue:wt:apps") >= count - 1, 60, "the crowd")
            there = count
            used = (server.client.info("memory")["used_memory"] - empty) / count
            of_redis, commands, of_web = idle(server, web)
            rows.append((count, of_redis, of_web))
            click.echo(
                f"{count:6d} waiting: {of_redis:.1%} of a core in Redis, {of_web:.1%} in the web process, "
                f"{commands:.0f} commands/s, {used:.0f} bytes of Redis each"
            )
        worker.resume()
    server.close()
    draw(
        "waiting",
        "requests that wait in one process",
        "share of a core, per cent",
        [row[0] for row in rows],
        {"Redis": [100 * row[1] for row in rows], "web process": [100 * row[2] for row in rows]},
    )


def idle(server, *processes):
    """Return shares of a core that Redis and processes take, and commands a second, within six seconds."""
    window = 6
    before = cpu(server), commands_so_far(server), seconds_of(processes)
    time.sleep(window)
    after = cpu(server), commands_so_far(server), seconds_of(processes)
    redis_seconds, count, seconds = (new - old for old, new in zip(before, after, strict=True))
    return redis_seconds / window, count / window, seconds / window


def commands_so_far(server):
    return sum(stats["calls"] for stats in server.client.info("commandstats").values())


def seconds_of(processes):
    return sum(sum(process.cpu_times()[:2]) for process in processes)


# -- processes


def registered():
    """What idle processes cost, and whether a call costs more among many."""
    for webs, workers in ((1, 1), (1, 16), (1, 64), (16, 1)):
        server = RedisServer()
        options = ("--workers", str(webs))
        with contestants.ours(server, options, pool=("--processes", str(workers))) as ours:
            # A web process begins to look after workers with its first request.
            load.throughput(ours.port, 32, 2)
            time.sleep(2)  # until what wrk left behind has ended
            of_redis, commands, _ = idle(server)
            call = redis_time(server, lambda: load.latency(ours.port, 1), 500)
            click.echo(
                f"{webs:3d} web, {workers:3d} workers, idle: {commands:.0f} commands/s, {of_redis:.2%} of a "
                f"core in Redis; a request takes {call:.0f} us of Redis"
            )
        server.close()


def processes():
    """Requests per second with more worker and web processes, on this machine's cores."""
    rows = []
    for webs in (1, 2):
        for workers in (1, 2, 4):
            server = RedisServer()
            options = ("--workers", str(webs))
            with contestants.ours(server, options, pool=("--processes", str(workers))) as ours:
                rates = [load.throughput(ours.port, 32, 2) for _ in range(5)]
            server.close()
            rows.append((webs, workers, statistics.median(rates)))
            click.echo(
                f"{webs} web, {workers} workers: {rows[-1][2]:.0f} requests/s on {os.cpu_count()} cores"
            )
    series = {
        f"{webs} web process{'es' if webs > 1 else ''}": [rate for web, _, rate in rows if web == webs]
        for webs in (1, 2)
    }
    draw("processes", "worker processes", "requests per second", [1, 2, 4], series, log=False)


# -- bodies


def in_flight():
    """What lies in Redis while clients do not read what they asked for."""
    server = RedisServer()
    pool = ("--processes", "1", "--threads", "64")
    with contestants.ours(server, app="held:app", pool=pool) as ours, ExitStack() as crowds:
        empty = server.client.info("memory")["used_memory"]
        there = 0
        for count in (4, 16, 48):
            crowds.enter_context(load.Unread(ours.port, count - there, f"/bytes/{64 * MIB}"))
            there = count
            used = settled(lambda: server.client.info("memory")["used_memory"] - empty)
            click.echo(f"{count:3d} downloads that nobody reads: {used / count / MIB:.1f} MiB of Redis each")
    server.close()


def settled(measure):
    """Return what is measured once it does not grow any more."""
    last, now = -1, measure()
    while now > last:
        time.sleep(2)
        last, now = now, measure()
    return now


def bodies():
    """Milliseconds of a response, by its size."""
    sizes = [4 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB]
    times = {"down": [], "up": []}
    server = RedisServer()
    with contestants.ours(server, app="held:app") as ours:
        for size in sizes:
            count = 20 if size <= MIB else 3
            for way, action in (("up", load.upload), ("down", load.download)):
                path = "/hash" if way == "up" else f"/bytes/{size}"
                seconds = statistics.median(action(ours.port, path, size) for _ in range(count))
                times[way].append(1000 * seconds)
            click.echo(f"{size // KIB:7d} KiB: {times['up'][-1]:.1f} ms up, {times['down'][-1]:.1f} ms down")
        top = redis.Redis.from_url(server.url).info("memory")["used_memory_peak"] / 1e6
        click.echo(f"peak of Redis' memory: {top:.0f} MB")
    server.close()
    draw("bodies", "size of the body, KiB", "milliseconds", [size // KIB for size in sizes], times)


def draw(name, across, up, values, series, *, log=True):
    """Draw one figure into docs/scaling-NAME.svg."""
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    for label, points in series.items():
        axes.plot(values, points, marker="o", label=label)
    if log:
        axes.set_xscale("log")
    if name == "bodies":
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(DOCS / f"scaling-{name}.svg", metadata={"Date": None})
    plt.close(figure)
    click.echo(f"drawn: docs/scaling-{name}.svg ({time.strftime('%Y-%m-%d')})")


if __name__ == "__main__":
    main()
