"""`redis+sentinel://` URLs: taken apart, or refused by name."""

import pytest
import redis

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.store import sentinels
from wsgi_timeout.store.connection import connect
from wsgi_timeout.store.redis_url import without_password


@pytest.mark.parametrize(
    ("url", "addresses", "service", "server_url"),
    [
        ("redis+sentinel://a:1,b:2/svc/3", (("a", 1), ("b", 2)), "svc", "redis://sentinels/3"),
        ("redis+sentinel://a/svc", (("a", 26379),), "svc", "redis://sentinels/0"),
        ("redis+sentinel://u:p@[::1]:5/s/0?x=1", (("::1", 5),), "s", "redis://u:p@sentinels/0?x=1"),
        ("rediss+sentinel://a:1/svc/0", (("a", 1),), "svc", "rediss://sentinels/0"),
    ],
)
def test_it_is_taken_apart(url, addresses, service, server_url):
    """Sentinels, service, and what is left for the server, with the user and password."""
    assert sentinels.parse(url) == sentinels.SentinelUrl(addresses, service, server_url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis+sentinel://a:1,b:2", "written redis\\+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB"),
        ("redis+sentinel://a:1/svc/db", "written redis"),
        ("redis+sentinel://a:x/svc/0", "'a:x' is no HOST:PORT"),
        ("redis+sentinel://a:1/svc/0?foo=1", "no option 'foo'"),
    ],
)
def test_a_wrong_one_is_refused(url, why):
    """One line says what is wrong."""
    with pytest.raises(ConfigurationError, match=why):
        connect(url, connections=1)


def test_no_password_of_it_is_shown():
    """Neither the servers' password nor the sentinels' stands in a log."""
    shown = without_password("redis+sentinel://:one@a:1/svc/0?sentinel_password=two&sentinel_username=me")
    assert "one" not in shown
    assert "two" not in shown


def test_sentinels_that_are_away():
    """Nobody who answers is a server that is away: it is waited for."""
    client = connect("redis+sentinel://127.0.0.1:1,127.0.0.1:2/svc/0", connections=1)
    with pytest.raises(redis.exceptions.ConnectionError, match="svc"):
        client.ping()
    client.close()
