"""ASGI apps: a bare callable with a path for each oddity, and a FastAPI app."""

import asyncio
import contextlib
import json
import os
import time
from pathlib import Path
from typing import Annotated

import fastapi
from fastapi.responses import StreamingResponse

import wsgi_timeout
from wsgi_timeout import Stub, asgi_app

stub = Stub("asgi-apps")


def note(line):
    with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as runs:
        runs.write(f"{line} {os.getpid()}\n")


async def gate(file):
    while not await asyncio.to_thread(Path(file).exists):  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)


def query(scope):
    return dict(item.split("=", 1) for item in scope["query_string"].decode().split("&") if item)


async def bare(scope, receive, send):
    """Be an ASGI app that knows no lifespan."""
    if scope["type"] != "http":
        raise ValueError(f"no {scope['type']} here")
    name = scope["path"].removeprefix(scope["root_path"]).split("/")[1]
    await PATHS[name](scope, receive, send)


async def answer(send, body=b"", status=200, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def returns_early(scope, receive, send):
    pass


async def raises_before(scope, receive, send):
    raise ValueError("before the response")


async def cancels_itself(scope, receive, send):
    raise asyncio.CancelledError


async def raises_between(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise ValueError("between start and body")


async def raises_within(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first,", "more_body": True})
    raise ValueError("within the body")


async def raises_after(scope, receive, send):
    await answer(send, b"whole")
    raise ValueError("after the response")


async def ends_within(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first,", "more_body": True})


async def starts_twice(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.start", "status": 201, "headers": []})


async def scoped(scope, receive, send):
    """Tell the scope."""
    told = {key: repr(value) for key, value in scope.items()}
    await answer(
        send, json.dumps(told).encode(), 203, [(b"x-one", b"1"), (b"x-one", b"2"), (b"set-cookie", b"a=1")]
    )


async def told_twice(scope, receive, send):
    """Ask for more than there is, and send more than was announced."""
    messages = [await receive()]
    asyncio.get_running_loop().create_task(answer(send, repr(messages).encode()))
    messages.append(await receive())
    await send({"type": "http.response.body", "body": b"too late"})
    note(f"told-twice {messages[1]['type']}")


async def echo(scope, receive, send):
    """Send each piece of the body back before the next is asked for."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        message = await receive()
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})
        if not more:
            return


async def held(scope, receive, send):
    """Wait for a file; tell how it ended."""
    tag, file = query(scope)["tag"], query(scope)["file"]
    note(tag)
    try:
        await gate(file)
    except asyncio.CancelledError:
        note(f"{tag}-cancelled")
        raise
    finally:
        note(f"{tag}-finally")
    await answer(send, tag.encode())


PATHS = {
    function.__name__.replace("_", "-"): function
    for function in (
        returns_early,
        raises_before,
        cancels_itself,
        raises_between,
        raises_within,
        raises_after,
        ends_within,
        starts_twice,
        scoped,
        told_twice,
        echo,
        held,
    )
}


@stub.function(timeout=60)
@asgi_app(label="bare")
def bare_app():
    return bare


@contextlib.asynccontextmanager
async def lifespan(app):
    note("startup")
    yield {"started": os.getpid()}
    note("shutdown")


fast = fastapi.FastAPI(lifespan=lifespan)


@stub.function()
@asgi_app(label="fast")
def fast_app():
    return fast


@fast.get("/state")
async def state(request: fastapi.Request):
    return {"started": request.state.started, "pid": os.getpid(), "url": str(request.url)}


@fast.get("/items/{number}")
def item(number: int, wanted: str = "no"):
    """Run in a thread of FastAPI's own."""
    wsgi_timeout.progress(number, 10, "an item")
    return {"number": number, "wanted": wanted}


@fast.get("/stream")
async def stream(file: str, pieces: int):
    """Yield numbered lines; before each but the first wait for a file of its number."""

    async def body():
        note("stream-begun")
        try:
            for number in range(pieces):
                if number:
                    await gate(f"{file}.{number}")
                yield f"{number}\n"
        finally:
            note("stream-finally")

    return StreamingResponse(body(), media_type="text/plain")


@fast.post("/upload")
async def upload(request: fastapi.Request):
    import hashlib

    digest, length, pieces = hashlib.sha256(), 0, 0
    async for piece in request.stream():
        digest.update(piece)
        length += len(piece)
        pieces += bool(piece)
    return {"sha256": digest.hexdigest(), "length": length, "pieces": pieces}


@fast.post("/form")
async def form(title: Annotated[str, fastapi.Form()], file: fastapi.UploadFile):
    return {"title": title, "name": file.filename, "length": len(await file.read())}


@fast.get("/together")
async def together(file: str, tag: str):
    note(tag)
    try:
        await gate(file)
    finally:
        note(f"{tag}-finally")
    return {"pid": os.getpid()}


def later(file, tag):
    while not Path(file).exists():
        time.sleep(0.01)
    note(tag)


@fast.get("/background")
def background(file: str, tag: str, tasks: fastapi.BackgroundTasks):
    tasks.add_task(later, file, tag)
    return {"answered": tag}


async def linger(file, tag):
    try:
        await gate(file)
    finally:
        note(f"{tag}-finally")


@fast.get("/lingers")
async def lingers(file: str, tag: str, tasks: fastapi.BackgroundTasks):
    tasks.add_task(linger, file, tag)
    return {"answered": tag}


failing = Stub("failing")


@failing.function()
@asgi_app()
def fails_to_start():
    @contextlib.asynccontextmanager
    async def broken(app):
        raise RuntimeError("no database here")
        yield

    return fastapi.FastAPI(lifespan=broken)


shy = Stub("shy")


@shy.function()
@asgi_app()
def fails_to_end():
    @contextlib.asynccontextmanager
    async def broken(app):
        yield
        raise RuntimeError("the door is stuck")

    return fastapi.FastAPI(lifespan=broken)
