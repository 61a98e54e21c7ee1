"""Both halves of the call record in one value, for tests that play client, worker and pool at once."""

from functools import cached_property

from wsgi_timeout.store.attempts import Attempts
from wsgi_timeout.store.calls import Calls
from wsgi_timeout.store.workers import Workers


class BothHalves(Calls):
    """The calls of one name, with what a worker and a pool do to them."""

    @cached_property
    def attempts(self):
        return Attempts.of(self)

    @cached_property
    def workers(self):
        return Workers.of(self)
