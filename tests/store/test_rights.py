"""A Redis user with the rights that docs/reliability.md asks for, and no more."""

import threading

import pytest
from harness import ask, follow, function_workers, joined, until

from wsgi_timeout.functions.client import client

USER, PASSWORD = "plain", "any"
BODY = bytes(range(256)) * 4000

pytestmark = pytest.mark.usefixtures("nothing_is_left")


class Limited:
    """The tests' server as that user sees it."""

    def __init__(self, server):
        self.client = server.client
        self.url = server.url.replace("://", f"://{USER}:{PASSWORD}@")


@pytest.fixture(scope="module")
def limited(redis_server):
    redis_server.client.acl_setuser(
        USER,
        enabled=True,
        passwords=[f"+{PASSWORD}"],
        keys=["wt:*", "rq:*"],
        channels=["rq:*"],
        commands=["+@all", "-@dangerous", "-@admin"],
    )
    return Limited(redis_server)


def test_requests(limited, deploy):
    """With few rights requests, redirects and large bodies pass as ever; nobody calls Redis away."""
    site = deploy(server=limited, wait_seconds=0.5, worker_wait=20, buffer=300_000)
    answers = follow(site.web.port, "/slow?seconds=1.5&tag=slow")
    assert len(answers) > 1
    assert answers[-1].text == "slow GET slow 0\n"
    assert follow(site.web.port, "/mirror?tag=large", "POST", body=BODY)[-1].body == BODY
    assert ask(site.web.port, "/fast").status == 200
    assert "Redis is away" not in site.web.output + site.pool.output


@pytest.fixture(scope="module")
def refused(limited, deploy):
    """A site whose user may lose a right for a moment."""
    return deploy(server=limited, pool=("--processes", "2"), wait_seconds=2, worker_wait=1)


@pytest.mark.slow
@pytest.mark.parametrize("right", ["hmget", "hget", "hset", "blmove", "exists"])
def test_a_right_that_is_refused_for_a_moment_loses_nothing(limited, refused, right):
    """A command that Redis refuses is no missing key: what was accepted runs, once, the rest was told 503."""
    answers = {}

    def post(tag):
        answers[tag] = follow(refused.web.port, f"/slow?seconds=0.2&tag={tag}", "POST", timeout=60)[-1].status

    limited.client.execute_command("ACL", "SETUSER", USER, f"-{right}")
    senders = [threading.Thread(target=post, args=(f"{right}-{number}",)) for number in range(3)]
    try:
        for sender in senders:
            sender.start()
        answers["meanwhile"] = ask(refused.web.port, "/fast?tag=meanwhile").status
    finally:
        limited.client.execute_command("ACL", "SETUSER", USER, f"+{right}")
    for sender in senders:
        sender.join(60)
    until(lambda: ask(refused.web.port, "/fast").status == 200, 60, "an answer")
    assert answers.pop("meanwhile") in {200, 303, 503}
    assert len(answers) == len(senders)
    for tag, status in answers.items():
        assert (status, len(refused.runs(tag))) in {(200, 1), (503, 0)}, tag


@pytest.mark.slow
def test_functions(limited, deploy):
    """The same for functions, with large arguments and results."""
    site = deploy("spawned:stub", server=limited, secret="any", worker_wait=20)
    until(lambda: function_workers(limited, site.name) >= 1, 20, "the process for functions")
    with joined(limited.url, site.name, site.env):
        import spawned

        assert spawned.mirror.spawn("large", BODY).get(timeout=20)[-1000:] == BODY[-1000:]
        client().redis.close()
