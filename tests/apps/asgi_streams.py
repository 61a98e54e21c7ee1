"""ASGI apps that stream events: Starlette's own response, and sse-starlette's where it is installed."""

import asyncio
import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from wsgi_timeout import Stub, asgi_app

stub = Stub("asgi-streams")


def note(line):
    with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as runs:
        runs.write(f"{line} {os.getpid()}\n")


async def numbers(request):
    """Yield numbers, each when its file is in the folder."""
    folder, tag = request.query_params["folder"], request.query_params["tag"]
    note(tag)
    try:
        for number in range(int(request.query_params["count"])):
            while not await asyncio.to_thread(Path(folder, str(number)).exists):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            yield number
    finally:
        note(f"{tag}-ended")


async def streaming(request):
    """Stream events as text, in pieces that end anywhere."""

    async def body():
        async for number in numbers(request):
            yield "data: "
            yield f"{number}\n\n: a comm"
            yield "ent\n\n"

    return StreamingResponse(body(), media_type="text/event-stream")


async def events(request):
    """Stream events as sse-starlette does: lines of CRLF, pings."""
    from sse_starlette import EventSourceResponse

    async def body():
        async for number in numbers(request):
            yield {"event": "token", "data": str(number)}

    return EventSourceResponse(body(), ping=1)


@stub.function(timeout=120)
@asgi_app()
def web():
    return Starlette(
        routes=[Route("/streaming", streaming, methods=["GET", "POST"]), Route("/events", events)]
    )
