"""OpenTelemetry, Sentry and Prometheus in worker processes, set up by the hooks of a gunicorn file."""

import json
import os
import re
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import requests
from documents import blocks
from harness import ROOT, Serve, ask, is_missing, until

#: The files that the documentation shows, by their names.
PAGE = {
    block.title: block.text
    for block in blocks(ROOT / "docs" / "how-to" / "instrumentation.md")
    if block.title
}

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
METERING = f"""
import os
raw_env = ["PROMETHEUS_MULTIPROC_DIR=" + os.environ["NOTES"]]
os.makedirs(os.environ["NOTES"])
{PAGE["prometheus_conf.py"]}
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
ADDRESS, NOTING = '"https://key@sentry.example.com/1"', '"http://key@127.0.0.1:9/1", before_send=note'
REPORTING = f"""
import json, os

def note(event, hint):
    with open(os.environ["NOTES"], "a") as notes:
        print(json.dumps([event["exception"]["values"][-1]["type"], os.getpid()]), file=notes)
    return event  # one that is dropped would not be known when it comes again

{PAGE["sentry_conf.py"].replace(ADDRESS, NOTING)}

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
TO_NOTES = """ConsoleSpanExporter(
    out=open(os.environ["NOTES"], "a"), formatter=lambda span: span.to_json(indent=None) + "\\n")"""
TRACING = f"""
import os
{PAGE["opentelemetry_conf.py"].replace("ConsoleSpanExporter()", TO_NOTES)}
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


class InstrumentedServe(Serve):
    """`opentelemetry-instrument wsgi-timeout serve`: every process of it is instrumented."""

    before = (Path(sys.executable).with_name("opentelemetry-instrument"),)

    def spans(self):
        """Return the spans that its processes have printed."""
        found = re.findall(r'^\{\n    "name".*?^\}$', self.output, re.DOTALL | re.MULTILINE)
        return [json.loads(span) for span in found]


def test_one_trace_from_the_first_request_to_the_handler(tmp_path):
    """A first request, its hops and the handler are one trace, without our polling, under the command."""
    needs(
        "opentelemetry.distro", "opentelemetry.instrumentation.flask", "opentelemetry.instrumentation.redis"
    )
    (tmp_path / "waiting.py").write_text(WAITING)
    env = {
        "DOOR": str(tmp_path / "door"),
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }
    options = ("--wait", "0.5", "--processes", "1")
    site = InstrumentedServe("waiting:app", *options, folder=tmp_path, state=tmp_path / "state", env=env)
    try:
        answers = [ask(site.port, "/slow")]
        while answers[-1].status == 303:
            if len(answers) == 5:
                (tmp_path / "door").touch()
            answers.append(ask(site.port, answers[-1].location))
        assert answers[-1].text == "done"
    finally:
        site.stop()
    spans = site.spans()
    names = sorted(span["name"] for span in spans)
    assert names == ["GET", *(f"GET (hop {hop})" for hop in range(1, len(answers))), "GET /slow"]
    assert len({span["context"]["trace_id"] for span in spans}) == 1
    first, handler = (next(span for span in spans if span["name"] == name) for name in ("GET", "GET /slow"))
    assert handler["parent_id"] == first["context"]["span_id"]
    assert first["attributes"]["http.response.status_code"] == 303
    assert "Exception ignored" not in site.output


def test_new_relics_agent_starts(tmp_path):
    """Under New Relic's agent an app is served, slow requests too; ddtrace's is in test_ddtrace.py."""
    needs("newrelic")
    (tmp_path / "waiting.py").write_text(WAITING)
    env = {"DOOR": str(tmp_path / "door"), "NEW_RELIC_DEVELOPER_MODE": "true"}
    command = (Path(sys.executable).with_name("newrelic-admin"), "run-program")
    site = type("Agent", (Serve,), {"before": command})(
        "waiting:app", "--wait", "0.5", folder=tmp_path, state=tmp_path / "state", env=env
    )
    try:
        answer = ask(site.port, "/slow")
        assert answer.status == 303
        (tmp_path / "door").touch()
        while answer.status == 303:
            answer = ask(site.port, answer.location)
        assert answer.text == "done"
    finally:
        site.stop()


LATE = """
import os, time
from flask import Flask

app = Flask(__name__)

@app.get("/late")
def late():
    time.sleep(60)

@app.post("/lost")
def lost():
    os.kill(os.getpid(), 9)
"""
WATCHING = """
import json, os, sentry_sdk

def note(event, hint):
    with open(os.environ["NOTES"], "a") as notes:
        print(json.dumps(event), file=notes, flush=True)
    return event

sentry_sdk.init("http://key@127.0.0.1:9/1", before_send=note)
"""


def test_sentry_hears_of_timeouts_and_lost_workers_once(serve, tmp_path):
    """Set up in the gunicorn file itself, it has one event for a late handler, and one for a lost call."""
    needs("sentry_sdk")
    site = serve(LATE, WATCHING, "--processes", "1", "--timeout", "0.5")
    assert requests.get(f"{site.url}/late", timeout=30).status_code == 504
    assert requests.post(f"{site.url}/lost", timeout=30).status_code == 502
    site.stop()
    late, lost = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    assert late["exception"]["values"][-1]["type"] == "CallInterrupted"
    assert "died while it ran (signal 9), call lost" in lost["logentry"]["formatted"], lost["logentry"]
