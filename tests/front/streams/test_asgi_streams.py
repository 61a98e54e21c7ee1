"""Event streams of ASGI apps that go on in the same run: Starlette's, and sse-starlette's."""

import importlib.util

import pytest
from harness import until
from streamed import Connection, Steps, status

KINDS = ["streaming", *(["events"] if importlib.util.find_spec("sse_starlette") else [])]


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(
        "asgi_streams:stub",
        pool=("--processes", "2", "--threads", "4"),
        worker_wait=10,
        wait_seconds=20,
        event_streams="resumable",
        keepalive_seconds=0.3,
    )


@pytest.fixture
def steps(tmp_path):
    steps = Steps(tmp_path / "steps")
    yield steps
    steps.allow(*range(200))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_asgi_stream_goes_on_in_the_same_run(site, steps, kind):
    """A cut stream of an ASGI app goes on at the next event, ends between two events, and then is over."""
    web = site.start_web(gateway="wait_seconds=0.5")
    url = f"/{kind}?folder={steps.folder}&tag={kind}&count=30"
    seen, last = [], None
    try:
        for number in range(5):  # cut after each
            steps.allow(number)
            with Connection(site.web.port, url, last) as connection:
                seen += connection.events(1)
                last = connection.ids[-1]
        while len(seen) < 30:  # ended by the server
            with Connection(web.port, url, last) as connection:
                seen += connection.rest()
                last = connection.ids[-1] if connection.ids else last
            steps.allow(*range(12 if len(seen) < 12 else 30))
        until(lambda: status(site.web.port, url, last) == 204, what="the end")
    finally:
        web.stop()
    assert seen == [str(n) for n in range(30)]
    assert len(site.runs(kind)) == 1


@pytest.mark.slow
def test_a_posted_asgi_stream_goes_on_by_its_link(site, steps):
    """A POST to an ASGI app is resumed by a GET on the URL in its Link."""
    steps.allow(0, 1)
    url = f"/streaming?folder={steps.folder}&tag=posted&count=5"
    with Connection(site.web.port, url, method="POST", body=b"hello", accept="*/*") as connection:
        assert connection.events(2) == ["0", "1"]
    steps.allow(*range(5))
    with Connection(site.web.port, connection.result_url, connection.ids[0], accept="*/*") as again:
        assert again.rest() == ["1", "2", "3", "4"]
    assert len(site.runs("posted")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_asgi_stream_that_is_left_ends(site, steps, kind):
    """The coroutine of a stream that nobody came back to is cancelled."""
    web = site.start_web(gateway="resume_window=0.5")
    url, number = f"/{kind}?folder={steps.folder}&tag={kind}-left&count=100000", 0
    try:
        steps.allow(0)
        with Connection(web.port, url) as connection:
            assert connection.events(1) == ["0"]

        def ended():
            nonlocal number
            number += 1
            steps.allow(number)
            return site.runs(f"{kind}-left-ended")

        until(ended, 40, "the end of the handler")
    finally:
        web.stop()
