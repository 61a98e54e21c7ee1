"""The API as users type it: checked by mypy (and clean under pyright), never run."""

from flask import Blueprint, Flask
from typing_extensions import assert_type

from wsgi_timeout import (
    FunctionCall,
    RequestTimeouts,
    Stub,
    asgi_app,
    gateway,
    gather,
    progress,
    web_endpoint,
    wsgi_app,
    wsgi_blueprint,
)

app = Flask(__name__)
RequestTimeouts(app, only=["/reports/*"], routes={"POST /ocr": {"wait_for_response": False, "timeout": 7200}})
RequestTimeouts(wait_seconds=20).init_app(app)
assert_type(wsgi_blueprint("legacy:app", wait_seconds=20), Blueprint)
gateway("legacy:app", except_=["/health"])

stub = Stub("ocr")


@stub.function(timeout=3600)
@wsgi_app(label="site")
def web() -> Flask:
    return Flask("inner")


@stub.function()
@asgi_app()
def api() -> object:
    return object()


@stub.function()
@web_endpoint(method="POST")
def square(x: int) -> dict[str, int]:
    return {"square": x * x}


@stub.function(timeout=600, retries=2)
def pages(path: str, *, dpi: int = 300) -> list[str]:
    progress(1, total=2, message=path)
    return [path] * dpi


call = pages.spawn("a.pdf", dpi=200)
assert_type(call, FunctionCall[list[str]])
assert_type(call.get(), list[str])
assert_type(call.get(timeout=0), list[str])
assert_type(call.object_id, str)
assert_type(pages.remote("a.pdf"), list[str])
assert_type(pages.local("a.pdf"), list[str])
assert_type(pages("a.pdf"), list[str])
assert_type(gather(call, call), list[list[str]])
pages.spawn(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
pages.spawn("a.pdf", dip=200)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def in_async_code() -> None:
    assert_type(await call.get.aio(timeout=10), list[str])
