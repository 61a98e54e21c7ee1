"""Machines of one network, as network namespaces (Linux, root), and cables that are cut."""

import contextlib
import os
import shutil
import signal
import subprocess

from harness import APPS, Process

#: Of the bridge that stands for the network, in a namespace of its own.
BRIDGE = "switch"


def allowed():
    """Return whether this process may make network namespaces, with cables and a bridge."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        return False
    space = f"wt{os.getpid()}try"
    steps = [
        f"ip netns add {space}",
        f"ip netns exec {space} ip link add br0 type bridge",
        f"ip netns exec {space} ip link add one type veth peer name two",
    ]
    made = all(
        subprocess.run(step.split(), capture_output=True, check=False).returncode == 0 for step in steps
    )
    subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
    return made


class Machines:
    """10.77.0.1 and so on, in the order of their names."""

    def __init__(self, names, env):
        self._names = names
        self._env = env
        self._space = f"wt{os.getpid()}"
        self._processes = []

    def __enter__(self):
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _build(self):
        _ip("netns", "add", f"{self._space}{BRIDGE}")
        self._in(BRIDGE, "ip", "link", "add", "br0", "type", "bridge")
        self._in(BRIDGE, "ip", "link", "set", "br0", "up")
        for number, name in enumerate(self._names, 1):
            space = f"{self._space}{name}"
            _ip("netns", "add", space)
            self._in(
                *(BRIDGE, "ip", "link", "add", f"to{number}", "type", "veth", "peer", "name", "eth0"),
                *("netns", space),
            )
            self._in(BRIDGE, "ip", "link", "set", f"to{number}", "master", "br0", "up")
            self._in(name, "ip", "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            self._in(name, "ip", "link", "set", "eth0", "up")
            self._in(name, "ip", "link", "set", "lo", "up")

    def __exit__(self, *_):
        for process in reversed(self._processes):
            process.stop(signal.SIGKILL)
        for name in (*self._names, BRIDGE):
            subprocess.run(["ip", "netns", "del", f"{self._space}{name}"], capture_output=True, check=False)

    def _in(self, name, *words):
        subprocess.run(["ip", "netns", "exec", f"{self._space}{name}", *words], check=True)

    def start(self, name, command):
        """Start a process on a machine."""
        words = ["ip", "netns", "exec", f"{self._space}{name}", *command]
        self._processes.append(Process(words, env=self._env, cwd=APPS))
        return self._processes[-1]

    @contextlib.contextmanager
    def cut_off(self, name):
        """Pull a machine's cable for a while: what it sends is lost in silence, and what others send it."""
        port = f"to{self._names.index(name) + 1}"
        self._in(BRIDGE, "ip", "link", "set", port, "nomaster")
        try:
            yield
        finally:
            self._in(BRIDGE, "ip", "link", "set", port, "master", "br0")

    def get(self, name, url, seconds=90):
        """Return status and body of a request from a machine, with its redirects, by curl."""
        words = ["curl", "-sL", "--max-redirs", "60", "-m", str(seconds), "-w", "\n%{http_code}", url]
        words = ["ip", "netns", "exec", f"{self._space}{name}", *words]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        body, _, status = done.stdout.rpartition("\n")
        return int(status or 0), body


def _ip(*words):
    subprocess.run(["ip", *words], check=True)
