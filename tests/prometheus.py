"""What tests of metrics share."""

import re
import shutil

from harness import is_missing

#: What prometheus-client appends to the name of a metric.
SUFFIX = re.compile(r"_(bucket|sum|count|created)$")


def promtool():
    """Return Prometheus' program for those who write rules."""
    return shutil.which("promtool") or is_missing("promtool")
