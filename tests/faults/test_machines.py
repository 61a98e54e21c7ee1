"""Several machines, as network namespaces: two web, two of workers, Redis and a proxy; each is cut off."""

import json
import shutil
import sys
import time
from pathlib import Path

import pytest
from certificates import own_ca
from harness import FAST, environment, is_missing, until
from machines import Machines, allowed

from wsgi_timeout.serving.doctor_rights import needed
from wsgi_timeout.serving.embedded_redis import find_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

#: Before the two web processes, with retries of what was not sent, and checks of `ready`.
HAPROXY = """
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    retries 3
frontend all
    bind 10.77.0.6:8000
    default_backend webs
backend webs
    option redispatch
    option httpchk GET /__wsgi_timeout/ready
    server one 10.77.0.1:8000 check inter 300ms fall 2 rise 1 on-marked-down shutdown-sessions
    server two 10.77.0.2:8000 check inter 300ms fall 2 rise 1 on-marked-down shutdown-sessions
"""
WEBS, POOLS, REDIS, PROXY, CLIENT = ("web1", "web2"), ("pool1", "pool2"), "redis", "proxy", "client"
ADDRESS, URL = "10.77.0.5", "http://10.77.0.6:8000"
#: Seconds that a machine is cut off: more than twice the lease.
CUT_SECONDS = 5
LEASE_SECONDS = 2


@pytest.fixture(scope="module")
def site(request, tmp_path_factory):
    """All machines; `TLS`: Redis by TLS alone, with the site's own CA, for a user with the least rights."""
    if not allowed():
        pytest.skip("network namespaces need root")
    if not shutil.which("haproxy", path="/usr/sbin:/usr/bin"):
        is_missing("haproxy")
    folder = tmp_path_factory.mktemp("machines")
    (folder / "haproxy.cfg").write_text(HAPROXY)
    server, url = (encrypted if request.param == "TLS" else plain)(folder)
    settings = {**FAST, "wait_seconds": 1, "worker_wait": 20, "lease_seconds": LEASE_SECONDS}
    env = {
        **environment(**settings, bind="0.0.0.0:8000", name="machines"),
        "REDIS_URL": url,
        "RUNS_FILE": str(folder / "runs"),
    }
    (folder / "runs").touch()
    python = [sys.executable, "-m"]
    web = [*python, "gunicorn", "-c", "python:wsgi_timeout.gunicorn_conf"]
    pool = [*python, "wsgi_timeout.serving.cli", "worker", "basic:app", "--processes", "3"]
    with Machines((*WEBS, *POOLS, REDIS, PROXY, CLIENT), env) as machines:
        machines.folder = folder
        machines.start(REDIS, [*server, "--dir", str(folder), "--appendonly", "yes", "--save", ""])
        pools = [machines.start(name, pool) for name in POOLS]
        webs = [machines.start(name, [*web, "wsgi_timeout:gateway('basic:app')"]) for name in WEBS]
        for process, told in [
            *((pool, "takes calls") for pool in pools),
            *((each, "Booting") for each in webs),
        ]:
            process.wait_for(told, 40)
        machines.start(PROXY, ["/usr/sbin/haproxy", "-W", "-f", str(folder / "haproxy.cfg")])
        until(lambda: machines.get(CLIENT, f"{URL}/fast") == (200, "fast \n"), 40, "the first response")
        yield machines


def plain(_folder):
    return [find_server(), "--bind", ADDRESS, "--protected-mode", "no"], f"redis://{ADDRESS}:6379/0"


