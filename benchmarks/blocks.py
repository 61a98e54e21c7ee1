"""Rows of downloads in small blocks: they take as long as those in large ones."""

import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import contestants
import load
from rows import MIB, Row, detail

SIZE = 32 * MIB
#: The measure of the others.
LARGE = "/raw/64"
SMALL = ("/raw/1", "/raw/4", "/raw/8", "/send_file", "/FileResponse", "/lines", "/write/8")


def block_sizes(server, quick):
    """32 MiB in blocks: each way against blocks of 64 KiB, direct gunicorn beside; Redis alone too."""
    rounds = 2 if quick else 5
    seconds = {who: {path: [] for path in (LARGE, *SMALL)} for who in ("ours", "direct")}
    alone = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        file = Path(folder, "random")
        file.write_bytes(os.urandom(SIZE))
        os.environ["BLOCKS_FILE"] = str(file)
        running.callback(os.environ.pop, "BLOCKS_FILE")
        sites = {
            "ours": running.enter_context(contestants.ours(server, app="blocks_app:app")),
            "direct": running.enter_context(contestants.direct(server, app="blocks_app:app")),
        }
        for _ in range(rounds):
            for path in (LARGE, *SMALL):
                for who, site in sites.items():
                    seconds[who][path].append(load.download(site.port, path, SIZE))
            alone.append(redis_alone(server, SIZE))
    large = statistics.median(seconds["ours"][LARGE])
    return [_against_redis(large, seconds, alone), *(_against_large(path, large, seconds) for path in SMALL)]


def _against_redis(large, seconds, alone):
    share = statistics.median(alone) / large
    details = [detail("Redis alone", _in_ms(alone), "ms"), *_details(LARGE, seconds)]
    what = "32 MiB in blocks of 64 KiB, MiB/s: ours / Redis alone in chunks of 256 KiB"
    return Row(what, f"{share:.2f}", "0.8 at least", share >= 0.8, details)


def _against_large(path, large, seconds):
    factor = statistics.median(seconds["ours"][path]) / large
    what = (
        f"32 MiB by {path.removeprefix('/')}{' KiB' if path[-1].isdigit() else ''}: time / blocks of 64 KiB"
    )
    return Row(what, f"{factor:.2f}", "1.3 at most", factor <= 1.3, _details(path, seconds))


def _details(path, seconds):
    return [detail(who, _in_ms(found[path]), "ms") for who, found in seconds.items()]


def _in_ms(values):
    return [1000 * value for value in values]


def redis_alone(server, size):
    """Return the seconds in which one process takes what another one writes, in chunks of 256 KiB."""
    code = (
        "import sys, time, redis\n"
        "client, chunk, count = redis.Redis.from_url(sys.argv[1]), bytes(256 * 1024), int(sys.argv[2])\n"
        "client.ping()\n"
        "if sys.argv[3] == 'write':\n"
        "    client.blpop(['go'], 60)\n"
        "    for _ in range(count):\n"
        "        client.rpush('alone', chunk)\n"
        "else:\n"
        "    started = time.perf_counter()\n"
        "    client.rpush('go', '1')\n"
        "    for _ in range(count):\n"
        "        client.blpop(['alone'], 60)\n"
        "    print(time.perf_counter() - started)\n"
    )
    command = [sys.executable, "-c", code, server.url, str(size // (256 * 1024))]
    with subprocess.Popen([*command, "write"]):
        return float(subprocess.run([*command, "take"], capture_output=True, text=True, check=True).stdout)


ROWS = (block_sizes,)
