"""One function in ours and in other job queues, each as its users tune it: that of `BENCH_TASKS`.

Each side names `call()`, which runs the function in a worker and returns its result, and `many(count)`, which
spawns so many and then waits for all. `main` is the client: it reads "call COUNT" or "many COUNT"
from its input, and prints seconds: of a call in the middle, or of all; and for "scripts COUNT" what a `spawn`
takes over its script alone.
"""

import asyncio
import os
import statistics
import sys
import time

URL = os.environ["REDIS_URL"]
PATH = URL.removeprefix("unix://").partition("?")[0]
NAME = os.environ["BENCH_TASKS"]
WAIT_SECONDS = 60
#: Seconds between two looks, for those that look for a result or for work instead of being woken.
LOOK_SECONDS = 0.002
#: Coroutines that spawn at a time, where a client has an event loop.
AT_A_TIME = 16


def add(a, b):
    return a + b


if NAME == "ours":
    import wsgi_timeout
    from wsgi_timeout.functions.client import client
    from wsgi_timeout.store.connection import Commands

    stub = wsgi_timeout.Stub("tasks")
    ours = stub.function()(add)

    def spawn():
        return ours.spawn(1, 2)

    def result(call):
        return call.get(timeout=WAIT_SECONDS)

elif NAME == "rq.SimpleWorker":
    import redis
    import rq

    queue = rq.Queue("tasks", connection=redis.Redis.from_url(URL, socket_timeout=WAIT_SECONDS))

    def spawn():
        return queue.enqueue("tasks.add", 1, 2, result_ttl=60)

    def result(job):
        return job.latest_result(timeout=WAIT_SECONDS).return_value

elif NAME == "Celery":
    import celery

    over = URL.replace("unix://", "redis+socket://")
    celery_app = celery.Celery("tasks", broker=over, backend=over)
    celery_app.conf.update(
        broker_transport_options={"global_keyprefix": "celery:"},
        worker_prefetch_multiplier=16,
        result_expires=60,
        broker_connection_retry_on_startup=True,
    )
    celery_add = celery_app.task(name="tasks.add")(add)

    def spawn():
        return celery_add.delay(1, 2)

    def result(task):
        return task.get(timeout=WAIT_SECONDS)

elif NAME == "Dramatiq":
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend

    broker = RedisBroker(url=URL, namespace="dramatiq")
    broker.add_middleware(Results(backend=RedisBackend(url=URL), result_ttl=60_000))
    dramatiq.set_broker(broker)
    dramatiq_add = dramatiq.actor(store_results=True)(add)

    def spawn():
        return dramatiq_add.send(1, 2)

    def result(message):
        return message.get_result(block=True, timeout=WAIT_SECONDS * 1000)

elif NAME == "Huey":
    import huey

    huey_app = huey.RedisHuey("tasks", url=URL, blocking=True, notify_result=True)
    huey_add = huey_app.task()(add)

    def spawn():
        return huey_add(1, 2)

    def result(task):
        return task.get(blocking=True, timeout=WAIT_SECONDS)

elif NAME == "taskiq":
    from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

    taskiq_broker = ListQueueBroker(URL).with_result_backend(RedisAsyncResultBackend(URL, result_ex_time=60))

    @taskiq_broker.task(task_name="add")
    async def taskiq_add(a, b):
        return a + b

    async def start():
        await taskiq_broker.startup()

    async def spawn():
        return await taskiq_add.kiq(1, 2)

    async def result(task):
        found = await task.wait_result(check_interval=LOOK_SECONDS, timeout=WAIT_SECONDS)
        return found.return_value

elif NAME == "arq":
    import arq

    settings = arq.connections.RedisSettings(unix_socket_path=PATH)
    arq_client = None

    async def arq_add(_context, a, b):
        return a + b

    class ArqWorker:
        functions = (arq_add,)
        redis_settings = settings
        poll_delay = LOOK_SECONDS
        keep_result = 60

    async def start():
        global arq_client  # noqa: PLW0603 - made in the loop that uses it
        arq_client = await arq.create_pool(settings)

    async def spawn():
        return await arq_client.enqueue_job("arq_add", 1, 2)

    async def result(job):
        return await job.result(timeout=WAIT_SECONDS, poll_delay=LOOK_SECONDS)


def call():
    assert result(spawn()) == 3


def many(count):
    assert all(result(one) == 3 for one in [spawn() for _ in range(count)])


def scripts(count):
    """Return the seconds of a `spawn` over those of a bare EVALSHA with the same words, in turns."""
    spawn().get()
    scripts = client().calls(ours._queue()).scripts  # noqa: SLF001 - what is measured
    send, bare = scripts._send, Commands(client().redis).send  # noqa: SLF001
    spawned, evaluated, words = [], [], []

    def note(*sent):
        words[:] = sent
        return b"accepted"

    for _ in range(count):
        started = time.perf_counter()
        first = spawn()
        spawned.append(timed(started))
        first.get()
        scripts._send = note  # noqa: SLF001
        second = spawn()
        scripts._send = send  # noqa: SLF001
        started = time.perf_counter()
        assert bare(*words) == b"accepted"
        evaluated.append(timed(started))
        second.get()
    return statistics.median(spawned) / statistics.median(evaluated)


async def call_async():
    assert await result(await spawn()) == 3


async def many_async(count):
    async def some():
        return [await result(one) for one in [await spawn() for _ in range(count // AT_A_TIME)]]

    found = await asyncio.gather(*(some() for _ in range(AT_A_TIME)))
    assert all(one == 3 for each in found for one in each)


def timed(started):
    return time.perf_counter() - started


async def one_async(what, count):
    if what == "many":
        started = time.perf_counter()
        await many_async(count)
        return timed(started)
    times = []
    for _ in range(count):
        started = time.perf_counter()
        await call_async()
        times.append(timed(started))
    return statistics.median(times)


def one(what, count):
    if what == "scripts":
        return scripts(count)
    if what == "many":
        started = time.perf_counter()
        many(count)
        return timed(started)
    times = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        times.append(timed(started))
    return statistics.median(times)


def main():
    if "start" in globals():
        loop = asyncio.new_event_loop()
        loop.run_until_complete(start())

        def run(what, count):
            return loop.run_until_complete(one_async(what, count))
    else:
        run = one
    for line in sys.stdin:
        what, count = line.split()
        print(run(what, int(count)), flush=True)
