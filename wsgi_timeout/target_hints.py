"""Hints for a target that is not found: which line would work."""

from __future__ import annotations

from pathlib import Path

from wsgi_timeout.target_files import django_settings, project_of


def hint(target: str, kind: str, about: str) -> str:
    """Return the hint for a target that did not load under another interpreter.

    Args:
        target: what was to be loaded.
        kind: the hint that it needs: `missing`, `folder`, `relative` or `part`; another: none.
        about: the missing module; the folder; the name of the current folder; the file of a package.
    """
    if kind == "missing":
        return where_it_may_be(about, Path.cwd())
    if kind == "folder":
        return where_it_may_be("", Path(about))
    if kind == "relative":
        return from_above(target, about)
    line = in_its_package(Path(about)) if kind == "part" else ""
    return f": {line}" if line else ""


def from_above(target: str, package: str) -> str:
    """Return a hint for a module that imports relatively, whose folder is a package."""
    return f": its folder is a package, so name it from the folder above: --app-dir .. {package}.{target}"


def where_it_may_be(name: str, folder: Path) -> str:
    """Return a hint for a module that is not on the path; empty without one."""
    top = name.partition(".")[0]
    for below in ("src", "app", "backend"):
        if (folder / below / f"{top}.py").exists() or (folder / below / top).is_dir():
            return f"; it is in {below}/: add --app-dir {below}"
    project = project_of(django_settings(folder / "manage.py"))
    if project and project != top:
        return f"; manage.py is Django's: name that, or {project}.wsgi:application"
    found = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("test"))
    return f"; there is {', '.join(found[:5])}" if found else "; that folder has no .py file"


def in_its_package(path: Path) -> str:
    """Return the target that names a file of a package by its module; empty for a file of no package."""
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    if len(parts) == 1:
        return ""
    options = "" if folder == Path.cwd() else f"--app-dir {folder} "
    return f"{options}{'.'.join(parts)}:app"
