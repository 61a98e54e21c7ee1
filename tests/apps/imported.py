"""The basic app, which here tells on import in which process that happens."""

import os
from pathlib import Path

from basic import app

__all__ = ["app"]

with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as runs:
    runs.write(f"import {os.getpid()}\n")
