"""The commands that answer yes or no: doctor for a deployment, health for a pool."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict

import click
import redis

from wsgi_timeout.serving.command_parts import at_redis, json_option
from wsgi_timeout.serving.doctor import examine, exit_code
from wsgi_timeout.serving.probe import LONGEST_SECONDS
from wsgi_timeout.settings import Settings
from wsgi_timeout.store.worker_list import list_workers, renewed


@click.command("doctor")
@click.option("--public-url", default="", help="Ask our web process through the proxy, at this URL.")
@click.option(
    "--probe-seconds",
    type=click.FloatRange(0, LONGEST_SECONDS),
    help="How long a request through the public URL is held.  [default: as long as a wait, and 5 s]",
)
@json_option
def doctor_command(*, public_url: str, probe_seconds: float | None, as_json: bool) -> None:
    """Look for what is wrong with a deployment: Redis, workers, settings; 1 as exit code if something fails.

    Run it in the environment of the web process.
    """
    findings = []

    def work(client: redis.Redis) -> None:
        for finding in examine(client, os.environ, public_url, probe_seconds):
            findings.append(finding)
            line = f"{finding.verdict:<4}  {finding.check}: {finding.what}"
            line += f"; {finding.remedy}" if finding.remedy else ""
            click.echo(json.dumps(asdict(finding)) if as_json else line)

    at_redis(work)
    raise SystemExit(exit_code(findings))


@click.command("health")
@click.option("--name", help="Those of the queue wt:NAME.  [default: of every queue]")
def health_command(*, name: str | None) -> None:
    """Say whether the workers on this host are well: 0 as exit code if so, for a container's check.

    It looks until their leases are renewed, a third of lease_seconds, and gives up after all of it.
    """
    found = (0, 0)

    def work(client: redis.Redis) -> None:
        nonlocal found
        here = [worker for worker in list_workers(client, name) if worker.hostname == socket.gethostname()]
        found = renewed(client, here, Settings.load().lease_seconds)

    at_redis(work)
    well, live = found
    click.echo(f"{well} of {live} worker processes on this host are well")
    raise SystemExit(0 if well and well == live else 1)
