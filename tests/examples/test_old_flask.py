"""The example of an app of 2019: Flask 1.1, from a virtual environment of its own."""

import json
import os
import subprocess
import sys

import pytest
from harness import TESTS, Serve, ask, follow
from other_pythons import interpreter

EXAMPLE = TESTS.parent / "examples" / "old_flask"


def environment_of_its_own(version, folder):
    """Return a Python that has what the app pins, in a venv; in a virtualenv for 2.7."""
    base, own = interpreter(version, needs="pip"), folder / "old"
    pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check"]
    if version == "2.7":
        tools = folder / "tools"
        subprocess.run(
            [base, *pip, "--target", tools, "virtualenv==16.7.12"], check=True, capture_output=True
        )
        make = [base, "-m", "virtualenv", "--no-download", own]
        subprocess.run(make, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(tools)})
    else:
        subprocess.run([base, "-m", "venv", own], check=True)
    done = subprocess.run(
        [own / "bin/python", *pip, "-r", EXAMPLE / "requirements.txt"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr[-2000:]
    return own / "bin/python"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", ["2.7", "3.6"])
def test_an_app_of_2019_is_served_unchanged(version, tmp_path):
    """Its slow report is redirected and arrives; its environment has nothing of ours."""
    python = environment_of_its_own(version, tmp_path)
    options = ("--python", python, "--wait", "0.5")
    no_pyc = {"PYTHONDONTWRITEBYTECODE": "1"}
    served = Serve("shop:app", *options, folder=EXAMPLE, state=tmp_path, env=no_pyc)
    try:
        assert f"Python {version}." in ask(served.port, "/").text
        *hops, last = follow(served.port, "/report/2019?seconds=2")
        assert {hop.status for hop in hops} == {303}
        assert json.loads(last.text)["orders"] == 12345
        assert json.loads(last.text)["python"].startswith(version)
        assert not sys.version.startswith(version)
    finally:
        served.stop()
