"""Web endpoints with parameters of many kinds, each under its label."""

import enum
from datetime import date
from typing import Annotated

from flask import Response, request
from pydantic import BaseModel, Field
from werkzeug.datastructures import FileStorage

from wsgi_timeout import Stub, web_endpoint

stub = Stub("endpoints")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(BaseModel):
    width: int
    height: int = 1


@stub.function()
@web_endpoint()
def square(x: int):
    return {"square": x * x}


@stub.function()
@web_endpoint(method="POST", label="square-post")
def square_post(x: int):
    return {"square": x * x}


@stub.function()
@web_endpoint()
def defaults(a: int = 1, b: str = "two", c: int | None = None):
    return {"a": a, "b": b, "c": c}


@stub.function()
@web_endpoint(method="POST")
def lists(
    numbers: list[int], words: list[str] | None = None, tags: Annotated[set[str], Field()] = frozenset()
):
    return {"numbers": numbers, "words": words, "tags": sorted(tags)}


@stub.function()
@web_endpoint(method="POST")
def kinds(*, flag: bool, colour: Colour, day: date, ratio: Annotated[float, Field(ge=0, le=1)] = 0.5):
    return {"flag": flag, "colour": colour.name, "year": day.year, "ratio": ratio}


@stub.function()
@web_endpoint()
def limits(limit: int = Field(3, ge=1)):
    return {"limit": limit}


@stub.function()
@web_endpoint(method="POST")
def sized(size: Size, names: dict[str, int]):
    return {"area": size.width * size.height, "names": names}


@stub.function()
@web_endpoint(method="POST")
def whole(item: dict[str, int]):
    return item


@stub.function()
@web_endpoint(method="POST", label="whole-size")
def whole_size(size: Size | None = None):
    return {"area": size.width * size.height if size else 0}


@stub.function()
@web_endpoint(method="POST")
def upload(file: FileStorage, title: str = ""):
    return {"name": file.filename, "bytes": len(file.read()), "title": title}


@stub.function()
@web_endpoint(method="POST", label="upload-several")
def upload_several(files: list[FileStorage]):
    return [file.filename for file in files]


@stub.function()
@web_endpoint(method="PUT")
def untyped(anything, other="default"):
    return {"anything": anything, "other": other}


@stub.function()
@web_endpoint()
def shadows(json: int, copy: str = "", schema: str = "", model_name: str = "", _private: str = ""):
    """Take parameters named as methods of a model are."""
    return {"json": json, "copy": copy, "schema": schema, "model_name": model_name, "_private": _private}


@stub.function()
@web_endpoint()
def header():
    return {"agent": request.headers.get("User-Agent"), "path": request.path, "root": request.script_root}


@stub.function()
@web_endpoint()
async def awaited(x: int):
    return {"x": x, "path": request.path}


@stub.function()
@web_endpoint()
def returns(what: str):
    return {
        "dict": {"a": 1},
        "list": [1, 2],
        "str": "text",
        "bytes": b"\x00bytes",
        "tuple": ({"made": True}, 201, {"X-Made": "yes"}),
        "response": Response("teapot", 418, mimetype="text/x-tea"),
        "int": 42,
        "float": 1.5,
        "bool": True,
        "none": None,
        "model": Size(width=2),
        "kinds": {"colour": Colour.RED, "sizes": [Size(width=3)], "day": date(2026, 11, 23)},
    }[what]


@stub.function()
@web_endpoint()
def raises():
    raise ValueError("as intended")
