"""The soak: mixed traffic under random faults, and a checker that reads what clients and handlers wrote.

make soak                                  ten minutes, a seed of its own
make soak ARGS='--seconds 60 --seed 7'
"""

import random
import sys
import tempfile
import threading
import time
from pathlib import Path

import click
from harness import until
from remains import eternal, held_by_the_dead

from soak.checker import check, summary
from soak.history import History, lines
from soak.site import Faults, Site, load
from soak.traffic import Client

CLIENTS = 8
#: Bytes by which Redis may hold more at the end than at the beginning: its own buffers and scripts.
GROWTH = 4_000_000


@click.command()
@click.option("--seconds", default=600.0, show_default=True, help="How long the traffic goes on.")
@click.option("--seed", type=int, help="Repeat the choices of another run.")
def main(seconds, seed):
    """Run the soak; exit with 1 if a promise was broken."""
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    click.echo(f"seed {seed}, {seconds:.0f} s")
    with tempfile.TemporaryDirectory(prefix="wt-soak-") as folder:
        wrong = soak(Path(folder), seconds, seed)
    for text in wrong[:50]:
        click.echo(f"WRONG {text}")
    click.echo(f"seed {seed}: {'passed' if not wrong else f'{len(wrong)} broken promises'}")
    sys.exit(bool(wrong))


def soak(folder, seconds, seed):
    """Return what went wrong, one sentence for each."""
    handlers_file = folder / "handlers"
    handlers_file.touch()
    history = History(folder / "clients")
    site = Site(folder, handlers_file)
    try:
        redis = site.server
        begin = redis.client.info("memory")["used_memory"]
        clients, faults = run(site, history, seconds, seed)
        wrong = [f"the soak itself: {error}" for one in (*clients, faults) for error in one.errors]
        wrong += leftovers(redis, begin)
    finally:
        site.close()
        history.close()
    told = lines(history.path)
    wrong += check(told, lines(handlers_file))
    report(told, faults)
    return wrong


def run(site, history, seconds, seed):
    """Run traffic and faults for so long; return clients and faults when all calls have an outcome."""
    stopped = threading.Event()
    calm = threading.Event()
    clients = [
        Client(f"c{number}", f"{seed}-{number}", site.ports, history, stopped) for number in range(CLIENTS)
    ]
    faults = Faults(site, seed, calm)
    for thread in (*clients, faults):
        thread.start()
    time.sleep(seconds)
    calm.set()
    faults.join()
    stopped.set()
    for client in clients:
        client.join()
    return clients, faults


def leftovers(redis, begin):
    """Return what was not cleaned up, once every result has had its time."""
    try:
        until(lambda: not list(redis.client.scan_iter("wt:call:*")), 90, "the end of every record")
        until(lambda: not held_by_the_dead(redis.client), 15, "the recovery of every call")
    except AssertionError as error:
        return [str(error), *(str(key) for key in list(redis.client.scan_iter("wt:call:*"))[:5])]
    wrong = [f"a key without a TTL: {name}" for name in eternal(redis.client)]
    # What keeps calls from a dead worker is a string.
    found = (key for key in redis.client.scan_iter("wt:*") if redis.client.type(key) != b"string")
    kinds = {key.split(b":")[1].decode() for key in found}
    wrong += [
        f"keys are left: wt:{kind}" for kind in kinds & {"in", "out", "args", "value", "delayed", "held"}
    ]
    graves = sum(1 for _ in redis.client.scan_iter("wt:gone:*", 1000))
    grown = redis.client.info("memory")["used_memory"] - begin - 200 * graves
    if grown > GROWTH:
        wrong.append(f"Redis holds {grown} bytes more than at the beginning, and {graves} tombstones")
    return wrong


def report(told, faults):
    """Print how many calls ended how, under which faults."""
    for (kind, outcome), count in sorted(summary(told).items(), key=str):
        click.echo(f"  {count:6d} {kind} {outcome}")
    for name in sorted(set(faults.done)):
        click.echo(f"  {faults.done.count(name):6d} times {name}")
    click.echo(f"  load {load():.1f}")


if __name__ == "__main__":
    main()