def encrypted(folder):
    """Debian's Redis, since the embedded one has no TLS."""
    own_ca(folder, ADDRESS)
    binary = folder / "redis-server"
    binary.symlink_to(shutil.which("redis-check-rdb") or is_missing("redis-check-rdb"))
    lines = [
        f"bind {ADDRESS}",
        *("port 0", "tls-port 6379", "tls-auth-clients no"),
        *(
            f"tls-{name}-file {folder}/{file}"
            for name, file in (("cert", "redis.pem"), ("key", "redis.key"), ("ca-cert", "ca.pem"))
        ),
        "user default off",
        f"user ours on >password {' '.join(needed())}",
    ]
    (folder / "redis.conf").write_text("\n".join(lines))
    url = f"rediss://ours:password@{ADDRESS}:6379/0?ssl_ca_certs={folder}/ca.pem"
    return [binary, folder / "redis.conf"], url


class Traffic:
    """Clients on a machine of their own, through the proxy, see `steady_clients`."""

    def __init__(self, site, folder):
        self._history = folder / "history"
        self._stop = folder / "stop"
        self._history.touch()
        program = Path(__file__).parents[1] / "steady_clients.py"
        self._process = site.start(CLIENT, [sys.executable, program, URL, folder])

    @property
    def calls(self):
        """What has ended so far; a last line may be half written."""
        return [
            json.loads(line)
            for line in self._history.read_text().splitlines(keepends=True)
            if line[-1] == "\n"
        ]

    def served(self, since):
        """Return when a GET and a POST that were sent after `since` had their responses; 0: not yet."""
        ended = {}
        for call in self.calls:
            if call["began"] > since and call["status"] == 200:
                ended.setdefault(call["method"], call["ended"])
        return max(ended.values()) if len(ended) == 2 else 0

    def end(self):
        """Have the clients end what they have begun; return all."""
        self._stop.touch()
        assert self._process.popen.wait(90) == 0, self._process.output
        return self.calls


@pytest.mark.parametrize("site", ["plain"], indirect=True)
@pytest.mark.parametrize("name", [*WEBS, *POOLS, REDIS, PROXY])
def test_a_machine_is_cut_off(site, name, seen, tmp_path):
    """Of calls whose result URL was told nothing is lost or run twice; others serve, or all do afterwards."""
    cut_off(site, name, seen, tmp_path)


@pytest.mark.parametrize("site", ["TLS"], indirect=True)
def test_a_redis_with_tls_is_cut_off(site, seen, tmp_path):
    """The same, where Redis' machine speaks TLS alone."""
    cut_off(site, REDIS, seen, tmp_path)


def cut_off(site, name, seen, folder):
    traffic = Traffic(site, folder)
    until(lambda: len(traffic.calls) >= 6, 40, "the first responses")
    with site.cut_off(name):
        cut = time.time()
        if name in (*WEBS, *POOLS):
            served = until(lambda: traffic.served(cut), 40, "service by the others")
            seen("the others' first response to a new request, after the cut", [served - cut])
        time.sleep(max(0, cut + CUT_SECONDS - time.time()))
    back = time.time()
    served = until(lambda: traffic.served(back), 40, "service as before")
    seen("the first response to a new request, after its return", [served - back])
    calls = traffic.end()
    told = [call for call in calls if call["told"]]
    caught = [call for call in told if call["ended"] > cut and call["began"] < back]
    if caught:  # behind a proxy that is cut off clients may have been told nothing yet
        last = max(call["ended"] - max(cut, call["began"]) for call in caught)
        seen(f"the last result of {len(caught)} calls, after the cut or the request", [last])
    check(told, calls, site.folder / "runs", lost_is_fine=name in POOLS)


def check(told, calls, runs, lost_is_fine):
    """Compare what clients saw with what handlers did."""
    counts = {}
    for line in runs.read_text().splitlines():
        counts[line.split()[0]] = counts.get(line.split()[0], 0) + 1
    for call in told:
        good = call["status"] == 200 and call["body"] == f"slow {call['method']} {call['tag']} 0\n"
        # A POST whose worker is gone for longer than its lease is not run again.
        assert good or (lost_is_fine and (call["status"], call["method"]) == (502, "POST")), call
        assert counts[call["tag"]] >= 1
    for call in calls:
        assert counts.get(call["tag"], 0) <= (1 if call["method"] == "POST" else 2), call
