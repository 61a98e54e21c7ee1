"""The WSGI app of a `web_endpoint`: a Flask app around a function, its parameters checked by pydantic."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import is_dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from flask import Flask, Response, jsonify, request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import to_jsonable_python

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.integrations.endpoints import WebFunction

_SEVERAL = (list, set, tuple, frozenset)


class _SlashAdded:
    """Adds the slash that a request for `/<label>` lacks, which Flask would redirect for."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return self._app({**environ, "PATH_INFO": environ["PATH_INFO"] or "/"}, start_response)


def endpoint_app(web: WebFunction[Any, Any]) -> _SlashAdded:
    function = web.function
    model = _model(function)
    fields, names = model.model_fields, tuple(inspect.signature(function).parameters)
    several = {
        name for name, field in zip(names, fields.values(), strict=True) if _takes_several(field.annotation)
    }
    hints = [field.annotation for field in fields.values()]
    whole = names[0] if len(names) == 1 and _takes_object(hints[0]) else ""
    app = Flask(function.__module__)

    def view(**_path: str) -> Any:
        try:
            values = model.model_validate(_given(several, whole))
        except ValidationError as error:
            return _unprocessable(error)
        result = function(**{name: getattr(values, field) for name, field in zip(names, fields, strict=True)})
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        return _answer(result)

    app.add_url_rule("/", function.__name__, view, methods=[web.method])
    return _SlashAdded(app)


def _answer(result: Any) -> Any:
    """Return an endpoint's result in a form that Flask takes: data as JSON, with models and enums."""
    if isinstance(result, tuple) and result:
        return (_answer(result[0]), *result[1:])
    if (
        result is None
        or isinstance(result, bool | int | float | Mapping | list | BaseModel)
        or is_dataclass(result)
    ):
        return jsonify(to_jsonable_python(result))
    return result


def _model(function: Callable[..., Any]) -> type[BaseModel]:
    """Return a model of the function's parameters by their type hints, in their order."""
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
            raise ConfigurationError(
                f"{function.__name__}({parameter}): parameters of a web_endpoint are named one by one"
            )
        default = ... if parameter.default is parameter.empty else parameter.default
        # The field gets a name of its own: a parameter may be called like an attribute of models.
        fields[f"parameter_{len(fields)}"] = (Annotated[hints.get(name, Any), Field(alias=name)], default)
    config = ConfigDict(arbitrary_types_allowed=True, extra="ignore")
    return create_model(function.__name__, __config__=config, **fields)


def _given(several: Container[str], whole: str) -> Mapping[str, Any]:
    """Return the request's parameters; a JSON object or a form takes precedence over the query string.

    Parameters in `several` get all values of their name. `whole`, if not empty, gets a JSON object that has
    no such key.
    """
    given: dict[str, Any] = {}
    for source in (request.args, request.form, request.files):
        for name in source:
            values: list[Any] = source.getlist(name)
            given[name] = values if name in several else values[-1]
    if request.is_json and isinstance(body := request.get_json(), dict):
        given.update({whole: body} if whole and whole not in body else body)
    return given


def _takes_object(hint: Any) -> bool:
    if get_origin(hint) in {Union, UnionType}:
        return any(_takes_object(choice) for choice in get_args(hint))
    kind = get_origin(hint) or hint
    return isinstance(kind, type) and (issubclass(kind, BaseModel | Mapping) or is_dataclass(kind))


def _takes_several(hint: Any) -> bool:
    if get_origin(hint) in {Union, UnionType}:
        return any(_takes_several(choice) for choice in get_args(hint))
    return (get_origin(hint) or hint) in _SEVERAL


def _unprocessable(error: ValidationError) -> tuple[Response, int]:
    details = [
        {"loc": list(item["loc"]), "msg": item["msg"], "type": item["type"]}
        for item in error.errors(include_url=False, include_context=False)
    ]
    return jsonify({"detail": details}), 422
