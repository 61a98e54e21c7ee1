"""The catalogue of texts: one JSON file for each language, chosen by `Accept-Language`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

log = logging.getLogger("wsgi_timeout")

DEFAULT = "en"
#: The texts that the script of the waiting page inserts.
_SCRIPT = ("running", "queued", "paused", "ready", "opening", "place", "offline")


class Texts:
    """The texts of one language; templates write `texts.cancel` and the like."""

    def __init__(self, texts: Mapping[str, Any]) -> None:
        self._texts = texts

    def __getattr__(self, name: str) -> Any:
        try:
            return self._texts[name]
        except KeyError:
            raise AttributeError(name) from None

    @cached_property
    def script(self) -> str:
        """Return the texts for the page's script, as JSON."""
        return json.dumps({name: self._texts[name] for name in _SCRIPT}, ensure_ascii=False)


class Catalogue:
    """The texts of every language: ours, and those of `texts/<language>.json` in the user's folders."""

    def __init__(self, folders: Iterable[Path] = ()) -> None:
        """Read all files; a user's file replaces the texts that it contains, and may add a language."""
        found = {
            file.name.removesuffix(".json"): json.loads(file.read_text("utf-8"))
            for file in (files(__package__) / "texts").iterdir()
            if file.name.endswith(".json")
        }
        for folder in folders:
            for file in sorted(folder.glob("texts/*.json")):
                known = found.get(file.stem) or {**found[DEFAULT], "lang": file.stem}
                found[file.stem] = {**known, **_read(file)}
        self.languages = {language: Texts(texts) for language, texts in found.items()}

    def choose(self, accept_language: str) -> Texts:
        """Return the best language for an `Accept-Language` (RFC 9110 section 12.5.4), else English."""
        for language in _wanted(accept_language):
            for name in (language, language.partition("-")[0]):
                if name in self.languages:
                    return self.languages[name]
        return self.languages[DEFAULT]


def _read(file: Path) -> dict[str, Any]:
    try:
        texts = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        log.error("%s cannot be read, its texts are not used: %s", file, error)
        return {}
    return texts if isinstance(texts, dict) else {}


def _wanted(accept_language: str) -> Iterator[str]:
    """Yield the languages of the header, the most wanted one first."""
    ranked = []
    for item in accept_language.split(","):
        language, _, parameter = item.partition(";")
        quality = parameter.strip().removeprefix("q=") or "1"
        try:
            ranked.append((-float(quality), language.strip().lower()))
        except ValueError:
            continue
    # Sorted by quality only: languages of equal quality keep their order.
    for rank, language in sorted(ranked, key=lambda pair: pair[0]):
        if rank < 0:
            yield language
