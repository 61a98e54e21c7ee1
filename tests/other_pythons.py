"""The interpreters of this machine, for `--python`."""

import pytest
from harness import is_missing
from stacks.interpreters import python

#: The oldest there are, which must be there.
FAST = ("2.7", "3.6")


def interpreter(version, needs="sys"):
    """Return a Python of this version that has the modules it `needs`; skip the test if there is none."""
    found = python(version, needs)
    if not found and version in FAST:
        is_missing(f"Python {version}")
    if not found:
        pytest.skip(f"not installed: Python {version}")
    return found
