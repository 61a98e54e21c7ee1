"""Rows of one request after another, and of 32 clients: ours, the floor, the app alone, and peers."""

import statistics
from contextlib import ExitStack

import contestants
import load
import redis
from rows import Row, at_once, commands_a_call, detail


def single_requests(server, quick):
    """Latency at one client and throughput at 32: direct, floor and ours in turns."""
    rounds, count, seconds = (3, 150, 1) if quick else (7, 500, 3)
    with ExitStack() as running:
        three = [
            running.enter_context(start(server))
            for start in (contestants.direct, contestants.floor, contestants.ours)
        ]
        times, rates = {one.name: [] for one in three}, {one.name: [] for one in three}
        for _ in range(rounds):
            for one in three:
                times[one.name].append(1000 * load.latency(one.port, count))
            for one in three:
                rates[one.name].append(load.throughput(one.port, 32, seconds))
    middle = {name: statistics.median(values) for name, values in times.items()}
    added = (middle["ours"] - middle["direct"]) / (middle["floor"] - middle["direct"])
    of_floor, of_direct = (
        statistics.median(rates["ours"]) / statistics.median(rates[name]) for name in ("floor", "direct")
    )
    return [
        Row(
            "added latency, 1 client: (ours - direct) / (floor - direct)",
            f"{added:.2f}",
            "1.15 at most",
            added <= 1.15,
            [detail(name, values, "ms") for name, values in times.items()],
        ),
        Row(
            "requests/s at 32 clients: ours / floor",
            f"{of_floor:.2f}",
            "0.8 at least",
            of_floor >= 0.8,
            [detail(name, rates[name], "/s") for name in ("floor", "ours")],
        ),
        Row(
            "requests/s at 32 clients: ours / direct gunicorn",
            f"{of_direct:.2f}",
            "0.75 at least",
            of_direct >= 0.75,
            [detail(name, rates[name], "/s") for name in ("direct", "ours")],
        ),
    ]


#: How many times a peer's throughput ours is to be at least.
_AHEAD = {
    "rq.SimpleWorker": 5,
    "rq worker": 150,
    "Celery": 3,
    "Dramatiq": 4,
    "Huey": 1.2,
    "gunicorn's dirty workers": 1,
}


#: Rounds at least so long: 32 clients wait for seconds each for a worker that forks for every call.
_LEAST_SECONDS = {"rq worker": 6}


def against_peers(server, quick):
    """Throughput at 32 clients, ours and each peer in turns."""
    with contestants.ours(server) as ours:
        with at_once([start(server) for start in contestants.PEERS]) as peers:
            rows = [_against(ours, peer, quick) for peer in peers]
        # It takes from the same queue as SimpleWorker.
        with contestants.stock_worker(server) as peer:
            return [*rows, _against(ours, peer, quick)]


def _against(ours, peer, quick):
    rounds, seconds = (2, 1) if quick else (5, 2)
    rates = {peer.name: [], "ours": []}
    for _ in range(1 if quick and peer.name in _LEAST_SECONDS else rounds):
        # What the last round left behind is worked off first.
        load.latency(peer.port, 1)
        rates[peer.name].append(
            load.throughput(peer.port, 32, max(seconds, _LEAST_SECONDS.get(peer.name, 0)))
        )
        rates["ours"].append(load.throughput(ours.port, 32, seconds))
    factor = statistics.median(rates["ours"]) / statistics.median(rates[peer.name])
    goal = _AHEAD[peer.name]
    return Row(
        f"requests/s at 32 clients: ours / {peer.name}",
        f"{factor:.2f}",
        f"{goal} at least",
        factor >= goal,
        [detail(name, values, "/s") for name, values in rates.items()],
    )


def redis_commands(server, quick):
    """Commands in Redis for one request, those inside of scripts counted, and its round trips."""
    count = 300 if quick else 1000
    client = redis.Redis.from_url(server.url)
    counted, trips = {}, {}
    for start in (contestants.floor, contestants.ours, contestants.simple_worker):
        with start(server) as one:
            before = _round_trips(client)
            # SimpleWorker takes its time, and its commands hardly vary.
            sent = count // 5 if one.name == "rq.SimpleWorker" else count
            counted[one.name] = commands_a_call(client, one.port, sent)
            trips[one.name] = (_round_trips(client) - before) / sent
    return [
        Row(
            "Redis commands a call",
            f"{counted['ours']:.1f}",
            "27 at most",
            counted["ours"] < 27.5,
            [(name, value, value, value, "commands") for name, value in counted.items()],
        ),
        Row(
            "round trips to Redis on a call's path", f"{trips['ours']:.1f}", "4 at most", trips["ours"] < 4.5
        ),
    ]


def _round_trips(client):
    """Return how many scripts and blocking reads clients have sent: a call's own, and few others."""
    stats = client.info("commandstats")
    sent = (stats.get(f"cmdstat_{name}") for name in ("evalsha", "blmove", "blmpop"))
    return sum(one["calls"] for one in sent if one)


ROWS = (single_requests, redis_commands, against_peers)
