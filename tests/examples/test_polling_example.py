"""The polling examples, served as they stand: accept, poll, result."""

import signal
from pathlib import Path

import pytest
import requests
from harness import ROOT, Serve, until

EXAMPLES = ROOT / "examples" / "polling"
#: How long the examples' slow function sleeps.
SLOW_SECONDS = 5.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "framework"),
    [("polling.py", "FastAPI"), ("flask_polling.py", "Flask")],
    ids=["fastapi", "flask"],
)
def test_the_example_works_as_it_stands(file, framework, tmp_path):
    """A job is accepted, polls get 202 while it runs, then its result, as often as it is asked for."""
    server = Serve(f"{file}:stub", folder=EXAMPLES, state=tmp_path)
    try:
        accepted = requests.post(f"{server.url}/accept", timeout=30)
        assert accepted.status_code == 200
        call_id = accepted.json()["call_id"]
        assert call_id.startswith("fc-")
        address = f"{server.url}/result/{call_id}"

        def poll():
            return requests.get(address, timeout=30)

        first = poll()
        assert (first.status_code, first.json()) == (202, {})
        assert first.elapsed.total_seconds() < SLOW_SECONDS / 2
        last = until(lambda: (answer := poll()).status_code != 202 and answer, 30, "the result")
        assert (last.status_code, last.json()) == (200, {"pages": 3})
        assert poll().json() == {"pages": 3}
        assert requests.get(f"{server.url}/result/fc-unknown", timeout=30).status_code == 404
    finally:
        code = server.stop(signal.SIGINT)
    assert code == 0
    assert f"serving {file}:stub" in server.output
    assert f"queue wt:{Path(file).stem}," in server.output
