"""Hints for a target that is not found: which line would work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from wsgi_timeout.target_apps import apps_in, names_in
from wsgi_timeout.target_files import django_settings, project_of


def hint(target: str, kind: str, about: str) -> str:
    """Return the hint for a target that did not load under another interpreter.

    Args:
        target: what was to be loaded.
        kind: the hint that it needs: `missing`, `folder`, `relative`, `part` or `unnamed`; another: none.
        about: the missing module; the folder; the name of the current folder; the file of a package, or of a
            module whose app is not named.
    """
    if kind == "missing":
        return where_it_may_be(about, Path.cwd())
    if kind == "folder":
        return where_it_may_be("", Path(about))
    if kind == "relative":
        return from_above(target, about)
    if kind == "unnamed":
        return name_its_app(target, about)
    line = in_its_package(Path(about)) if kind == "part" else ""
    return f": {line}" if line else ""


def from_above(target: str, package: str) -> str:
    """Return a hint for a module that imports relatively, whose folder is a package."""
    return f": its folder is a package, so name it from the folder above: --app-dir .. {package}.{target}"


def where_it_may_be(name: str, folder: Path) -> str:
    """Return a hint for a module that is not on the path; empty without one."""
    top, _, rest = name.partition(".")
    for below in ("src", "app", "backend") if top else ():
        if (folder / below / f"{top}.py").exists() or (folder / below / top).is_dir():
            return f"; it is in {below}/: add --app-dir {below}"
    if rest and (folder / f"{top}.py").is_file():
        return f"; {top} is a file: name the app in it, as in {top}:{rest}"
    project = project_of(django_settings(folder / "manage.py"))
    if project and project != top:
        return f"; manage.py is Django's: name that, or {project}.wsgi:application"
    if found := _modules_in(folder):
        return f"; there is {', '.join(found[:5])}"
    if found := _modules_in(folder / "src"):
        return f"; there is, in src/, {', '.join(found[:5])}: add --app-dir src"
    return "; that folder has no .py file"


def _modules_in(folder: Path) -> list[str]:
    """Return what can be named in a folder: modules, packages, and files whose name no module can have."""
    files = [path for path in folder.glob("*.py") if not path.stem.startswith(("test", "__"))]
    names = [path.stem if path.stem.isidentifier() else path.name for path in files]
    return sorted([*names, *(path.parent.name for path in folder.glob("*/__init__.py"))])


def name_its_app(target: str, file: str | None, module: Any = None) -> str:
    """Return what to write for a module that has no app of a usual name.

    `file` is the module's; `module`: None if it was imported by another interpreter.
    """
    found = [f"{target}:{name}" for name in names_in(module)] if module else []
    found += apps_in(target, Path(file)) if file else []
    if not found:
        return f": no app was found in it; name it, as in {target}:NAME"
    return f": name the app, as in {found[0]}"


def why_it_failed(target: str, error: BaseException) -> str:
    """Return a hint for an exception that importing an app raised; empty without one."""
    stem = Path(target.partition(":")[0]).stem
    if stem in sys.stdlib_module_names and Path(f"{stem}.py").is_file():
        return f"; rename {stem}.py: a module of the standard library has that name"
    settings = django_settings(Path("manage.py"))
    if settings and type(error).__name__ == "ImproperlyConfigured":
        return f"; to run it with {settings}, as manage.py does, name manage.py"
    return ""


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
