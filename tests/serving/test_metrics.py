"""What Prometheus is answered, by web processes and by a pool on a port of its own."""

import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import ask, environment, follow, until
from prometheus import SUFFIX, promtool
from prometheus_client.parser import text_string_to_metric_families

from wsgi_timeout.metrics import FAMILIES

PATH = "/__wsgi_timeout/metrics"
#: Of pages that may read our redirects.
ORIGIN = "https://pages.example"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def port():
    return free_port()


@pytest.fixture(scope="module")
def site(deploy, port):
    """Two web processes and two workers."""
    return deploy(
        pool=("--processes", "2", "--metrics-port", port),
        web=("--workers", "2"),
        gateway="only=['/slow*', '/fast', 'GET /gate'], routes={'/fast': {'wait_seconds': 30}}, "
        f"cors_origins={ORIGIN!r}",
        wait_seconds=0.5,
        metrics_path=PATH,
    )


def scrape(port, name):
    """Return the samples of a site by metric and labels, without `name` and buckets."""
    answer = ask(port, PATH)
    assert answer.status == 200
    assert "version=" in answer.header("Content-Type")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            shown = FAMILIES[SUFFIX.sub("", sample.name)].labels
            labels = [sample.labels[label] for label in shown if label != "name"]
            if sample.labels.get("name", name) == name and "le" not in sample.labels:
                found[(sample.name.removeprefix("wsgi_timeout_"), *labels)] = sample.value
    return found


def test_calls_are_counted_by_route_and_outcome(site, port):
    """Both halves tell of calls by our patterns, however many processes answer, and whichever is asked."""
    began = time.monotonic()
    for number in range(3):
        assert ask(site.web.port, f"/fast?number={number}").status == 200
    answers = follow(site.web.port, "/slow?seconds=1.2")
    assert answers[-1].status == 200
    until(
        lambda: scrape(site.web.port, site.name).get(("hops_count", "/slow*")) == 1, what="the last delivery"
    )
    until(lambda: scrape(site.web.port, site.name)["waiting_requests",] == 0, what="its place")
    web = scrape(site.web.port, site.name)
    assert web["requests_total", "/fast", "200"] == 3
    assert web["requests_total", "/slow*", "303"] == len(answers) - 1
    assert web["hops_count", "/fast"] == 3
    assert web["hops_sum", "/slow*"] == len(answers) - 1
    assert web["accept_seconds_count", "/slow*"] == 1
    assert web["accept_seconds_sum", "/slow*"] < time.monotonic() - began
    for route, count in (("/fast", 3), ("/slow*", 1)):
        key = ("calls_total", route, "done")
        until(lambda key=key, count=count: scrape(port, site.name).get(key) == count, what="the calls' end")
    pool = scrape(port, site.name)
    assert pool["attempts_total", "/slow*", "first"] == 1
    assert pool["run_seconds_sum", "/slow*"] >= 1.2
    assert pool["queue_seconds_count", "/fast"] == pool["record_seconds_count", "/fast"] == 3
    assert pool["workers",] == web["workers",] == 2
    # Nothing of a client's stands in a label.
    assert not [key for key in (*web, *pool) if "seconds=" in str(key) or "fc-" in str(key)]


def test_what_waits_now_is_told(site, port, gate):
    """Calls in the queue, the age of its first, and requests that wait are gauges."""
    with ThreadPoolExecutor(3) as threads:
        requests = [threads.submit(follow, site.web.port, f"/gate?file={gate}") for _ in range(3)]
        try:

            def now():
                found = scrape(port, site.name)
                return found["running_calls",], found["queued_calls",]

            until(lambda: now() == (2, 1), what="two calls that run and one that waits")
            age = scrape(port, site.name)["queue_head_age_seconds",]
            until(
                lambda: scrape(port, site.name)["queue_head_age_seconds",] > age, what="an older first call"
            )
            found = scrape(site.web.port, site.name)
            assert found["redis_up",] == 1
            assert 0 < found["buffered_bytes",] < found["buffered_bytes_max",]
            until(lambda: scrape(site.web.port, site.name)["waiting_requests",] > 0, what="who waits")
        finally:
            gate.touch()
        assert {request.result()[-1].status for request in requests} == {200}


