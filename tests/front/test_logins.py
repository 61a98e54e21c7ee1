"""Log-ins of curl whose challenge comes behind redirects end as under gunicorn alone."""

import shutil
import subprocess

import pytest
from harness import is_missing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(deploy):
    return deploy("logins:app", pool=("--processes", "2"), wait_seconds=0.15)


@pytest.fixture(scope="module")
def keeping(site):
    """A web process that has clients keep their method."""
    web = site.start_web(gateway="redirect_status=307")
    yield web
    web.stop()


def curl(url, *options):
    """Return the body and the status that curl ends with."""
    if shutil.which("curl") is None:
        is_missing("curl")
    command = ["curl", "-sSL", "--max-time", "30", "-w", " %{http_code}", *options, url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("kind", "options", "ends"),
    [
        ("basic", ["--anyauth", "-u", "ann:secret"], "GET  200"),
        ("digest", ["--anyauth", "-u", "ann:secret"], "GET  200"),
        ("any", ["--digest", "-u", "ann:secret"], "GET  200"),
        ("any", ["--digest", "-u", "ann:wrong"], "who? 401"),
        # Without a Kerberos ticket, and with what stands for one.
        ("negotiate", ["--negotiate", "-u", ":"], "who? 401"),
        ("negotiate", ["-H", "Authorization: Negotiate ticket"], "GET  200"),
        # A POST has become a GET by then, which is not what was to be allowed.
        ("digest", ["--digest", "-u", "ann:secret", "-d", "x=1"], "who? 401"),
    ],
)
def test_a_log_in_behind_redirects(site, kind, options, ends):
    """The challenge is answered on the result URL that showed it; what is refused ends."""
    assert curl(f"{site.url}/{kind}", *options) == ends


def test_a_log_in_that_sends_a_body(site, keeping):
    """With `redirect_status=307` the method stays, and the app gets the body with the credentials, once."""
    options = ["--digest", "-u", "ann:secret", "-d", "x=1"]
    assert curl(f"{keeping.url}/digest?tag=post", *options) == "POST x=1 200"
    # The challenged one, and the one that was let in.
    assert len(site.runs("post-POST")) == 2
