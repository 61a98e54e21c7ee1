"""Spawn a slow function and poll for its result: with FastAPI.

Serve it with `wsgi-timeout serve polling.py:stub`, then

    curl -X POST http://127.0.0.1:8000/accept
    curl -i http://127.0.0.1:8000/result/fc-...
"""

import time

import fastapi

from wsgi_timeout import Stub, asgi_app
from wsgi_timeout.errors import OutputExpiredError
from wsgi_timeout.functions import FunctionCall

stub = Stub()
web_app = fastapi.FastAPI()


@stub.function()
@asgi_app()
def fastapi_app():
    return web_app


@stub.function()
def slow_operation():
    time.sleep(5)
    return {"pages": 3}


@web_app.post("/accept")
async def accept_job(request: fastapi.Request):
    call = slow_operation.spawn()
    return {"call_id": call.object_id}


@web_app.get("/result/{call_id}")
async def poll_results(call_id: str):
    function_call = FunctionCall.from_id(call_id)
    try:
        return function_call.get(timeout=0)
    except TimeoutError:
        http_accepted_code = 202
        return fastapi.responses.JSONResponse({}, status_code=http_accepted_code)
    except OutputExpiredError:
        return fastapi.responses.JSONResponse({}, status_code=404)
