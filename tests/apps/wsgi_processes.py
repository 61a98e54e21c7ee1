"""Handlers that use their process as scripts do: children, signals, timers, event loops."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

from wsgi_timeout import Stub, wsgi_app

DOES = {}
stub = Stub("processes")


def does(handler):
    DOES[f"/{handler.__name__.replace('_', '-')}"] = handler
    return handler


def app(environ, start_response):
    body = DOES[environ["PATH_INFO"]]()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return body if isinstance(body, list) else [f"{body}\n".encode()]


class Gone(Exception):
    """What a child raises that leaves its handler."""


def forked(leave):
    """Return how a child ended that left its handler so."""
    child = os.fork()
    if child == 0:
        return leave()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def gone():
    raise Gone


@does
def child_exits():
    return forked(lambda: sys.exit(3))


@does
def child_exits_with_words():
    return forked(lambda: sys.exit("some words"))


@does
def child_raises():
    return forked(gone)


@does
def child_returns():
    return forked(lambda: "never seen")


@does
def child_streams():
    return forked(lambda: [b"never ", b"seen ", b"x" * 100_000])


@does
def child_ends():
    """End the child as os.fork's documentation has it."""
    return forked(lambda: os._exit(5))


@does
def multiprocesses():
    queue = multiprocessing.Queue()
    child = multiprocessing.Process(target=queue.put, args=("from a child",))
    child.start()
    said = queue.get(timeout=10)
    child.join()
    return f"{said} {child.exitcode}"


@does
def pool_of_processes():
    with multiprocessing.Pool(2) as pool:
        return str(pool.map(abs, [-1, -2]))


@does
def terminates_a_child():
    child = multiprocessing.Process(target=time.sleep, args=(30,))
    child.start()
    child.terminate()
    child.join(10)
    return child.exitcode


@does
def interrupts_a_program():
    """Start a program, and end it as Ctrl-C does."""
    with subprocess.Popen(["sleep", "30"]) as program:
        program.send_signal(signal.SIGINT)
        return program.wait(10)


@does
def user_signal_to_a_program():
    with subprocess.Popen(["sleep", "30"]) as program:
        program.send_signal(signal.SIGUSR2)
        return program.wait(10)


@does
def event_loop():
    async def main():
        program = await asyncio.create_subprocess_exec("echo", "hi", stdout=subprocess.PIPE)
        return (await program.communicate())[0]

    return asyncio.run(main())


@does
def alarm():
    """Have a timer go off within a wait."""
    rang = threading.Event()
    before = signal.signal(signal.SIGALRM, lambda *_: rang.set())
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(0.1)
    signal.signal(signal.SIGALRM, before)
    return rang.is_set()


@does
def thread_exits():
    """Have a thread call sys.exit, which ends the thread alone."""
    thread = threading.Thread(target=sys.exit, args=(1,))
    thread.start()
    thread.join()
    return thread.is_alive()


# -- the same in functions of a stub


@stub.function()
def forks(path):
    return DOES[path]()


def asks(environ, start_response):
    """Have the function do what the path says, and tell what it returned."""
    body = str(forks.remote(environ["PATH_INFO"])).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


@stub.function()
@wsgi_app()
def web():
    return asks
