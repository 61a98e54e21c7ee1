"""gunicorn as it is deployed: its configuration, and separate deployments."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import APPS, FAST, ROOT, Process, RedisServer, ask, environment, follow, until

from wsgi_timeout.serving import gunicorn_conf

BIN = Path(sys.executable).parent
PACKAGED = "python:wsgi_timeout.gunicorn_conf"

# -- the configuration


class TestConfiguration:
    def settings(self, *options):
        """Return what gunicorn says that it was told, in the repository's root."""
        shown = Process(
            [BIN / "gunicorn", *options, "--print-config", "wsgi_timeout:gateway('legacy:app')"],
            env={**environment(), "REDIS_URL": "redis://nowhere"},
            cwd=ROOT,
        )
        assert shown.popen.wait(20) == 0, shown.output
        shown.stop()
        return dict(re.findall(r"^(\w+) += (.*)$", shown.output, re.MULTILINE))

    def test_the_repositorys_configuration_is_the_packages(self):
        """gunicorn in the root of the repository finds what `-c python:wsgi_timeout.gunicorn_conf` gives."""
        packaged, found = self.settings("-c", PACKAGED), self.settings()
        assert packaged.pop("config") == PACKAGED
        assert found.pop("config") == "./gunicorn.conf.py"
        assert found == packaged
        assert found["worker_class"] == gunicorn_conf.worker_class
        assert found["threads"] == "416"

    def test_each_line_has_its_reason(self):
        """Above every setting of the configuration stands a comment that says why."""
        lines = Path(gunicorn_conf.__file__).read_text(encoding="utf-8").splitlines()
        given = {n: line for n, line in enumerate(lines) if re.match(r"[a-z]\w+ = ", line)}
        assert len(given) > 10
        assert [line for n, line in given.items() if not lines[n - 1].startswith("# ")] == []


# -- deployments on their own


@pytest.fixture(scope="class")
def start():
    """Return a function that starts a command with nothing but `REDIS_URL` and settings around it."""
    server = RedisServer()
    env = {
        **environment(**{**FAST, "bind": "127.0.0.1:0", "secret": "one for all"}),
        "REDIS_URL": server.url,
    }
    started = []

    def start(command, *words, folder=APPS):
        process = Process([BIN / command, *words], env={**env, "PYTHONPATH": ""}, cwd=folder)
        started.append(process)
        return process

    yield start
    with ThreadPoolExecutor(len(started)) as threads:
        list(threads.map(Process.stop, started))
    server.close()


class TestDeployments:
    """Web processes and workers, started one by one with the README's commands, share a `REDIS_URL`."""

    @staticmethod
    def port(web):
        return int(web.wait_for(r"Listening at: http://127.0.0.1:(\d+)")[1])

    @staticmethod
    def polled(port, path):
        until(lambda: ask(port, path).status != 202, what="the result")
        return ask(port, path)

    def test_a_legacy_app_behind_a_gateway(self, start):
        """`gateway("legacy:app")` and `worker legacy:app`: any web process answers what another accepted."""
        legacy = ROOT / "examples" / "legacy"
        worker = start("wsgi-timeout", "worker", "legacy:app", folder=legacy)
        worker.wait_for("takes calls of wt:legacy")
        # A web process needs nothing of the app.
        command = ("gunicorn", "-c", PACKAGED, 'wsgi_timeout:gateway("legacy:app")')
        first, second = (start(*command, folder=ROOT / "docs") for _ in range(2))
        answer = ask(self.port(first), "/reports/2025?seconds=1")
        assert answer.status == 303
        first.stop()
        last = follow(self.port(second), answer.location)[-1]
        assert (last.status, "Computed in 1.0 s." in last.text) == (200, True)

    def test_a_stub(self, start):
        """A stub runs its web function and its functions in workers, under its own server and a gateway."""
        worker = start("wsgi-timeout", "worker", "deploy:stub", "--processes", "1")
        apps = ("deploy:stub", 'wsgi_timeout:gateway("deploy:stub")')
        webs = [start("gunicorn", "-c", PACKAGED, app) for app in apps]
        worker.wait_for("takes calls of wt:deploy:functions")
        workers = {process.pid for process in worker.descendants()}
        for port in map(self.port, webs):
            *hops, last = follow(port, "/slow?seconds=1")
            assert hops
            path = f"/result/{ask(port, '/accept?seconds=0.5', 'POST').json['call_id']}"
            assert ask(port, path).status == 202
            result = self.polled(port, path)
            assert result.json["pages"] == 3
            assert {last.json["pid"], result.json["pid"]} <= workers
            assert last.json["pid"] != result.json["pid"]

    def test_an_app_that_opts_in(self, start):
        """An app with `RequestTimeouts` is served by gunicorn as before, and by a worker."""
        worker = start("wsgi-timeout", "worker", "extended_wsgi:app", "--processes", "1")
        worker.wait_for("takes calls of wt:extended\n")
        port = self.port(start("gunicorn", "-c", PACKAGED, "extended_wsgi:app"))
        assert ask(port, "/").json["pid"] in {process.pid for process in worker.descendants()}
