"""An app that uses RQ itself keeps its queue and its workers, beside ours."""

import sys
from pathlib import Path

from harness import APPS, Deployment, Process, ask, until


def test_an_apps_own_queue_and_worker_beside_ours(redis_server):
    """A handler enqueues a task, the app's own `rq worker` runs it, a handler shows its progress."""
    site = Deployment(redis_server, "queueing:app", wait_seconds=20)
    command = [Path(sys.executable).with_name("rq"), "worker", "--url", redis_server.url, "exports"]
    own = Process(command, env={**site.env, "REDIS_URL": redis_server.url}, cwd=APPS)
    try:
        started = ask(site.web.port, "/exports", "POST")
        assert started.status == 201, started.text

        def ended():
            look = ask(site.web.port, f"/exports/{started.json['id']}")
            return look.json if look.status == 200 and look.json["status"] == "finished" else None

        assert until(ended, 20, "the app's own task")["progress"] == 100
    finally:
        own.stop()
        site.stop()
