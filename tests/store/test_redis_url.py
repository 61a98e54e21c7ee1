"""`REDIS_URL` as other libraries write it: understood, or refused by name."""

import pytest

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.store.connection import connect
from wsgi_timeout.store.redis_url import check_server, understood


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("valkey://:secret@host:6379/1", "redis://:secret@host:6379/1"),
        ("valkeys://host", "rediss://host"),
        ("rediss://host/0?ssl_cert_reqs=CERT_NONE", "rediss://host/0?ssl_cert_reqs=none"),
        ("redis://host/0?max_connections=1&decode_responses=False", "redis://host/0"),
    ],
)
def test_what_others_write_is_understood(written, meant):
    """Valkey's schemes, Celery's certificates, and options that are for other clients."""
    assert understood(written) == meant
    connect(written, connections=1).close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://host/0?decode_responses=True", "decode_responses"),
        ("redis://host/0?foo=1", "no option 'foo'"),
        ("http://host", "redis://"),
        ("redis://host/abc", "the database is a number, not 'abc'"),
        ("redis://host/0?protocol=9", "protocol"),
    ],
)
def test_what_cannot_work_is_refused_by_name(url, why):
    """An option that breaks us, or that redis-py does not know, and another scheme."""
    with pytest.raises(ConfigurationError, match=why):
        connect(url, connections=1)


def test_a_database_that_is_not_there(redis_server):
    """A server that can never serve us is told from one that is away."""
    url = redis_server.url + "?db=99"
    client = connect(url, connections=1)
    with pytest.raises(ConfigurationError, match="DB index is out of range"):
        check_server(client, url)
    client.close()
    away = connect("redis://127.0.0.1:1/0", connections=1)
    check_server(away, "redis://127.0.0.1:1/0")
    away.close()
