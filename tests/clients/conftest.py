"""The site that clients ask, and an ordinary server."""

import pytest
from links import Breaking
from streamed import Steps


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(
        "clients_site:app",
        pool=("--processes", "4"),
        gateway="except_=['/page', '/client.mjs'], routes={'/events': {'event_streams': 'resumable'}, "
        "'/lines': {'event_streams': 'resumable'}}",
        wait_seconds=0.25,
        resume_window=30,
    )


@pytest.fixture
def breaking(site):
    links = []

    def make(*cuts, port=site.web.port):
        links.append(Breaking(port, cuts))
        return f"http://127.0.0.1:{links[-1].port}"

    yield make
    for link in links:
        link.close()


@pytest.fixture
def steps(tmp_path):
    steps = Steps(tmp_path / "steps")
    yield steps
    steps.allow("raise", *range(200))
