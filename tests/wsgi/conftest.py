"""One app twice: under gunicorn alone, and through jobs."""

import pytest
from harness import APPS, Gunicorn


@pytest.fixture(scope="module")
def both(deploy, redis_server):
    """Return a function that serves a target both ways, and returns the two ports: alone, through jobs."""
    alone = []

    def start(target, **options):
        site = deploy(target, **options)
        plain = ("-k", "gthread", "--threads", "8", "--no-control-socket")
        alone.append(Gunicorn(target, redis_server.url, *plain, config=None, env=site.env, cwd=APPS))
        return alone[-1], site

    yield start
    for web in alone:
        web.stop()
