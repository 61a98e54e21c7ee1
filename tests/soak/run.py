"""The soak: mixed traffic under random faults, and a checker that reads what clients and handlers wrote.

make soak                                        ten minutes, a seed of its own
make soak ARGS='--seconds 60 --seed 7'
make soak ARGS='--seed 7 --sentinel'             on a primary and its replica, with failovers
make soak ARGS='--hours 1 --plot docs/images/steady.svg'    what it takes meanwhile, drawn
make soak ARGS='--seeds 31,32,33,34'             one after the other, each second one with failovers; a table
"""

import math
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import click
from harness import until
from remains import eternal, held_by_the_dead

from soak.checker import check, summary
from soak.history import History, lines
from soak.plot import Sampler, draw, rise
from soak.site import Faults, Site, load
from soak.traffic import Client

CLIENTS = 8
#: Bytes by which Redis may hold more at the end than at the beginning: its own buffers and scripts.
GROWTH = 4_000_000
#: Seconds that the end of a call is kept that nobody can ask for.
UNWANTED_SECONDS = 60


@click.command()
@click.option("--seconds", default=600.0, show_default=True, help="How long the traffic goes on.")
@click.option("--hours", type=float, help="The same in hours.")
@click.option("--seed", type=int, help="Repeat the choices of another run.")
@click.option("--sentinel", is_flag=True, help="On a Redis that sentinels watch, which fails over.")
@click.option("--seeds", default="", help="More than one, with commas: each second one fails over.")
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Draw memory, files, threads, keys and log (SVG)."
)
def main(seconds, hours, seed, sentinel, seeds, plot):
    """Run the soak; exit with 1 if a promise was broken."""
    seconds = seconds if hours is None else 3600 * hours
    if seeds:
        chosen = [(int(word), number % 2 == 1) for number, word in enumerate(seeds.split(","))]
    else:
        chosen = [(random.SystemRandom().randrange(10**6) if seed is None else seed, sentinel)]
    rows, broken = [], False
    for number, fails_over in chosen:
        click.echo(f"seed {number}, {seconds:.0f} s{', Sentinel' if fails_over else ''}")
        folder = Path(tempfile.mkdtemp(prefix="wt-soak-"))
        wrong, told, faults = soak(folder, seconds, number, sentinel=fails_over, plot=plot)
        if wrong:
            click.echo(f"what clients and handlers wrote, and every log: {folder}")
        else:
            shutil.rmtree(folder)
        for text in wrong[:50]:
            click.echo(f"WRONG {text}")
        click.echo(f"seed {number}: {'passed' if not wrong else f'{len(wrong)} broken promises'}")
        rows.append(row(f"{number}{', Sentinel' if fails_over else ''}", told, faults, wrong))
        broken |= bool(wrong)
    click.echo("\n".join((HEADER, *rows)))
    sys.exit(broken)


#: Of the table in docs/reliability.md.
COLUMNS = {
    "200": {200},
    "410, cancelled": {410},
    "502": {502},
    "broken off": {"broken", 409},
    "left by its client": {"left"},
    "unknown to its client": {"unknown"},
    "refused": {"refused"},
}
HEADER = f"| seed | calls | {' | '.join(COLUMNS)} | faults | broken promises |\n" + "|---" * 11 + "|"


def row(name, told, faults, wrong):
    """Return a run's row of the table."""
    found = Counter()
    for (_, outcome), count in summary(told).items():
        found[outcome] += count
    calls = sum(line["what"] == "sent" for line in told)
    counts = [sum(found[outcome] for outcome in outcomes) for outcomes in COLUMNS.values()]
    return f"| {' | '.join(map(str, (name, calls, *counts, len(faults.done), len(wrong))))} |"


