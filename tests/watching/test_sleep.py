"""How waiters sleep where threads are greenlets."""

import subprocess
import sys

import pytest

_SCRIPT = """
from gevent import monkey
monkey.patch_all()
import gevent, threading, time
from wsgi_timeout.watching.sleep import GreenletSleep, new_sleep

sleep = new_sleep()
assert isinstance(sleep, GreenletSleep)
assert not sleep.wait(0) and not sleep.wait(0.01)
sleep.wake()
assert sleep.wait(60) and not sleep.wait(0)
sleep.wake()
sleep.reset()
assert not sleep.wait(0.01)

woken = gevent.spawn(sleep.wait, 60)
gevent.sleep(0)
sleep.wake()
assert woken.get(timeout=60)

woken = gevent.spawn(sleep.wait, 60)
gevent.sleep(0)
gevent.get_hub().threadpool.apply(sleep.wake)
assert woken.get(timeout=60)

def twice():
    assert sleep.wait(60)
    began = time.monotonic()
    return sleep.wait(0.2) or time.monotonic() - began

woken = gevent.spawn(twice)
gevent.sleep(0)
sleep.wake()
sleep.wake()
assert 0.15 < woken.get(timeout=60) is not True
print("good")
"""


def test_greenlets_sleep_until_they_are_woken():
    """A wake ends a greenlet's sleep, also from a native thread, and one that came before; two are one."""
    pytest.importorskip("gevent")
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False)
    assert done.stdout == "good\n", done.stderr
