"""Hints for a target that is not found: which line would work."""

from __future__ import annotations

import re
from pathlib import Path


def where_it_may_be(name: str, folder: Path) -> str:
    """Return a hint for a module that is not on the path; empty without one."""
    top = name.partition(".")[0]
    for below in ("src", "app", "backend"):
        if (folder / below / f"{top}.py").exists() or (folder / below / top).is_dir():
            return f"; it is in {below}/: add --app-dir {below}"
    if (project := _django_project(folder)) and project != top:
        return f"; manage.py is Django's: the app is {project}.wsgi:application"
    found = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("test"))
    return f"; there is {', '.join(found[:5])}" if found else "; that folder has no .py file"


def _django_project(folder: Path) -> str:
    """Return the package of the settings that a manage.py names; empty without one."""
    try:
        text = (folder / "manage.py").read_text("utf-8", "replace")
    except OSError:
        return ""
    found = re.search(r"""DJANGO_SETTINGS_MODULE['"]\s*,\s*['"]([\w.]+?)(\.settings[\w.]*)?['"]""", text)
    return found[1] if found else ""
