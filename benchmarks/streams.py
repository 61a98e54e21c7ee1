"""Rows of event streams: what it costs that they can be resumed."""

import http.client
import resource
import socket
import statistics
import time
from contextlib import ExitStack

import contestants
import load
import redis
from harness import until
from rows import GEVENT_OURS, Row, detail, memory

KINDS = ("plain", "resumable")


def event_rates(server, quick):
    """One stream of small events, with and without the setting: paced, and as fast as it goes."""
    rounds, count = (2, 1000) if quick else (5, 4000)
    paced, fast, cpu = ({kind: [] for kind in KINDS} for _ in range(3))
    with ExitStack() as running:
        sites = {
            kind: running.enter_context(contestants.ours(server, app="held:app", event_streams=kind))
            for kind in KINDS
        }
        for kind, site in sites.items():
            load.latency(site.port, 20)
            _events_a_second(site.port, 2000, 0, kind)
        for _ in range(rounds):
            for kind, site in sites.items():
                before = _cpu(site)
                paced[kind].append(_events_a_second(site.port, count, 1000, kind))
                cpu[kind].append(1e6 * (_cpu(site) - before) / count)
                fast[kind].append(_events_a_second(site.port, 20 * count, 0, kind))
    rows = [
        _ratio("events/s of a stream of 1,000 a second: resumable / plain", "0.95 at least", paced),
        _ratio("events/s of a stream as fast as it goes: resumable / plain", "none", fast),
    ]
    more = statistics.median(cpu["resumable"]) - statistics.median(cpu["plain"])
    what = "processor time of an event, 1,000 a second, web and worker: resumable - plain"
    return [
        *rows,
        Row(what, f"{more:.0f} us", "none", None, [detail(kind, cpu[kind], "us") for kind in KINDS]),
    ]


def _ratio(what, goal, rates):
    ratio = statistics.median(rates["resumable"]) / statistics.median(rates["plain"])
    details = [detail(kind, rates[kind], "/s") for kind in KINDS]
    return Row(what, f"{ratio:.3f}", goal, ratio >= 0.95 if goal != "none" else None, details)


def _cpu(site):
    """Return the seconds of processor time that the processes of a site have used."""
    family = [process for parent in (site.web, site.worker) for process in parent.children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in family)


def _events_a_second(port, count, rate, kind):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    started = time.perf_counter()
    connection.request("GET", f"/events/{count}/{rate}", headers={"Accept": "text/event-stream"})
    answer = connection.getresponse()
    body = answer.read()
    seconds = time.perf_counter() - started
    connection.close()
    assert (body.count(b"data: token"), b"id: " in body) == (count, kind == "resumable"), body[:300]
    return count / seconds


def silent_streams(server, quick):
    """Open event streams that are silent, in one gevent process, beside requests that wait."""
    count = 200 if quick else 1000
    client = redis.Redis.from_url(server.url)
    limits = {"max_waiting": count + 100, "max_queued": count * 2}
    pool = ("--processes", "2", "--threads", str(count // 2))
    with contestants.ours(
        server, GEVENT_OURS, app="held:app", pool=pool, event_streams="resumable", **limits
    ) as site:
        load.latency(site.port, 50)
        for worker in (workers := site.worker.workers()):
            worker.suspend()
        idle = memory(site.web)
        crowd = load.Crowd(site.port, count)
        until(lambda: client.llen("rq:queue:wt:held") >= count - 2, 60, "the crowd in the queue")
        waiter = (memory(site.web) - idle) / count / 1000
        for worker in workers:
            worker.resume()
        crowd.answers(60)
        idle = memory(site.web)
        streams = _open_streams(site.port, count, 12 if quick else 40)
        stream = (memory(site.web) - idle) / count / 1000
        before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        time.sleep(4)
        looks = (client.info("commandstats")["cmdstat_evalsha"]["calls"] - before) / 4 / count
        for one in streams:
            one.close()
    what = f"memory of an open silent event stream, {count} in one gevent process: stream / waiter"
    details = [(name, size, size, size, "KB") for name, size in (("stream", stream), ("waiter", waiter))]
    return [
        Row(what, f"{stream / waiter:.2f}", "1.0 at most", stream <= waiter, details),
        Row("looks at Redis a second of such a stream", f"{looks:.2f}", "none", None),
    ]


def _open_streams(port, count, seconds):
    """Return connections to so many streams, the first event of each of which has come."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    request = f"GET /silent/{seconds} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode()
    streams = []
    for _ in range(count):
        streams.append(socket.create_connection(("127.0.0.1", port), timeout=60))
        streams[-1].sendall(request)
    for stream in streams:
        head = b""
        while b"data: hello" not in head:
            piece = stream.recv(65536)
            assert piece, head
            head += piece
    return streams


ROWS = (event_rates, silent_streams)
