"""What is soaked: two targets on one Redis, their gunicorns and pools; and the faults that befall them."""

import contextlib
import os
import random
import signal
import threading
import time

import psutil
from faults.proxy import Proxy
from harness import APPS, Gunicorn, Pool, RedisServer, environment, listen, until
from watched import Watched

SETTINGS = {
    "wait_seconds": 0.5,
    # Longer than any outage of these: a request is not refused while nobody knows whether it was accepted.
    "worker_wait": 20,
    "lease_seconds": 2,
    "interrupt_grace": 2,
    "delivery_grace": 10,
    # Longer than a client may wait for its next answer while a busy machine starts web processes anew.
    "result_ttl": 60,
    "function_result_ttl": 60,
    "buffer": 1 << 20,
    "unread_timeout": 10,
    "secret": "soak" * 8,
    "log_level": "WARNING",
}
APP = "soaked:stub"
POOL = ("--processes", "2", "--graceful-timeout", "3")
#: The target of each gunicorn and of its pool.
TARGETS = ("soaked", "soaked", "second")


class Site:
    """The processes; each can be replaced."""

    def __init__(self, folder, handlers_file, *, sentinel):
        """Start them on a Redis behind a proxy, or (`sentinel`) on a pair that sentinels watch."""
        self.watched = Watched(folder) if sentinel else None
        self.server = self.watched or RedisServer()
        self.proxy = None if sentinel else Proxy(self.server, folder / "s")
        self._url = self.watched.url if self.watched else self.proxy.url
        self._env = {**environment(**SETTINGS), "HANDLERS_FILE": str(handlers_file)}
        self._sockets = [listen() for _ in TARGETS]
        self.pools = [self._pool(target) for target in TARGETS]
        self.webs = [
            self._web(target, sock.dup()) for target, sock in zip(TARGETS, self._sockets, strict=True)
        ]
        for pool in self.pools:
            pool.wait_until_ready()

    def ports(self, target):
        """Return where a target is served."""
        found = zip(TARGETS, self._sockets, strict=True)
        return [sock.getsockname()[1] for name, sock in found if name == target]

    def _pool(self, target):
        env = {**self._env, "SOAKED_TARGET": target}
        return Pool(APP, target, self._url, *POOL, env=env, cwd=APPS, wait=False)

    def _web(self, target, sock):
        env = {**self._env, "SOAKED_TARGET": target}
        return Gunicorn(APP, self._url, "--graceful-timeout", "5", env=env, cwd=APPS, sock=sock)

    def replace_pool(self, index, number):
        """End a pool by a signal, and start another one."""
        self.pools[index].stop(number)
        self.pools[index] = self._pool(TARGETS[index])

    def replace_web(self, index, number):
        """End a gunicorn by a signal, and start another one on its socket."""
        self.webs[index].stop(number)
        sock = self._sockets[index].dup()
        sock.set_inheritable(True)
        self.webs[index] = self._web(TARGETS[index], sock)

    def workers(self):
        """Return the worker processes."""
        return [worker for pool in self.pools for worker in pool.workers()]

    def close(self):
        for process in (*self.webs, *self.pools):
            process.stop()
        for sock in self._sockets:
            sock.close()
        if self.proxy:
            self.proxy.close()
        self.server.close()

    def save_logs(self, folder):
        """Write down what the last process of each part said, and the sentinels."""
        named = {f"web-{number}": web for number, web in enumerate(self.webs)}
        named |= {f"pool-{number}": pool for number, pool in enumerate(self.pools)}
        if self.watched:
            named |= {f"sentinel-{number}": one for number, one in enumerate(self.watched.sentinels)}
            named |= {f"redis-{number}": one for number, one in enumerate(self.watched.processes)}
        for name, process in named.items():
            (folder / f"{name}.log").write_text(process.output)


