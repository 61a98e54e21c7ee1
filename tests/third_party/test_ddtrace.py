"""ddtrace in both halves, with a Datadog agent that only notes what it is sent."""

import http.server
import sys
import threading
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import msgpack
import pytest
from harness import Serve, ask, is_missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

WAITING = """
import os, time
from flask import Flask

app = Flask(__name__)

@app.get("/slow")
def slow():
    while not os.path.exists(os.environ["DOOR"]):
        time.sleep(0.01)
    return "done"
"""


class TracedServe(Serve):
    """`ddtrace-run wsgi-timeout serve`."""

    before = (Path(sys.executable).with_name("ddtrace-run"),)


@contextmanager
def agent():
    """Be a Datadog agent: gives its URL, and a list that traces are put into."""
    traces = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.do_PUT()

        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v0.4/traces":
                traces.extend(msgpack.unpackb(body, strict_map_key=False))
            self._answer(b"{}")

        def do_GET(self):
            self._answer(b'{"endpoints": ["/v0.4/traces"]}')

        def _answer(self, body):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            """Be quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", traces
        finally:
            server.shutdown()


def test_one_trace_from_the_first_request_to_the_handler(tmp_path):
    """A first request, its hops and the handler are one trace, whose spans a worker sends before it ends."""
    for module in ("ddtrace", "opentelemetry"):
        if find_spec(module) is None:
            is_missing(module)
    (tmp_path / "waiting.py").write_text(WAITING)
    with agent() as (url, traces):
        env = {
            "DOOR": str(tmp_path / "door"),
            "DD_TRACE_OTEL_ENABLED": "true",
            "DD_TRACE_ENABLED": "true",
            "DD_TRACE_API_VERSION": "v0.4",
            "DD_TRACE_AGENT_URL": url,
            "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
            "DD_REMOTE_CONFIGURATION_ENABLED": "false",
        }
        site = TracedServe("waiting:app", "--wait", "0.5", folder=tmp_path, state=tmp_path / "state", env=env)
        try:
            answer = ask(site.port, "/slow")
            assert answer.status == 303
            (tmp_path / "door").touch()
            while answer.status == 303:
                answer = ask(site.port, answer.location)
            assert answer.text == "done"
        finally:
            site.stop()
    spans = {span["span_id"]: span for trace in traces for span in trace}
    (handler,) = (span for span in spans.values() if span["name"] == "flask.request")
    assert spans[handler["parent_id"]]["resource"] == "GET"
    assert {"GET (hop 1)", "/slow"} < {span["resource"] for span in spans.values()}
    assert len({span["trace_id"] for span in spans.values()}) == 1