def test_what_dead_processes_have_counted_stays(site, port):
    """A worker that was killed, and replaced, has its numbers kept, in one file for all the dead."""
    before = scrape(port, site.name)["calls_total", "/fast", "done"]
    victim = site.pool.workers()[0]
    victim.send_signal(signal.SIGKILL)
    until(lambda: victim not in site.pool.workers(), what="its end")
    until(lambda: scrape(port, site.name)["workers",] == 2, what="another worker")
    assert ask(site.web.port, "/fast").status == 200
    until(lambda: scrape(port, site.name)["calls_total", "/fast", "done"] == before + 1, what="one call more")


def test_a_process_without_the_setting_does_not_import_the_client():
    """Neither half imports prometheus-client unless it was asked for metrics."""
    halves = "wsgi_timeout.serving.gunicorn_threads, wsgi_timeout_jobs.pool.pool, wsgi_timeout_jobs.worker"
    found = subprocess.run(
        [sys.executable, "-c", f"import sys, {halves}; print('prometheus_client' in sys.modules)"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "False\n"


def test_a_thousand_functions_make_a_hundred_series():
    """A process tells its first hundred routes apart, and counts the others together."""
    program = (
        "from wsgi_timeout import metrics; metrics.start()\n"
        "for i in range(1000): metrics.count('attempts_total', 'shop', f'function{i}', 'first')\n"
        "[family] = [each for each in metrics.registry().collect() if each.name == 'wsgi_timeout_attempts']\n"
        "samples = [each for each in family.samples if each.name.endswith('_total')]\n"
        "values = {each.labels['route']: each.value for each in samples}\n"
        "print(len(values), values['function99'], values['*'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "101 1.0 900.0\n"


def test_a_port_that_is_taken_is_one_line(site, port):
    """A pool whose port is taken says so, and ends."""
    command = [sys.executable, "-m", "wsgi_timeout.serving.cli", "worker", "basic:app"]
    found = subprocess.run(
        [*command, "--metrics-port", str(port)],
        env={**site.env, "REDIS_URL": site.redis.url},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert found.returncode == 2
    assert f"--metrics-port {port}: Address already in use; give another one" in found.stderr
    assert "Traceback" not in found.stderr


def test_what_is_counted_keeps_its_headers(site):
    """A redirect that is counted can be read by pages of other origins, as one that is not."""
    redirect = ask(site.web.port, "/slow?seconds=2", headers={"Origin": ORIGIN})
    assert (redirect.status, redirect.header("Access-Control-Allow-Origin")) == (303, ORIGIN)


@pytest.mark.parametrize("half", ["web", "pool"])
def test_names_and_labels_follow_the_conventions(site, port, half):
    """Promtool has nothing to say against what is answered."""
    text = ask(site.web.port if half == "web" else port, PATH).text
    found = subprocess.run(
        [promtool(), "check", "metrics"], input=text, capture_output=True, text=True, timeout=30, check=False
    )
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_made_up_paths_make_no_series(site, port):
    """The number of series does not grow with the paths, queries and methods that clients make up."""

    def series():
        return len(scrape(site.web.port, site.name)), len(scrape(port, site.name))

    def send(number):
        assert ask(site.web.port, f"/slow-{number}?q={number}").status == 404
        ask(site.web.port, f"/made-up/{number}?q={number}", method=f"M{number}")

    send(0)
    until(lambda: ("calls_total", "/slow*", "done") in scrape(port, site.name), what="the first call's end")
    before = series()
    for number in range(1, 50):
        send(number)
    assert series() == before
