"""Turns at Redis: so many at a time, in order of arrival, for threads and for greenlets."""

import subprocess
import sys
import threading

import pytest
from harness import until

from wsgi_timeout.front.turns import Turn, Turns

_CROWD = """
import sys
if sys.argv[1] == "gevent":
    from gevent import monkey
    monkey.patch_all()
import threading, time
from wsgi_timeout.front.turns import Turn, Turns, apart

turns, lock, now, most, done = Turns(3), threading.Lock(), 0, 0, 0

def work(number):
    global now, most, done
    with lock:
        now += 1
        most = max(most, now)
    time.sleep(0.001)
    with lock:
        now -= 1
        done += 1
    if number % 7 == 0:
        raise ValueError(number)
    return number

def ask(number):
    try:
        assert apart(work, (number,), Turn(turns)) == number
    except ValueError as error:
        assert error.args == (number,)

threads = [threading.Thread(target=ask, args=(number,)) for number in range(200)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(most, done, now)
"""


@pytest.mark.parametrize("kind", ["threads", "gevent"])
def test_so_many_at_a_time(kind):
    """Of many callers three at a time have a turn, also where some raise, and each gets its own answer."""
    pytest.importorskip("gevent")
    command = [sys.executable, "-c", _CROWD, kind]
    output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    most, done, left = map(int, output.split())
    assert most <= 3
    assert (done, left) == (200, 0)


def test_who_comes_first_is_first():
    """A turn that is given back goes to who waits longest."""
    turns, order, threads = Turns(1), [], []
    turns.acquire()

    def wait(number):
        turns.acquire()
        order.append(number)
        turns.release()

    for number in range(5):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        until(lambda number=number: len(turns._line) > number, 60, "the next one in line")
    turns.release()
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_who_gives_up_takes_none():
    """A wait that is over takes no turn from those behind it."""
    turns = Turns(1)
    turns.acquire()
    assert not turns.acquire(timeout=0.01)
    turns.release()
    assert turns.acquire(timeout=0)
    assert not turns.acquire(timeout=0)


def test_a_turn_is_given_back_once():
    """A turn that was taken early is the request's own, and is given back once."""
    turns = Turns(1)
    turn = Turn(turns)
    turn.take()
    turn.take()
    turn.give_back()
    turn.give_back()
    assert turns.acquire(timeout=0)
    assert not turns.acquire(timeout=0)
