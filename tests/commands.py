"""Runs `wsgi-timeout` as a person does, in a process of its own; or without one, which takes less time."""

import subprocess
import sys

from click.testing import CliRunner
from harness import APPS

from wsgi_timeout.serving.cli import main


def run(*words, env, cwd=APPS):
    """Return exit code, standard output and standard error of `wsgi-timeout WORDS`."""
    command = [sys.executable, "-m", "wsgi_timeout.serving.cli", *words]
    found = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    return found.returncode, found.stdout, found.stderr


def run_here(*words, url):
    """Return the same, run in this process, at the Redis of a URL."""
    found = CliRunner().invoke(main, words, env={"REDIS_URL": url})
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, found.stdout, found.stderr