class Faults(threading.Thread):
    """Does one thing after the other to a site, until `stopped` is set; the site is whole after that."""

    def __init__(self, site, seed, stopped, history):
        super().__init__(name="faults")
        self.done = []
        self.errors = []
        self._site = site
        self._random = random.Random(seed)
        self._stopped = stopped
        self._history = history
        self._faults = {
            self.kill_worker: 6,
            self.freeze_worker: 3,
            self.kill_pool: 2,
            self.deploy_pool: 2,
            self.kill_web: 2,
            self.deploy_web: 2,
            self.reload_web: 2,
        }
        if site.watched:
            self._faults |= {self.fail_over: 4, self.freeze_primary: 1}
        else:
            self._faults |= {
                self.kill_redis: 2,
                self.freeze_redis: 2,
                self.cut_connections: 3,
                self.black_hole: 2,
                self.flap: 2,
            }

    def run(self):
        while not self._stopped.wait(self._random.uniform(0.5, 3)):
            fault = self._random.choices(list(self._faults), list(self._faults.values()))[0]
            began = time.monotonic()
            try:
                if fault() is False:
                    continue
            except Exception as error:  # noqa: BLE001 - the soak itself is at fault
                self.errors.append(f"{fault.__name__}: {error!r}")
            self.done.append(fault.__name__)
            self._history.note(None, fault.__name__, began=began)
            if self._site.proxy:
                self._site.proxy.clear()  # what it has recorded: gigabytes in an hour

    def kill_worker(self):
        """Kill a worker process, as the system does when memory is short."""
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            self._random.choice(self._site.workers()).kill()

    def freeze_worker(self):
        """Stop a worker process for longer than its lease, or shorter, and let it go on."""
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            worker = self._random.choice(self._site.workers())
            worker.suspend()
            time.sleep(self._random.uniform(0.5, 5))
            worker.resume()

    def kill_pool(self):
        self._site.replace_pool(self._random.randrange(len(TARGETS)), signal.SIGKILL)

    def deploy_pool(self):
        self._site.replace_pool(self._random.randrange(len(TARGETS)), signal.SIGTERM)

    def kill_web(self):
        self._site.replace_web(self._random.randrange(len(TARGETS)), signal.SIGKILL)

    def deploy_web(self):
        self._site.replace_web(self._random.randrange(len(TARGETS)), signal.SIGTERM)

    def reload_web(self):
        """Have a gunicorn replace its workers, as a deploy by HUP does."""
        web = self._site.webs[self._random.randrange(len(TARGETS))]
        # Before it has one its master may not know the signal yet, and be ended by it.
        old = until(lambda: {worker.pid for worker in web.workers()}, 60, "its first web process")
        web.popen.send_signal(signal.SIGHUP)
        until(lambda: {worker.pid for worker in web.workers()} - old, 60, "a new web process")

    def kill_redis(self):
        """Kill the server, and start it again from its append-only file."""
        self._site.server.stop(signal.SIGKILL)
        time.sleep(self._random.uniform(0, 2))
        self._site.server.start()

    def freeze_redis(self):
        process = psutil.Process(self._site.server.process.pid)
        process.suspend()
        time.sleep(self._random.uniform(0.5, 4))
        process.resume()

    def fail_over(self):
        """Kill the primary; its replica takes over, and has it as its own replica afterwards."""
        return self._site.watched.fail_over()

    def freeze_primary(self):
        """Stop the primary for less than it takes the sentinels to act."""
        watched = self._site.watched
        process = psutil.Process(watched.processes[watched.primary].pid)
        process.suspend()
        time.sleep(self._random.uniform(0.1, 0.6))
        process.resume()

    def flap(self):
        """Have the way to Redis fail and come back, again and again."""
        for _ in range(self._random.randrange(3, 8)):
            self._site.proxy.refuse()
            time.sleep(self._random.uniform(0.1, 0.8))
            self._site.proxy.heal()
            time.sleep(self._random.uniform(0.1, 0.8))

    def cut_connections(self):
        self._site.proxy.cut()

    def black_hole(self):
        """Let connections open and say nothing, as a firewall does."""
        self._site.proxy.black_hole()
        time.sleep(self._random.uniform(0.5, 4))
        self._site.proxy.heal()


def load():
    """Return how busy the machine is, for the report."""
    return os.getloadavg()[0]
