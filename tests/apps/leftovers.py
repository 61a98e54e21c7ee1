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
    loop = 'while :; do echo "$0 $$" >> "$RUNS_FILE"; sleep 0.05; done'
    subprocess.Popen(["/bin/sh", "-c", loop, tag]).wait()


def wait_for_a_coroutine(tag):
    async_to_sync(go_on_later)(tag)


KINDS = {
    kind.__name__: kind
    for kind in (
        hold_a_lock,
        wait_for_a_thread,
        wait_for_a_pool_of_threads,
        wait_for_a_process,
        wait_for_a_program,
        wait_for_a_coroutine,
    )
}


@app.get("/leave/<kind>")
def leave(kind):
    STATE.append("half done")
    KINDS[kind](request.args["tag"])
    return "never"


@app.get("/next")
def next_one():
    """Tell what the one before has left behind."""
    free = LOCK.acquire(timeout=5)
    LOCK.release()
    return {"free": free, "state": STATE, "threads": threading.active_count()}