def soak(folder, seconds, seed, *, sentinel, plot=None):
    """Return what went wrong, one sentence for each, what clients told, and the faults."""
    handlers_file = folder / "handlers"
    handlers_file.touch()
    history = History(folder / "clients")
    site = Site(folder, handlers_file, sentinel=sentinel)
    try:
        redis = site.server
        begin = redis.client.info("memory")["used_memory"]
        sampler = Sampler(site)
        if plot:
            sampler.start()
        clients, faults = run(site, history, seconds, seed)
        if plot:
            sampler.stop()
            draw(sampler.samples, plot, f"The soak, seed {seed}, {seconds / 60:.0f} minutes")
            for name, part in sorted(rise(sampler.samples).items()):
                click.echo(f"  {name} rose by {100 * part:.0f} % from the second to the last quarter")
        wrong = [f"the soak itself: {error}" for one in (*clients, faults) for error in one.errors]
        if sentinel and site.watched.moves() > faults.done.count("fail_over"):
            # They then act on a primary that lives, and is not read to its end.
            wrong.append("the soak itself: on a machine as busy as this sentinels fail over by themselves")
        # After failovers it is another server's memory.
        wrong += leftovers(redis, math.inf if sentinel else begin)
    finally:
        site.close()
        site.save_logs(folder)
        history.close()
    told = lines(history.path)
    wrong += check(told, lines(handlers_file))
    report(told, faults)
    return wrong, told, faults


def run(site, history, seconds, seed):
    """Run traffic and faults for so long; return clients and faults when all calls have an outcome."""
    stopped = threading.Event()
    calm = threading.Event()
    clients = []
    for number in range(CLIENTS):
        target = "second" if number % 4 == 3 else "soaked"
        clients.append(Client(f"c{number}", f"{seed}-{number}", target, site.ports(target), history, stopped))
    faults = Faults(site, seed, calm, history.beside("faults"))
    for thread in (*clients, faults):
        thread.start()
    try:
        time.sleep(seconds)
    finally:  # after a Ctrl-C too
        calm.set()
        faults.join()
        stopped.set()
        for client in clients:
            client.join()
    return clients, faults


def leftovers(redis, begin):
    """Return what was not cleaned up, once every result has had its time."""
    wrong = kept_for_nobody(redis.client)
    try:
        until(lambda: not list(redis.client.scan_iter("wt:call:*")), 150, "the end of every record")
        until(
            lambda: not any(map(counted(redis.client), redis.client.scan_iter("wt:buffered:*"))),
            15,
            "no bytes",
        )
        until(lambda: not held_by_the_dead(redis.client), 15, "the recovery of every call")
    except AssertionError as error:
        return [*wrong, str(error), *(str(key) for key in list(redis.client.scan_iter("wt:call:*"))[:5])]
    wrong += [f"a key without a TTL: {name}" for name in eternal(redis.client)]
    # What keeps calls from a dead worker is a string.
    found = (key for key in redis.client.scan_iter("wt:*") if redis.client.type(key) != b"string")
    kinds = {key.split(b":")[1].decode() for key in found}
    wrong += [
        f"keys are left: wt:{kind}" for kind in kinds & {"in", "out", "args", "value", "delayed", "held"}
    ]
    graves = sum(map(redis.client.hlen, redis.client.scan_iter("wt:gone:*", 1000)))
    grown = redis.client.info("memory")["used_memory"] - begin - 200 * graves
    if grown > GROWTH:
        wrong.append(f"Redis holds {grown} bytes more than at the beginning, and {graves} tombstones")
    return wrong


def kept_for_nobody(client):
    """Return what is kept of calls whose clients left before they were told a result URL."""
    ended = [
        key
        for key in client.scan_iter("wt:call:*")
        if client.hget(key, "unwanted") and client.hget(key, "state") == b"ended"
    ]
    kept = [key for key in ended if client.hget(key, "body") or client.ttl(key) > UNWANTED_SECONDS]
    return [f"the result of a call that was left is kept: {key.decode()}" for key in kept]


def counted(client):
    return lambda key: int(client.hget(key, "*") or 0)


def report(told, faults):
    """Print how many calls ended how, under which faults."""
    for (kind, outcome), count in sorted(summary(told).items(), key=str):
        click.echo(f"  {count:6d} {kind} {outcome}")
    for name in sorted(set(faults.done)):
        click.echo(f"  {faults.done.count(name):6d} times {name}")
    click.echo(f"  load {load():.1f}")


if __name__ == "__main__":
    main()
