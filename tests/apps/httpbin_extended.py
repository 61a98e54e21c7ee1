"""httpbin with `RequestTimeouts`, added from outside: httpbin itself is unchanged."""

from httpbin import app

from wsgi_timeout import RequestTimeouts

RequestTimeouts(app, name="httpbin-extended", routes={"/delay/0.8": {"wait_seconds": 0.3}})

__all__ = ["app"]
