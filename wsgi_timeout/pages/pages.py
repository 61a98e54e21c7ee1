"""Renders a page with the user's template, or with ours if there is none or it fails."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader
from jinja2.exceptions import TemplateNotFound

from wsgi_timeout.pages.assets import Assets
from wsgi_timeout.pages.texts import Catalogue, Texts

log = logging.getLogger("wsgi_timeout")


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the waiting page shows (`page` in the template `waiting.html`)."""

    #: The requested path, for people to read.
    what: str
    #: "queued", "running", or "" while Redis is away.
    state: str
    #: Seconds since the request was accepted.
    elapsed: int
    status_url: str
    #: The page goes there when the response is ready; without JavaScript it goes there repeatedly.
    result_url: str
    #: The position in the queue, from 1; None if the call is not queued.
    position: int | None = None
    #: An operator has the workers take no calls for a while: it is queued.
    paused: bool = False
    #: The handler's progress, from 0 to 1; None if it reports none.
    part: float | None = None
    message: str = ""
    #: Tell the person to keep the address: the call was made with `wait_for_response=False`.
    keep: bool = False
    #: The browser waits for several calls at this address: a reloaded tab finds its own call again.
    several: bool = False
    stylesheet: str = ""
    script: str = ""

    @property
    def percent(self) -> str:
        return "" if self.part is None else f"{int(100 * self.part)} %"

    @property
    def clock(self) -> str:
        minutes, seconds = divmod(self.elapsed, 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@dataclass(frozen=True, slots=True)
class Way:
    """A link that a page offers; its text is the catalogue's text `label`."""

    label: str
    url: str
    #: Leads to the previous page in the browser's history, if there is one.
    back: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """What all other pages show (`page` in the template `message.html`)."""

    title: str
    text: str
    ways: tuple[Way, ...] = ()
    #: The reference number of the log line with the reason; empty if there is none.
    reference: str = ""
    stylesheet: str = ""
    #: The URL of the script that makes links with `data-back` go back; empty if there is no such link.
    script: str = ""


def folders(templates: str, *others: Path | None) -> list[Path]:
    """Return the user's folders: that of the setting, and `wsgi_timeout/` in the `others` that have it."""
    found = [Path(templates)] if templates else []
    if found and not found[0].is_dir():
        log.error("templates=%r: there is no such folder, our own pages are shown", templates)
    found += [folder / "wsgi_timeout" for folder in others if folder is not None]
    return [folder for folder in found if folder.is_dir()]


class Pages:
    """The pages of one front."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        """Read the user's templates, texts and `theme.css`; the first folder that has a file wins."""
        self.assets = Assets(folders)
        self._catalogue = Catalogue(folders)
        ours = PackageLoader("wsgi_timeout", "pages/templates")
        self._ours = Environment(loader=ours, autoescape=True)
        self._users = self._ours
        if folders:
            theirs = FileSystemLoader([str(folder) for folder in folders])
            self._users = Environment(loader=ChoiceLoader([theirs, ours]), autoescape=True)

    def texts(self, accept_language: str) -> Texts:
        return self._catalogue.choose(accept_language)

    def waiting(self, texts: Texts, **shown: Any) -> bytes:
        """Return the waiting page; `shown` are fields of `Waiting`."""
        page = Waiting(stylesheet=self.assets.url("page.css"), script=self.assets.url("waiting.js"), **shown)
        return self._render("waiting.html", page, texts)

    def message(
        self, texts: Texts, kind: str, *, ways: Sequence[Way] = (), reference: str = "", **values: str
    ) -> bytes:
        """Return the page for `kind`, a key of the catalogue; `values` are inserted into its text."""
        title, text = getattr(texts, kind)
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", value)
        links = tuple(replace(way, label=getattr(texts, way.label)) for way in ways)
        script = self.assets.url("back.js") if any(way.back for way in links) else ""
        page = Message(title, text, links, reference, self.assets.url("page.css"), script)
        return self._render("message.html", page, texts)

    def _render(self, template: str, page: Waiting | Message, texts: Texts) -> bytes:
        if self._users is not self._ours:
            try:
                return self._users.get_template(template).render(page=page, t=texts).encode()
            except TemplateNotFound as error:
                log.error("template %s: %s was not found, our own page is shown", template, error)
            except Exception:  # a broken template of the user's must not cost a result
                log.exception("template %s failed, our own page is shown", template)
        return self._ours.get_template(template).render(page=page, t=texts).encode()
