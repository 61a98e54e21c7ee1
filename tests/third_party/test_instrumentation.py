"""OpenTelemetry, Sentry and Prometheus in worker processes, set up by the hooks of a gunicorn file."""

import json
import os
import signal
from importlib.util import find_spec

import pytest
import requests
from harness import Serve, is_missing, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def needs(*modules):
    """Skip a test whose libraries are not installed; see the `third-party` group in pyproject.toml."""
    for module in modules:
        if find_spec(module) is None:
            is_missing(module)


@pytest.fixture
def serve(tmp_path):
    """Return a function that serves an app with the hooks of a gunicorn file, and a folder for its notes."""
    started = []

    def start(app, config, *options):
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "observed.py").write_text(app)
        (tmp_path / "site" / "gunicorn.conf.py").write_text(config)
        env = {"NOTES": str(tmp_path / "notes")}
        words = ("--gunicorn-config", "gunicorn.conf.py", *options)
        state = tmp_path / "state"
        started.append(Serve("observed:app", *words, folder=tmp_path / "site", state=state, env=env))
        return started[0]

    yield start
    for site in started:
        site.stop()


METERED = """
import os
from flask import Flask
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, multiprocess

app = Flask(__name__)
hits = Counter("hits", "Requests")
ready = Gauge("ready", "Processes", multiprocess_mode="livesum")
ready.set(1)

@app.get("/")
def hit():
    hits.inc()
    return str(os.getpid())

@app.get("/metrics")
def metrics():
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return generate_latest(registry)
"""
METERING = """
import os
raw_env = ["PROMETHEUS_MULTIPROC_DIR=" + os.environ["NOTES"]]
os.makedirs(os.environ["NOTES"])

def child_exit(server, worker):
    from prometheus_client import multiprocess
    multiprocess.mark_process_dead(worker.pid)
"""


def test_prometheus_counts_over_processes(serve):
    """Counters add up over all processes, and one that was killed leaves no live gauge behind."""
    needs("prometheus_client")
    site = serve(METERED, METERING)

    def metrics(*lines):
        text = requests.get(f"{site.url}/metrics", timeout=30).text
        return all(line in text for line in lines)

    pids = [requests.get(f"{site.url}/", timeout=30).text for _ in range(6)]
    until(lambda: metrics("hits_total 6.0", "ready 2.0"), 20, "both processes' metrics")
    os.kill(int(pids[-1]), signal.SIGKILL)
    until(lambda: metrics("hits_total 6.0", "ready 2.0"), 20, "its successor's gauge in place of its own")


REPORTED = """
from flask import Flask

app = Flask(__name__)

@app.get("/")
def fails():
    return 1 / 0
"""
REPORTING = """
import json, os

def note(event, hint):
    with open(os.environ["NOTES"], "a") as notes:
        print(json.dumps([event["exception"]["values"][-1]["type"], os.getpid()]), file=notes)
    return event  # one that is dropped would not be known when it comes again

def post_fork(server, worker):
    import sentry_sdk
    sentry_sdk.init("http://key@127.0.0.1:9/1", before_send=note)

def worker_exit(server, worker):
    import sentry_sdk
    sentry_sdk.flush(1)
"""


def test_sentry_hears_of_an_exception_once(serve, tmp_path):
    """What a handler raises is one event, from the worker process."""
    needs("sentry_sdk")
    site = serve(REPORTED, REPORTING)
    assert requests.get(f"{site.url}/", timeout=30).status_code == 500
    site.stop()
    [(kind, pid)] = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    assert kind == "ZeroDivisionError"
    assert pid != site.pid


TRACED = """
from flask import Flask
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor

app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)

@app.get("/")
def traced():
    with trace.get_tracer("app").start_as_current_span("inner"):
        return "traced"
"""
TRACING = """
import os

def post_fork(server, worker):
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    out = open(os.environ["NOTES"], "a")
    resource = Resource.create({"service.name": "observed", "worker": worker.pid})
    trace.set_tracer_provider(TracerProvider(resource=resource))
    line = lambda span: span.to_json(indent=None) + "\\n"
    exporter = ConsoleSpanExporter(out=out, formatter=line)
    trace.get_tracer_provider().add_span_processor(BatchSpanProcessor(exporter))
    server.log.info("Worker spawned (pid: %s)", worker.pid)
"""


def test_opentelemetry_after_the_fork(serve, tmp_path):
    """A provider made in post_fork has the spans of the worker's handlers, in the caller's trace."""
    needs("opentelemetry.sdk", "opentelemetry.instrumentation.flask")
    site = serve(TRACED, TRACING, "--processes", "1")
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    assert requests.get(f"{site.url}/", headers=headers, timeout=30).text == "traced"
    site.stop()
    spans = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    assert [span["name"] for span in spans] == ["inner", "GET /"]
    assert {span["context"]["trace_id"] for span in spans} == {f"0x{trace}"}
    assert "Worker spawned (pid: " in site.output
