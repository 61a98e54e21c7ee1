"""Import strings that name a WSGI app: `module:attr`, `module:factory()`, `file.py:attr`."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import re
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType
from typing import Any

from wsgi_timeout import target_files
from wsgi_timeout.errors import ConfigurationError, TargetError
from wsgi_timeout.target_apps import call_of, calls_may_help, is_asgi, is_factory, takes_a_request
from wsgi_timeout.target_hints import from_above, in_its_package, name_its_app, where_it_may_be

_DEFAULT_ATTRS = ("app", "application")
_GENERIC = frozenset([
    "api", "app", "application", "asgi", "backend", "config", "development", "main", "manage",
    "production", "project", "run", "server", "service", "site", "src", "web", "wsgi",
])  # fmt: skip
_FLASK_IGNORES_RUN = "FLASK_RUN_FROM_CLI"


def name_of(target: str) -> str:
    """Return the name of a target: its top module. Raises `TargetError` for a malformed string."""
    module, _ = _split(target)
    top = Path(module).stem if _is_file(module) else module.partition(".")[0]
    if found := target_files.read(target):
        top = found.name
    return re.sub(r"[^A-Za-z0-9_-]", "-", top)


def check_name(name: str) -> str:
    """Return the name; raises `ConfigurationError` if it has characters with a meaning for RQ or stubs."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name):
        raise ConfigurationError(f"the name {name!r}: use letters, digits, '_', '-' and '.', 100 at most")
    return name


def normal(target: str) -> str:
    """Return the same string for all that name one app: `legacy`, `legacy:app` and `./legacy.py:app`."""
    module, expression = _split(target)
    return f"{Path(module).stem if _is_file(module) else module}:{expression or 'app'}"


def resolved(target: str) -> str:
    """Return the normal form of a loaded target: `shop` may have turned out to be `shop:application`."""
    module, _, attr = normal(target).rpartition(":")
    if not _split(target)[1]:
        there = (each for each in _DEFAULT_ATTRS if hasattr(sys.modules.get(module), each))
        attr = next(there, attr)
    return f"{module}:{attr}"


def may_be_one(target: str, theirs: str) -> bool:
    """Return whether two strings may name one app; `theirs` was returned by `normal`.

    `shop` means `shop:app`, or `shop:application` if the module has no `app`: only importing it tells which.
    """
    module = normal(target).rpartition(":")[0]
    if not _split(target)[1]:
        return theirs in {f"{module}:{attr}" for attr in _DEFAULT_ATTRS}
    return theirs == normal(target)


def is_generic(name: str) -> bool:
    """Return whether a name is one that many apps have, so that two may share a Redis by chance."""
    return name.partition(":")[0] in _GENERIC


def folder_of(target: str) -> str:
    """Return the folder of a target's file, else the current one, which `load` imports from."""
    module, _ = _split(target) if target else ("", "")
    return str(Path(module).resolve().parent if _is_file(module) else Path.cwd())


def templates_of(target: str) -> Path | None:
    """Return a target's folder of templates, as Flask finds it, without importing; None if not found."""
    found = _place_of(target)
    if found is None:
        return None
    return (found if found.is_dir() else found.parent) / "templates"


def source_of(target: str) -> list[Path]:
    """Return the files of a target's top module, without importing it: one, or those of a package."""
    found = _place_of(target) if target else None
    if found is None:
        return []
    return sorted(found.glob("*.py")) if found.is_dir() else [found]


def _place_of(target: str) -> Path | None:
    """Return the file of a target's top module, or the folder of its package; None if it is not found."""
    module, _ = _split(target)
    if found := target_files.read(target):
        return found.place if found.place.exists() else None
    if _is_file(module):
        return Path(module).resolve()
    top = module.partition(".")[0]
    for root in ("", *sys.path):
        folder = Path(root).resolve()
        if (folder / top).is_dir():
            return folder / top
        if (folder / f"{top}.py").is_file():
            return folder / f"{top}.py"
    return None


def load(target: str, *, asgi: bool = False) -> Any:
    """Import a target, with the current folder on the path as gunicorn does, and return its app.

    `asgi`: an ASGI app, as FastAPI's, will do. Raises `TargetError` if there is no such module, file or
    attribute; an exception of the app's own import passes through as it is.
    """
    module_name, expression = _split(target)
    target_files.prepare(target)
    with _without_a_server_of_its_own(), _poll_kept():
        module = _load_file(module_name) if _is_file(module_name) else _load_module(target, module_name)
        app = _evaluate(target, module, expression)
    if not callable(app):
        raise TargetError(f"target {target!r} is {app!r}, which is not a WSGI callable")
    if asgi and is_asgi(app):
        return app
    if is_asgi(app):
        raise TargetError(
            f"target {target!r} is an ASGI app, which workers run and a web process does not: "
            "leave --only and --except out"
        )
    if not takes_a_request(app):
        name = (expression or "app").partition("(")[0]
        raise TargetError(
            f"target {target!r} is {app!r}, which does not take (environ, start_response) as a WSGI app"
            + (f": call a factory, as in {module_name}:{name}{call_of(app)}" if calls_may_help(app) else "")
        )
    return app


