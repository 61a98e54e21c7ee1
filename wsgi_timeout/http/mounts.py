"""Where the web functions of a stub are mounted: one alone at `/`, several under their labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wsgi_timeout.errors import NotFound
from wsgi_timeout.metrics import ROUTE_KEY
from wsgi_timeout.settings import Settings


@dataclass(frozen=True, slots=True)
class Mount:
    """How requests of one web function are run; see the settings of the same names."""

    wait_for_response: bool
    #: Seconds; None: as the setting says.
    timeout: float | None
    max_attempts: int | None

    def apply(self, settings: Settings) -> Settings:
        """Return this web function's settings; `wait_for_response=False` of the deployment stays in force."""
        wait = settings.wait_for_response and self.wait_for_response
        return settings.replace(
            wait_for_response=wait,
            timeout=self.timeout or settings.timeout,
            max_attempts=self.max_attempts or settings.max_attempts,
        )


class Mounts:
    """The web functions of one stub by label."""

    def __init__(self, by_label: Mapping[str, Mount]) -> None:
        self.by_label = dict(by_label)

    def find(self, environ: Mapping[str, Any]) -> tuple[str, Mount, dict[str, Any]]:
        """Return label and mount of a request, and the environ as the app there sees it.

        Raises `NotFound`.
        """
        if len(self.by_label) == 1:
            ((label, mount),) = self.by_label.items()
            return label, mount, {**environ, ROUTE_KEY: f"/{label}"}
        path = environ.get("PATH_INFO", "")
        label, slash, rest = path.removeprefix("/").partition("/")
        mount_there = self.by_label.get(label) if path.startswith("/") else None
        if mount_there is None:
            raise NotFound(f"nothing is mounted at {path!r}")
        below = {**environ, ROUTE_KEY: f"/{label}"}
        below["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + "/" + label
        below["PATH_INFO"] = slash + rest
        return label, mount_there, below

    def dumps(self) -> str:
        return json.dumps({label: asdict(mount) for label, mount in self.by_label.items()})

    @classmethod
    def loads(cls, text: str) -> Mounts:
        return cls({label: Mount(**fields) for label, fields in json.loads(text).items()})
