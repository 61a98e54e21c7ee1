"""What the tests of functions share: how many processes run them, and a process that calls them."""

import subprocess
import sys

#: Of every process of one deployment.
SECRET = "of these tests, and long enough too"
#: Processes for each queue of functions.
PROCESSES = 2


def python(site, code, *arguments, **env):
    """Run code in a process of its own, which has only Redis and the secret; return what it printed."""
    own = {**site.env, "REDIS_URL": site.redis.url, "PYTHONPATH": "", **env}
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, env=own, capture_output=True, text=True, timeout=30, check=False)
