"""What is an app: of a file, without importing it, and of a callable, by its signature."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

_USUAL = frozenset(["app", "application"])
_FACTORY = re.compile(r"^(create|make|build|get|new)_(\w+_)?(app|application|wsgi)$|^app_factory$|^factory$")
_MAKES_APPS = re.compile(
    r"(^|\.)(Flask|FastAPI|Starlette|Quart|Bottle|Dash|Sanic|Litestar|WSGIApplication|Stub|"
    r"get_wsgi_application|get_asgi_application|make_wsgi_app|(create|make|build)_app)$"
)


def is_asgi(app: Any) -> bool:
    """Return whether this is an ASGI app: a coroutine function, or an object with such a `__call__`."""
    if inspect.isclass(app):
        return False
    called: Any = app if inspect.isroutine(app) else type(app).__call__
    return inspect.iscoroutinefunction(called)


def is_factory(name: str) -> bool:
    """Return whether the name is one that factories have."""
    return bool(_FACTORY.search(name))


def calls_may_help(app: Any) -> bool:
    """Return whether calling it may give an app: not for a class whose objects cannot be called."""
    return not inspect.isclass(app) or any("__call__" in vars(each) for each in app.__mro__)


def takes_a_request(app: Any) -> bool:
    """Return whether it is one to be called with (environ, start_response), and no factory."""
    try:
        signature = inspect.signature(app)
    except Exception:  # noqa: BLE001 - none is told, or its annotations raise
        return True
    try:
        signature.bind({}, None)
    except TypeError:
        return False
    return not _makes_an_app(app, signature)


def _makes_an_app(app: Any, signature: inspect.Signature) -> bool:
    """Return whether a function is a factory that two values happen to fit: `create_app(config, debug)`."""
    if not isinstance(app, FunctionType) or not is_factory(app.__name__):
        return False
    needed = [name for name, each in signature.parameters.items() if each.default is each.empty][:2]
    return not re.fullmatch(r"_*e\w*,_*s\w*", ",".join(needed))


def apps_in(target: str, file: Path) -> list[str]:
    """Return targets for the apps and factories of a file, and of modules beside an `__init__.py`."""
    found = [f"{target}:{name}" for name in _names_of_apps(file)]
    if file.name == "__init__.py" and not target.endswith(".py"):
        for module in ("wsgi", "app", "application", "main", "web", "asgi", "server"):
            below = file.with_name(f"{module}.py")
            found += [f"{target}.{module}:{name}" for name in _names_of_apps(below)]
    return found


def names_in(module: Any) -> list[str]:
    """Return the apps and factories of an imported module, as a target has them after its colon."""
    # Looked up, not imported: without Flask there is no Flask app.
    flask = sys.modules.get("flask")
    members = {name: each for name, each in vars(module).items() if not name.startswith("_")}
    apps = [name for name, each in members.items() if flask and isinstance(each, flask.Flask)]
    apps += [name for name, each in members.items() if not inspect.isroutine(each) and is_asgi(each)]
    made = {name: each for name, each in members.items() if inspect.isroutine(each) and is_factory(name)}
    return apps + [name + call_of(each) for name, each in made.items()]


def _names_of_apps(file: Path) -> list[str]:
    """Return the same of a source file, without importing it."""
    try:
        body = ast.parse(file.read_text("utf-8", "replace")).body
    except (OSError, SyntaxError, ValueError):
        return []
    apps, factories = [], []
    for each in body:
        if isinstance(each, ast.FunctionDef):
            apps += [each.name] if each.name in _USUAL else []
            factories += [each.name + _arguments(each.args)] if is_factory(each.name) else []
        elif isinstance(each, ast.ImportFrom):
            names = [alias.asname or alias.name for alias in each.names]
            apps += [name for name in names if name in _USUAL]
            factories += [f"{name}()" for name in names if is_factory(name)]
        elif isinstance(each, ast.Assign | ast.AnnAssign) and isinstance(each.value, ast.Call):
            targets = each.targets if isinstance(each, ast.Assign) else [each.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            made = _MAKES_APPS.search(ast.unparse(each.value.func))
            apps += [name for name in names if name in _USUAL or made]
    return apps + factories


def _arguments(args: ast.arguments) -> str:
    positional = [*args.posonlyargs, *args.args]
    needed = positional[: len(positional) - len(args.defaults)]
    named = [each for each, value in zip(args.kwonlyargs, args.kw_defaults, strict=True) if value is None]
    return placeholders([each.arg for each in needed], [each.arg for each in named])


def placeholders(positional: Sequence[str], named: Sequence[str] = ()) -> str:
    """Return the arguments of a call, with the names of parameters in place of their values."""
    values = [*(f"{each.upper()!r}" for each in positional), *(f"{each}={each.upper()!r}" for each in named)]
    return f"({', '.join(values)})"


def call_of(factory: Any) -> str:
    """Return the arguments that a call of a factory needs, as they are written in a target."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return "()"
    needed = [each for each in parameters if each.default is each.empty]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return placeholders(
        [each.name for each in needed if each.kind in kinds],
        [each.name for each in needed if each.kind is inspect.Parameter.KEYWORD_ONLY],
    )
