"""Apps and clients that no one here wrote: under gunicorn alone, and through jobs."""

import os
import sys

import pytest
from harness import APPS, FAST, Deployment, Gunicorn, environment


@pytest.fixture(params=["alone", "jobs"])
def way(request):
    return request.param


@pytest.fixture
def serve(redis_server):
    """Return a function that serves a target one of both ways, over a folder, and returns its URL."""
    started = []

    def start(target, folder, way):
        os.environ["APP_FOLDER"] = str(folder)
        if way == "jobs":
            site = Deployment(redis_server, target, pool=("--processes", "2"), wait_seconds=20)
        else:
            options = ("-k", "gthread", "--threads", "4", "--no-control-socket")
            env = environment(**FAST)
            site = Gunicorn(target, redis_server.url, *options, config=None, env=env, cwd=APPS)
        started.append(site)
        return site.url

    yield start
    os.environ.pop("APP_FOLDER", None)
    for site in started:
        site.stop()
        # Shown by pytest when the test has failed.
        sys.stdout.write((site.pool if hasattr(site, "pool") else site).output)
