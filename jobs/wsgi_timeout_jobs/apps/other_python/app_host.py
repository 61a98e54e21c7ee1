"""Runs a WSGI app under an interpreter that has nothing of wsgi-timeout installed.

A worker process starts it (`process.py` in this folder) and speaks with it over socket pairs, one for
each thread; the frames are listed in `frames.py`. It is a program of its own: CPython 2.7 and 3.6 to 3.14,
the standard library and the files of its folder only, nothing else is imported before the app.
"""

import atexit
import fcntl
import os
import signal
import socket
import sys
import threading
import traceback

from app_host_connection import Connection, text_of
from app_host_parts import (
    INTERRUPT,
    SIGNALS,
    FileWrapper,
    Interrupts,
    forked_children_take_signals,
    leave,
    pack,
)
from app_host_target import TargetError, Watch, load, own_front_of


class Host(object):  # noqa: UP004
    """This process."""

    def __init__(self, target, descriptors, reports, reload):
        self.pid = os.getpid()
        self.target = target
        self.threads = len(descriptors)
        self.interrupts = Interrupts()
        self.in_every_environ = {
            "wsgi.version": (1, 0),
            "wsgi.input_terminated": True,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.multithread": self.threads > 1,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi_timeout.in_place": True,
        }
        self.connections = [Connection(self, descriptor) for descriptor in descriptors]
        self.reports = socket.fromfd(reports, socket.AF_UNIX, socket.SOCK_DGRAM)
        self.reports.setblocking(False)
        self.watch = Watch() if reload else None
        self.app = None
        #: What the app's own `RequestTimeouts` stands before, if it has one.
        self.inner = None

    def run(self):
        for number in SIGNALS:  # the worker decides when to stop; not SIG_IGN, which children inherit
            signal.signal(number, self.interrupts.ignore)
        forked_children_take_signals()
        if not self.load():
            return 3
        for number in SIGNALS:  # again: the app may have set others while it was imported
            signal.signal(number, self.interrupts.ignore)
        if self.threads == 1:
            signal.signal(INTERRUPT, self.interrupts.handle)
            self.connections[0].serve()
        else:
            self.serve_in_threads()
        return 0

    def load(self):
        first = self.connections[0]
        try:
            self.app = load(self.target)
        except TargetError as error:
            first.send(b"F", pack(["target", str(error), error.hint, error.about]))
            return False
        except:  # noqa: E722
            traceback.print_exc()
            first.send(b"F", pack(["raised", text_of(sys.exc_info()[1])]))
            if self.watch:
                self.watch.note(*sys.exc_info()[1:])
                self.watch.wait()
            return False
        if self.watch:
            self.start(self.watch.run)
        own_front = own_front_of(self.app)
        self.inner = getattr(own_front, "inner", None)
        told = [own_front.name, "1" if own_front.configured else ""] if own_front else []
        first.send(b"R", pack([sys.version.split()[0]] + told))
        return True

    def serve_in_threads(self):
        threads = [self.start(connection.serve) for connection in self.connections]
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(1)  # with a limit: Python 2 runs no signal handler else

    @staticmethod
    def start(work):
        thread = threading.Thread(target=work)
        thread.daemon = True
        thread.start()
        return thread


def main():
    """Run as `app_host.py TARGET RELOAD REPORTS DESCRIPTOR ...`."""
    target, reload = sys.argv[1], sys.argv[2] == "reload"
    descriptors = [int(word) for word in sys.argv[3:]]
    for descriptor in descriptors:
        fcntl.fcntl(descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    del sys.path[0]  # this file's folder
    # Else multiprocessing would run this file in the processes that it spawns.
    sys.modules["__main__"].__dict__.pop("__file__", None)
    sys.argv[:] = ["wsgi-timeout", "worker", target]
    code = Host(target, descriptors[1:], descriptors[0], reload).run()
    atexit._run_exitfuncs()  # noqa: SLF001 - no thread of the app is waited for, as in a worker
    leave(code)


if __name__ == "__main__":
    main()
