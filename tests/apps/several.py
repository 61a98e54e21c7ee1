"""A stub of several web functions, whose app can be imported in workers only."""

from wsgi_timeout import Stub, asgi_app, web_endpoint, wsgi_app

stub = Stub("several")


@stub.function()
@wsgi_app()
def site():
    from only_in_workers import app

    return app


@stub.function(timeout=60)
@wsgi_app(label="slow-site", wait_for_response=False)
def slow():
    from only_in_workers import app

    return app


@stub.function()
@asgi_app(label="v1.api")
def api():
    from only_in_workers import app
    from starlette.responses import PlainTextResponse

    assert app
    return PlainTextResponse("from the API")


@stub.function()
@web_endpoint(wait_for_response=False)
def later(x: int):
    return {"later": x}
