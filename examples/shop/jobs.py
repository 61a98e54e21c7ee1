"""The shop's background jobs, of the time before it ran behind anything else.

Its worker: `rq worker --url "$REDIS_URL" shop-mail`, in this folder.
"""

import os

from redis import Redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job

connection = Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
queue = Queue("shop-mail", connection=connection)


def enqueue(function, *args):
    return queue.enqueue(function, *args, job_timeout=60, result_ttl=3600)


def status(job_id):
    try:
        return Job.fetch(job_id, connection=connection).get_status().value
    except NoSuchJobError:
        return "forgotten"
