"""Apps in which a worker's call goes to another process and back: the least that `--python` can cost.

`bare`: as many bytes there and back as `--python` sends; then the app runs in the worker.
`least`: the app runs in the other process, with nothing checked, interrupted or streamed.
"""

import io
import marshal
import os
import socket
import sys

from apps import noop

_THERE, _BACK = b"x" * 480, b"x" * 90
_ends = {}


def _connection(serve):
    """Return the socket to this process's child, which is forked with the first call."""
    if os.getpid() not in _ends:
        ours, theirs = socket.socketpair()
        if os.fork() == 0:
            ours.close()
            try:
                serve(theirs)
            finally:
                os._exit(0)
        theirs.close()
        _ends[os.getpid()] = ours
    return _ends[os.getpid()]


def _echo(connection):
    while connection.recv(32768):
        connection.sendall(_BACK)


def _run(connection):
    while call := connection.recv(32768):
        environ = {
            **marshal.loads(call),
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.version": (1, 0),
            "wsgi.multithread": False,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        heads = []
        chunks = noop(environ, lambda status, headers, _=None: heads.append((status, list(headers))))  # noqa: B023
        connection.sendall(marshal.dumps((*heads[-1], b"".join(chunks))))
        chunks.close()


def bare(environ, start_response):
    connection = _connection(_echo)
    connection.sendall(_THERE)
    connection.recv(32768)
    return noop(environ, start_response)


def least(environ, start_response):
    connection = _connection(_run)
    connection.sendall(marshal.dumps({key: value for key, value in environ.items() if type(value) is str}))
    status, headers, body = marshal.loads(connection.recv(32768))
    start_response(status, headers)
    return [body]