@contextmanager
def _poll_kept() -> Iterator[None]:
    """Keep `select.poll` in place while an app patches the standard library: eventlet removes it.

    redis-py and our listener call it without blocking.
    """
    poll = getattr(select, "poll", None)
    try:
        yield
    finally:
        if poll is not None and not hasattr(select, "poll"):
            select.poll = poll  # type: ignore[misc]


def _split(target: str) -> tuple[str, str]:
    if found := target_files.read(target):
        return found.module, found.expression
    # The first colon separates: there are no Windows drives or URLs here.
    module, _, expression = target.strip().partition(":")
    if (module == "." or "/" in module) and Path(module).is_dir():
        raise TargetError(
            f"target {target!r} is a folder: name the app in it{where_it_may_be('', Path(module))}"
        )
    if not _is_file(module) and not all(part.isidentifier() for part in module.split(".")):
        line = f"{module}.py:{expression or 'app'}" if Path(f"{module}.py").is_file() else ""
        raise TargetError(f"target {target!r}: write {line or 'module:app, module:factory() or file.py:app'}")
    return module, expression


@contextmanager
def _without_a_server_of_its_own() -> Iterator[None]:
    """Have Flask ignore an unguarded `app.run()`, with a warning: the import would never end."""
    before = os.environ.get(_FLASK_IGNORES_RUN)
    os.environ[_FLASK_IGNORES_RUN] = "true"
    try:
        yield
    finally:
        # Restored, since programs that the app starts may be Flask apps that run themselves.
        if before is None:
            os.environ.pop(_FLASK_IGNORES_RUN, None)
        else:
            os.environ[_FLASK_IGNORES_RUN] = before


def _is_file(module: str) -> bool:
    return module.endswith(".py") or "/" in module


def _load_module(target: str, name: str) -> Any:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The target is wrong only if its own module is missing; other missing modules are the app's error.
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise TargetError(
                f"target {target!r}: no module named {error.name!r} in {folder} or on the path"
                f"{where_it_may_be(name, Path(folder))}"
            ) from None
        raise
    except ImportError as error:
        if "relative import" in str(error):
            hint = from_above(target, Path(folder).name)
            raise TargetError(f"target {target!r}: {error}{hint}") from error
        raise
    if getattr(module, "__file__", None) is None and hasattr(module, "__path__"):
        inside = where_it_may_be("", Path(next(iter(module.__path__))))
        raise TargetError(f"target {target!r}: {name} is a folder: name the app in it{inside}")
    return module


def _load_file(name: str) -> Any:
    path = Path(name).resolve()
    if not path.is_file():
        there = f"; there is {name}.py" if Path(f"{name}.py").is_file() else ""
        raise TargetError(f"target {name!r}: no such file: {path}{there}")
    sys.path.insert(0, os.fspath(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"target {name!r}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        if "relative import" in str(error) and (line := in_its_package(path)):
            raise TargetError(f"target {name!r}: {error}: it is part of a package: {line}") from error
        raise
    return module


def _evaluate(target: str, module: Any, expression: str) -> Any:
    if not expression:
        for attr in _DEFAULT_ATTRS:
            if hasattr(module, attr):
                return getattr(module, attr)
        raise TargetError(f"target {target!r}{name_its_app(target, module.__dict__.get('__file__'), module)}")
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise TargetError(f"target {target!r}: {expression!r} is not a name or a call") from None
    call = tree if isinstance(tree, ast.Call) else None
    found = _attribute(target, module, call.func if call else tree)
    if call is None:
        return found
    try:
        args = [ast.literal_eval(arg) for arg in call.args]
        kwargs = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except ValueError:
        raise TargetError(
            f"target {target!r}: a factory takes literals only, as in create_app('prod')"
        ) from None
    _check_arguments(target, found, args, kwargs)
    return found(*args, **kwargs)


def _check_arguments(target: str, factory: Any, args: list[Any], kwargs: dict[str, Any]) -> None:
    try:
        inspect.signature(factory).bind(*args, **kwargs)
    except ValueError:  # it has no signature
        return
    except TypeError as error:
        line = target.partition("(")[0]
        if takes_a_request(factory) and not is_factory(line.rpartition(":")[2]):
            raise TargetError(f"target {target!r}: that is the app, not a factory: write {line}") from None
        line += call_of(factory)
        raise TargetError(f"target {target!r}: {error}: write {line}, with values of yours") from None


def _attribute(target: str, module: Any, node: ast.expr) -> Any:
    if isinstance(node, ast.Attribute):
        owner, attr = _attribute(target, module, node.value), node.attr
    elif isinstance(node, ast.Name):
        owner, attr = module, node.id
    else:
        raise TargetError(f"target {target!r}: after the colon stands a name or a call of one")
    try:
        return getattr(owner, attr)
    except AttributeError:
        there = [name for name in vars(module) if _is_own_callable(module, name)]
        raise TargetError(
            f"target {target!r}: {owner!r} has no attribute {attr!r}; "
            f"its callables: {', '.join(there) or 'none'}"
        ) from None


def _is_own_callable(module: Any, name: str) -> bool:
    # Apps, and functions that the module defines: not what it imports.
    value = getattr(module, name)
    if isinstance(value, FunctionType):
        return not name.startswith("_") and value.__module__ == module.__name__
    # Looked up, not imported: without Flask there is no Flask app, and it need not be installed.
    flask = sys.modules.get("flask")
    return flask is not None and isinstance(value, flask.Flask)
