"""An app with an RQ queue and tasks of its own, which knows nothing of wsgi-timeout."""

import os

import redis
import rq
from flask import Flask

app = Flask(__name__)


def queue():
    return rq.Queue("exports", connection=redis.Redis.from_url(os.environ["REDIS_URL"]))


def export(rows):
    job = rq.get_current_job()
    for row in range(rows):
        job.meta["progress"] = 100 * (row + 1) // rows
        job.save_meta()
    return rows


@app.post("/exports")
def start():
    return {"id": queue().enqueue(export, 4).id}, 201


@app.get("/exports/<job_id>")
def look(job_id):
    job = queue().fetch_job(job_id)
    job.refresh()
    return {"status": str(getattr(job.get_status(), "value", job.get_status())), **job.get_meta()}
