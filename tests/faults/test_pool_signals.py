"""Signals to a pool: as a process manager, a terminal and log rotation send them."""

import fcntl
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from harness import APPS, Pool, Process, ask, environment, until

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def pids(site):
    return {process.pid for process in site.pool.workers()}


@pytest.mark.usefixtures("terminal")
def test_a_hangup_loads_the_app_anew(deploy, gate):
    """SIGHUP replaces all processes; what runs ends and is delivered, and the pool goes on."""
    site = deploy(pool=("--processes", "2"), wait_seconds=40)
    with ThreadPoolExecutor(1) as aside:
        answer = aside.submit(ask, site.web.port, f"/gate?file={gate}&tag=hangup")
        until(lambda: site.runs("hangup"), what="its start")
        before = pids(site)
        os.killpg(site.pool.pid, signal.SIGHUP)
        until(lambda: len(pids(site) - before) == 2, 20, "two new ones")
        until(lambda: len(pids(site) & before) == 1, 20, "the end of the idle one")
        assert ask(site.web.port, "/pid").json["pid"] not in before
        gate.touch()
        assert answer.result().status == 200
    until(lambda: not pids(site) & before, 20, "the end of the other one")
    assert site.pool.popen.poll() is None


@pytest.mark.usefixtures("terminal")
def test_a_closed_terminal_ends_a_pool(redis_server):
    """A pool whose terminal is closed ends in order."""
    master, slave = pty.openpty()

    def take_the_terminal():
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    command = [sys.executable, "-m", "wsgi_timeout.serving.cli", "worker", "basic:app", "--name", "closed"]
    with subprocess.Popen(
        command,
        env={**environment(), "REDIS_URL": redis_server.url},
        cwd=APPS,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        preexec_fn=take_the_terminal,  # noqa: PLW1509 - nothing else runs in this process
    ) as pool:
        os.close(slave)
        shown = b""
        while b"takes calls" not in shown:
            shown += os.read(master, 4096)
        os.close(master)
        assert pool.wait(20) == 0


def test_signals_that_mean_nothing_to_a_pool_end_nothing(deploy, tmp_path):
    """USR1 and USR2 change nothing, QUIT stops in order; systemd is told of its start and stop."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        site = deploy(pool=("--processes", "1"))
        site.pool.stop()
        env = {**site.env, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        site.pool = Pool(site.target, site.name, site.redis.url, "--processes", "1", env=env, cwd=APPS)
        assert systemd.recv(100) == b"READY=1"
        (worker,) = pids(site)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            site.pool.popen.send_signal(number)
            assert ask(site.web.port, "/pid").json["pid"] == worker
        site.pool.popen.send_signal(signal.SIGQUIT)
        assert systemd.recv(100) == b"STOPPING=1"
        assert site.pool.popen.wait(20) == 0


#: Runs a command that adopts orphans, as PID 1 of a container does.
ADOPTING = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
@pytest.mark.parametrize("half", ["worker", "serve"])
def test_adopted_orphans_are_reaped(deploy, redis_server, tmp_path, half):
    """As PID 1 of a container both commands reap processes that handlers have left behind."""
    site = deploy(pool=("--processes", "1"))
    site.pool.stop()
    command = [sys.executable, "-m", "wsgi_timeout.serving.cli", half, "basic:app", "--name", site.name]
    command += ["--data-dir", tmp_path, "--bind", "127.0.0.1:0"] if half == "serve" else []
    env = {**site.env, "REDIS_URL": redis_server.url}
    process = Process([sys.executable, "-c", ADOPTING, *command], env=env, cwd=APPS)
    try:
        process.wait_for("takes calls", 30)
        orphan = int(ask(site.web.port, "/orphan").body)
        until(lambda: not psutil.pid_exists(orphan), what="the end of the orphan")
    finally:
        assert process.stop() == 0
