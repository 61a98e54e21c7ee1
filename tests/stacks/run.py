"""The contract tests beside the versions that people have: `make test-stacks`, or one by its name.

Each stack gets a virtual environment, kept for the next run: .venv-stacks/NAME. A Python that is not on
the PATH nor in pyenv is left out, on CI it is an error.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
VENVS = TOP / ".venv-stacks"

#: Python, and what an app of that year pins, from the oldest to the newest.
STACKS = {
    "2021": ("3.10", "flask==2.0.3 werkzeug==2.0.3 gunicorn==20.1.0 redis==4.6.0 rq==1.15.1 click==8.0.4"),
    "2022": ("3.10", "flask==2.2.5 werkzeug==2.2.3 gunicorn==20.1.0 redis==4.6.0 rq==1.16.2 click==8.1.3"),
    "2023": ("3.11", "flask==3.0.0 gunicorn==21.2.0 redis==5.0.1 rq==1.15.1 itsdangerous==2.1.2"),
    "2024": ("3.12", "flask==3.0.3 gunicorn==23.0.0 redis==5.2.1 rq==2.0.0"),
    "2025": ("3.13", "flask==3.1.0 gunicorn==25.0.0 redis==6.4.0 rq==2.6.1"),
    "2026": ("3.12", "flask==3.1.2 gunicorn==26.0.0 redis==7.4.1 rq==2.10.0"),
}  # fmt: skip

#: What the promises of the README rest on: HTTP, extension, blueprint, workers that die, functions.
CONTRACT = (
    "tests/front/contract",
    "tests/integrations/test_extension.py",
    "tests/integrations/blueprint",
    "tests/faults/test_worker_killed.py",
    "tests/functions/test_functions.py",
    "tests/jobs/test_own_queue.py",
)
#: One of each, in half the time: what CI runs.
QUICK = (
    "tests/front/contract/test_http_contract.py",
    "tests/integrations/test_extension.py",
    "tests/integrations/blueprint/test_blueprint_host.py",
    "tests/faults/test_worker_killed.py",
    "tests/functions/test_functions.py",
    "tests/jobs/test_own_queue.py",
)
TOOLS = (
    "bottle",
    "django",
    "fastapi",
    "hypothesis",
    "psutil",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "requests",
    "setuptools<81",
    "sqlalchemy",
)


def python(version: str) -> str:
    """Return an interpreter that runs, empty if there is none; a shim on the PATH may fail when it is run."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    places = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    for place in filter(None, places):
        if (
            subprocess.run(
                [place, "-c", "import ensurepip, venv"], capture_output=True, check=False
            ).returncode
            == 0
        ):
            return str(place)
    return ""


def install(name: str, interpreter: str, pins: list[str]) -> Path:
    """Make the stack's environment unless it is there; return its Python."""
    venv = VENVS / name
    made = venv / "pins.txt"
    wanted = "\n".join([interpreter, *pins, *TOOLS, (TOP / "pyproject.toml").read_text()])
    if not made.exists() or made.read_text() != wanted:
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([interpreter, "-m", "venv", venv], check=True)
        pip = [venv / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
        subprocess.run([*pip, "-e", TOP, *TOOLS, *pins], check=True)
        made.write_text(wanted)
    return venv / "bin/python"


def tested(name: str, files: tuple[str, ...], more: list[str]) -> bool | None:
    """Run the tests on one stack; None if its Python is not here."""
    version, pins = STACKS[name]
    print(f"=== {name}: Python {version}, {pins}", flush=True)
    interpreter = python(version)
    if not interpreter:
        print(f"    no Python {version} is here")
        return False if os.environ.get("CI") == "true" else None
    started = time.monotonic()
    command = [
        install(name, interpreter, pins.split()),
        "-m",
        "pytest",
        "-q",
        "-n",
        "3",
        "--dist",
        "loadscope",
    ]
    # gevent, command line clients and what needs more packages are tested by `make test`.
    # Old packages warn, and leave to the garbage collector what newer ones close.
    command += [
        "-W",
        "default",
        "-p",
        "no:cacheprovider",
        "-k",
        "not gevent and not httpie",
        *files,
        *more,
    ]
    passed = subprocess.run(command, cwd=TOP, check=False).returncode == 0
    print(f"=== {name}: {'passed' if passed else 'FAILED'}, {time.monotonic() - started:.0f} s", flush=True)
    return passed


def main() -> int:
    names = re.sub(r"[{}',]", "", str([*STACKS])).strip("[]")
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("names", nargs="*", help=f"of {names}; all if none is given")
    options.add_argument("--quick", action="store_true", help="about half of the tests, as CI does")
    chosen, more = options.parse_known_args()
    files = QUICK if chosen.quick else CONTRACT
    results = [tested(name, files, more) for name in chosen.names or STACKS]
    return 1 if False in results else 0


if __name__ == "__main__":
    sys.exit(main())
