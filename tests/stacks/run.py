"""The contract tests beside the versions that people have: `make test-stacks`, or one by its name.

Each stack gets a virtual environment, kept for the next run: .venv-stacks/NAME. A Python that is not on
the PATH nor in pyenv is left out, on CI it is an error.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from interpreters import ON_CI, python, uv

TOP = Path(__file__).resolve().parents[2]
VENVS = TOP / ".venv-stacks"

#: Python, and what an app of that year pins, from the oldest to the newest.
STACKS = {
    "2021": ("3.10", "flask==2.0.3 werkzeug==2.0.3 gunicorn==20.1.0 redis==4.3.4 rq==1.15.1 click==8.0.4"),
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
    "tests/serving/test_stopping.py",
)
#: The most telling ones of each, in half a minute a stack: what CI runs on all stacks.
QUICK = {
    "tests/front/contract/test_http_contract.py": (
        "test_status_reason_and_headers_come_in_the_apps_order",
        "test_a_response_is_passed_on_as_it_comes",
        "test_a_request_is_an_rq_job",
        "test_direct_delivery_leaves_nothing_in_redis",
        "test_a_body_over_the_limit_is_refused",
        "test_a_handler_over_its_timeout_gets_504",
        "test_each_gunicorn_runs_the_worker_that_is_tested",
    ),
    "tests/front/contract/test_redirects.py": (
        "test_a_slow_request_is_redirected_to_its_result_url",
        "test_python_requests_follows_to_the_result",
        "test_a_chain_runs_on_one_kept_alive_connection",
    ),
    "tests/integrations/test_extension.py": (
        "test_one_line_makes_every_request_a_call",
        "test_only_names_what_runs_as_calls",
        "test_a_route_has_its_own_wait",
        "test_testing_runs_in_place",
    ),
    "tests/integrations/blueprint/test_blueprint_host.py": (
        "test_the_login_check_guards_a_result_url",
        "test_a_form_that_the_host_has_read",
    ),
    "tests/faults/test_worker_killed.py": (
        "test_a_lost_call_shows_on_a_browsers_page",
        "test_a_large_body_is_whole_in_the_second_run",
        "test_a_get_runs_twice_at_most_by_default",
    ),
    "tests/functions/test_functions.py": (
        "TestResults::test_a_spawned_call_returns_its_result",
        "TestResults::test_remote_waits_and_local_runs_here",
        "TestResults::test_any_python_object_may_come_and_go",
        "TestResults::test_gather_raises_the_first_failure",
        "TestResults::test_a_web_app_spawns_and_gets",
        "TestResults::test_another_process_gets_by_id",
        "TestWhileItRuns::test_status_tells_progress_and_times",
        "TestWhileItRuns::test_a_running_call_is_cancelled",
    ),
    "tests/jobs/test_own_queue.py": ("test_an_apps_own_queue_and_worker_beside_ours",),
    "tests/serving/test_ways_to_name_an_app.py": ("test_a_module_with_the_name_of_one_of_pythons",),
    "tests/serving/test_stopping.py": (
        "TestStopping::test_ctrl_c_lets_a_waiting_request_go_on_later",
        "TestStopping::test_hup_loads_the_app_anew",
    ),
}
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


def install(name: str, interpreter: str, pins: list[str]) -> Path:
    """Make the stack's environment unless it is there; return its Python."""
    venv = VENVS / name
    made = venv / "pins.txt"
    wanted = "\n".join([interpreter, *pins, *TOOLS, (TOP / "pyproject.toml").read_text()])
    if not made.exists() or made.read_text() != wanted:
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([uv(), "venv", "-q", "--python", interpreter, venv], check=True)
        pip = [uv(), "pip", "install", "-q", "--python", venv / "bin/python"]
        subprocess.run([*pip, "-e", TOP, *TOOLS, *pins], check=True)
        made.write_text(wanted)
    return venv / "bin/python"


def tested(name: str, files: tuple[str, ...], more: list[str]) -> bool | None:
    """Run the tests on one stack; None if its Python is not here."""
    version, pins = STACKS[name]
    print(f"=== {name}: Python {version}, {pins}", flush=True)
    interpreter = python(version, needs="ensurepip, venv")
    if not interpreter:
        print(f"    no Python {version} is here")
        return False if ON_CI else None
    started = time.monotonic()
    command = [
        install(name, interpreter, pins.split()),
        "-m",
        "pytest",
        "-q",
        "-n",
        "4",
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
    options.add_argument("--quick", action="store_true", help="the most telling tests, as CI does")
    chosen, more = options.parse_known_args()
    quick = [f"{file}::{test}" for file, tests in QUICK.items() for test in tests]
    files = tuple(quick) if chosen.quick else CONTRACT
    results = [tested(name, files, more) for name in chosen.names or STACKS]
    return 1 if False in results else 0


if __name__ == "__main__":
    sys.exit(main())
