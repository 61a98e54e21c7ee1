"""What Redis answers when it does not do what it was told: away, refused, or a bug, whatever its words."""

import pytest
import redis
from halves import BothHalves
from harness import RedisServer, until

from wsgi_timeout.errors import RedisUnavailable
from wsgi_timeout.store.connection import Commands, connect
from wsgi_timeout.store.redis_errors import AWAY, Parser, Refused, is_bug, unavailable_is_refusal

REFUSALS = [
    "OOM command not allowed when used memory > 'maxmemory'.",
    "OOM command not allowed when used memory > 'maxmemory'. script: 1b2, on @user_script:3.",
    "ERR Error running script (call to f_1b2): @user_script:3: @user_script: 3: -OOM command not allowed",
    "ERR Error running script (call to f_1b2): @user_script:3: -READONLY You can't write",
    "READONLY You can't write against a read only replica.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "NOREPLICAS Not enough good replicas to write.",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "NOPERM User default has no permissions to run the 'evalsha' command",
    "NOPERM this user has no permissions to run the 'hset' command",
    "ERR The user executing the script can't run this command or subcommand script: 1b2, on @user_script:3.",
    "ACL failure in script: User default has no permissions to run the 'hset' command script: 1b2",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN The cluster is down",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "MOVED 3999 127.0.0.1:6381",
    "INPROG Failover already in progress",
    "SOMETHINGNEW that no server says yet",
]
BUGS = [
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "WRONGTYPE Operation against a key holding the wrong kind of value script: 1b2, on @user_script:3.",
    "ERR Error running script (call to f_1b2): @user_script:3: WRONGTYPE Operation against a key",
    "ERR user_script:3: attempt to compare nil with number script: 1b2, on @user_script:3.",
    "ERR Error running script (call to f_1b2): @user_script:3: user_script:3: attempt to index a nil value",
    "ERR value is not an integer or out of range",
    "ERR hash value is not an integer",
    "ERR unknown command 'FOO', with args beginning with: ",
    "ERR wrong number of arguments for 'get' command",
    "ERR syntax error",
    "ERR invalid expire time in 'expire' command",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_what_may_be_repeated_is_a_refusal(text):
    """A refusal is told in the words of every server, and so is one in words that are not known yet."""
    assert not is_bug(text)
    assert isinstance(Parser(1024).parse_error(text), Refused)
    with pytest.raises(RedisUnavailable), unavailable_is_refusal():
        raise Parser(1024).parse_error(text)


@pytest.mark.parametrize("text", BUGS)
def test_what_no_repetition_mends_is_a_bug(text):
    """A wrong type, a wrong command and an error of a script are not taken for a server that refuses."""
    assert is_bug(text)
    error = Parser(1024).parse_error(text)
    assert isinstance(error, redis.exceptions.ResponseError)
    assert not isinstance(error, Refused)


@pytest.mark.parametrize(
    "text",
    ["LOADING Redis is loading the dataset in memory", "NOAUTH Authentication required.", "WRONGPASS no"],
)
def test_a_server_that_loads_or_knows_no_password_is_away(text):
    """They are asked again later, as one that cannot be reached."""
    assert isinstance(Parser(1024).parse_error(text), AWAY)


def test_a_missing_script_is_sent_again_whole(redis_server):
    """A server that loses its scripts between any two commands runs them all the same."""
    client = connect(redis_server.url + "?db=1", connections=1)
    plain = Commands(client).send

    def send(*words):
        redis_server.client.script_flush()
        return plain(*words)

    calls = BothHalves(client, "flushed", send)
    assert calls.workers.renew(["nobody"]) == ["nobody"]
    client.close()


@pytest.fixture
def servers():
    pair = RedisServer(), RedisServer()
    yield pair
    for server in pair:
        server.close()


def test_all_connections_leave_a_server_that_became_a_replica(servers, tmp_path):
    """When one connection is told, the others connect anew, one that listens too: the name is looked up."""
    old, new = servers
    name = tmp_path / "name.sock"
    name.symlink_to(old.socket)
    client = connect(f"unix://{name}", connections=3)
    listens = client.pubsub(ignore_subscribe_messages=True)
    listens.subscribe("channel")
    first, second = Commands(client), Commands(client)
    first.send("SET", "key", "old")
    name.unlink()
    name.symlink_to(new.socket)
    old.client.replicaof("127.0.0.1", 1)
    with pytest.raises(Refused):
        first.send("SET", "key", "lost")
    second.send("SET", "key", "new")
    assert new.client.get("key") == b"new"
    until(lambda: (listens.get_message(), new.client.publish("channel", "x"))[1], what="a listener")
    listens.close()
    client.close()


def test_a_queue_tells_whether_its_server_answers(redis_server):
    """A refused PING is an answer; a server that is gone gives none."""
    calls = BothHalves(connect(redis_server.url, connections=1), "answers")
    assert calls.answers()
    calls.redis.close()
    gone = BothHalves(connect("redis://127.0.0.1:1/0", connections=1), "answers")
    assert not gone.answers()
    gone.redis.close()
