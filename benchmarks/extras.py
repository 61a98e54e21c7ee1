"""What metrics, the waiting page and byte budgets cost a call; `--python` has rows in `elsewhere`."""

import socket
import statistics
import threading
from contextlib import ExitStack

import contestants
import load
import redis
from rows import Row, commands_a_call, detail

#: What a browser sends when a person goes to a page.
NAVIGATION = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def extras(server, quick):
    """A call with metrics on, and one of a browser, beside a plain one; what budgets take of it."""
    rounds, count = (7, 100) if quick else (15, 300)
    client = redis.Redis.from_url(server.url)
    times = {name: [] for name in ("plain", "metrics", "browser")}
    with ExitStack() as running:
        plain = running.enter_context(contestants.ours(server))
        metered = running.enter_context(_with_metrics(server))
        for _ in range(rounds):
            times["plain"].append(1e6 * load.latency(plain.port, count))
            times["metrics"].append(1e6 * load.latency(metered.port, count))
            times["browser"].append(1e6 * load.latency(plain.port, count, headers=NAVIGATION))
        spent = {
            name: commands_a_call(client, plain.port, 3 * count, headers)
            for name, headers in (("plain", {}), ("browser", NAVIGATION))
        }
        of_budgets = _commands_on(client, b"wt:buffered:", lambda: load.latency(plain.port, count)) / count
    more = spent["browser"] - spent["plain"]
    return [
        _added("metrics, in web process and pool", "metrics", times),
        _added("the waiting page: a browser's call, answered before it", "browser", times),
        Row(
            "Redis commands that the waiting page adds to such a call",
            f"{more:.1f}",
            "none",
            None,
            [(name, value, value, value, "commands") for name, value in spent.items()],
        ),
        Row("Redis commands of a call on the key of byte budgets", f"{of_budgets:.1f}", "none", None),
    ]


def _with_metrics(server):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    options = ("--processes", "1", "--metrics-port", port)
    path = "/__wsgi_timeout/metrics"
    return contestants.ours(server, pool=options, name="metered", metrics_path=path)


def _added(what, name, times):
    cost = statistics.median(times[name]) - statistics.median(times["plain"])
    details = [detail(each, times[each], "us") for each in ("plain", name)]
    return Row(f"added to a call, 1 client, by {what}", f"{cost:.0f} us", "none", None, details)


def _commands_on(client, key, action):
    """Return how many commands name `key` while `action` runs, those inside of scripts alone."""
    heard = []
    with client.monitor() as monitor:

        def hear():
            while "ECHO" not in (heard or [""])[-1]:
                command = monitor.next_command()
                heard.append(command["command"] if command["client_type"] == "lua" else "")
                if command["command"].startswith("ECHO"):
                    heard[-1] = "ECHO"

        thread = threading.Thread(target=hear)
        thread.start()
        action()
        client.echo("done")
        thread.join()
    return sum(key.decode() in command for command in heard)


ROWS = (extras,)
