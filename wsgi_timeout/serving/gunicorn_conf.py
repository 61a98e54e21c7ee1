"""The web deployment, as a gunicorn configuration.

gunicorn -c python:wsgi_timeout.gunicorn_conf 'wsgi_timeout:gateway("legacy:app")'
"""

from __future__ import annotations

import fcntl
import os
from typing import Any

from gunicorn.systemd import SD_LISTEN_FDS_START

from wsgi_timeout.serving.gunicorn_threads import limits
from wsgi_timeout.settings import BIND_VARIABLE, RESERVE_THREADS, Settings
from wsgi_timeout.watching.exposition import make_folder, remove_folder

_settings = Settings.load()

# Where to listen; Heroku and its like give the port.
bind = os.environ.get(BIND_VARIABLE) or (
    f"0.0.0.0:{os.environ['PORT']}" if "PORT" in os.environ else "127.0.0.1:8000"
)
# A waiting request costs a thread, not a process: more processes only for more CPU.
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
# gthread, with a drain at a stop, and without waits for slow clients in its main thread.
worker_class = "wsgi_timeout.gunicorn_worker.ThreadWorker"
# One for each request that may wait, as many for redirected requests of a process that was replaced, and some
# for requests that do not wait. A thread is started when it is needed.
threads = 2 * _settings.max_waiting + RESERVE_THREADS
# Connections that are open at once: every waiter's, and idle ones kept alive.
worker_connections = max(1000, 2 * threads)
# In gthread a heartbeat of the process, no limit on a request: the wait's limit is `wait_seconds`.
timeout = 30
# A stopping process answers its waiters within a second; downloads may go on for this long.
graceful_timeout = 30 + int(_settings.drain_delay)
# Longer than the pause of a client between two hops.
keepalive = 5
# Streams of one HTTP/2 connection would wait for each other.
http_protocols = "h1"
# Its socket could be used to stop us; nothing here needs it.
control_socket_disable = True
# Result URLs are secrets: a filter for what gunicorn itself logs.
logger_class = "wsgi_timeout.gunicorn_worker.Logger"
# gunicorn's own format shows queries and referrers; %(L)s is how long a request waited.
access_log_format = '%(h)s %(t)s "%(m)s %(U)s %(H)s" %(s)s %(b)s %(L)ss %({wsgi_timeout.call_id}e)s'
# gunicorn writes none by default; only this log shows which requests were redirected, and how often.
accesslog = "-"
# gunicorn's own limit, and room for the parameters that we add to a result URL.
limit_request_line = 4094 + 128
# Heartbeat files on a disk can block a process; memory cannot.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108, PTH112


if _settings.metrics_path:
    make_folder()


def on_exit(_server: Any) -> None:
    """Remove what processes have counted (a hook of gunicorn's)."""
    remove_folder()


def on_starting(server: Any) -> None:
    """Say once what an old gunicorn cannot do (a hook of gunicorn's)."""
    if told := limits():
        server.log.warning(told)


def pre_exec(server: Any) -> None:
    """Put sockets that systemd opened where a new master looks for them, at USR2 (a hook of gunicorn's)."""
    if not server.systemd:
        return
    # gunicorn has moved them, and passes on their number alone.
    copies = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, 64) for each in server.LISTENERS]
    for place, copy in enumerate(copies, SD_LISTEN_FDS_START):
        os.dup2(copy, place)
        os.close(copy)
