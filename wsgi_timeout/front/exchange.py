"""One request on its way through the stages of the front."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsgi_timeout.front.process import Runtime
from wsgi_timeout.http import urls
from wsgi_timeout.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, with all that a stage needs to answer it."""

    runtime: Runtime
    #: The settings of its route.
    settings: Settings
    environ: dict[str, Any]
    start_response: StartResponse

    @property
    def method(self) -> str:
        method: str = self.environ["REQUEST_METHOD"]
        return method

    def own_url(self) -> str:
        """Return the request's own URL, path-absolute, without our parameters."""
        return urls.clean_url(self.environ, self.settings.trusted_proxies)
