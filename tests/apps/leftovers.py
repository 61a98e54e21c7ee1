"""A Flask app whose handlers, when they are interrupted, leave something behind in their process."""

import asyncio
import multiprocessing
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from asgiref.sync import async_to_sync
from flask import Flask, request

app = Flask(__name__)

LOCK = threading.Lock()
STATE = []


def note(tag):
    with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as runs:
        runs.write(f"{tag} {os.getpid()}\n")


def go_on(tag):
    while True:
        note(tag)
        time.sleep(0.05)


async def go_on_later(tag):
    while True:
        note(tag)
        await asyncio.sleep(0.05)


def hold_a_lock(tag):
    LOCK.acquire()
    go_on(tag)


def wait_for_a_thread(tag):
    thread = threading.Thread(target=go_on, args=(tag,))
    thread.start()
    thread.join()


def wait_for_a_pool_of_threads(tag):
    with ThreadPoolExecutor(1) as threads:
        threads.submit(go_on, tag).result()


def wait_for_a_process(tag):
    process = multiprocessing.get_context("fork").Process(target=go_on, args=(tag,))
    process.start()
    process.join()


def wait_for_a_program(tag):
    note(tag)
    subprocess.Popen(["/bin/sh", "-c", LOOP, tag]).wait()


def wait_for_a_coroutine(tag):
    async_to_sync(go_on_later)(tag)


LOOP = 'while :; do echo "$0 $$" >> "$RUNS_FILE"; sleep 0.05; done'


def detach_a_program(tag):
    os.system(f"nohup /bin/sh -c '{LOOP}' {tag} > /dev/null 2>&1 &")


def detach_a_session(tag):
    """Start a program in a session of its own, with next to nothing in its environment; its parent ends."""
    command = f"exec env -i RUNS_FILE=$RUNS_FILE setsid /bin/sh -c '{LOOP}' {tag} &"
    subprocess.run(["/bin/sh", "-c", command], check=True)


def detach_a_fork(tag, *, setsid=False):
    """Do as a daemon does that forks twice."""
    if child := os.fork():
        os.waitpid(child, 0)
        return
    if setsid:
        os.setsid()
    if os.fork() == 0:
        go_on(tag)
    os._exit(0)


def detach_a_daemon(tag):
    detach_a_fork(tag, setsid=True)


def detach_from_multiprocessing(tag):
    context = multiprocessing.get_context("fork")
    process = context.Process(target=detach_a_daemon, args=(tag,))
    process.start()
    process.join()


def detach_a_family(tag):
    """Detach a process that goes on starting others, which detach in their turn."""
    if os.fork():
        return
    os.setsid()
    while True:
        detach_a_program(tag)
        time.sleep(0.1)


DETACHING = {
    kind.__name__: kind
    for kind in (
        detach_a_program,
        detach_a_session,
        detach_a_fork,
        detach_a_daemon,
        detach_from_multiprocessing,
        detach_a_family,
    )
}


def detach_all(tag):
    """Detach one of each, with a tag of its own, and go on."""
    for name, kind in DETACHING.items():
        kind(f"{tag}-{name}")
    go_on(tag)


KINDS = {
    kind.__name__: kind
    for kind in (
        hold_a_lock,
        wait_for_a_thread,
        wait_for_a_pool_of_threads,
        wait_for_a_process,
        wait_for_a_program,
        wait_for_a_coroutine,
        detach_all,
    )
}


@app.get("/leave/<kind>")
def leave(kind):
    STATE.append("half done")
    KINDS[kind](request.args["tag"])
    return "never"


@app.get("/detach/<kind>")
def detach(kind):
    """Detach something, and end in peace."""
    DETACHING[kind](request.args["tag"])
    return {"pid": os.getpid()}


@app.get("/status-of-a-program")
def status_of_a_program():
    """Start a program, and ask for its exit code long after it has ended, and others that were detached."""
    program = subprocess.Popen(["/bin/sh", "-c", "exit 7"])
    for _ in range(20):
        os.system("/bin/true &")
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    code = program.wait()
    try:
        return {"code": code, "other": os.wait()}
    except ChildProcessError:
        return {"code": code, "other": None}


@app.get("/next")
def next_one():
    """Tell what the one before has left behind."""
    free = LOCK.acquire(timeout=5)
    LOCK.release()
    return {"free": free, "state": STATE, "threads": threading.active_count()}
