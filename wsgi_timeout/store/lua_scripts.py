"""The text of the Lua scripts in `lua/`, each with the part of the prelude that it uses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from importlib.resources import files


@cache
def digest(name: str) -> str:
    """Return the SHA-1 by which Redis names a script."""
    return sha1(source(name).encode(), usedforsecurity=False).hexdigest()


@cache
def source(name: str) -> str:
    """Return the text of a script, with what it needs of the shared prelude in front."""
    folder = files("wsgi_timeout.store") / "lua"
    parts = (folder / "prelude.lua").read_text().split("\n\n")
    return _with_needed((folder / f"{name}.lua").read_text(), parts)


def _with_needed(text: str, parts: Sequence[str]) -> str:
    """Return a text with the parts of the prelude in front that it uses: all take as long as five commands.

    A part that begins with "Seldom" brings what it uses within itself: each function that is made takes time.
    """
    found, used = [text], text
    for number, part in reversed(list(enumerate(parts))):  # a part uses earlier ones
        names = re.findall(r"^local (?:function )?(\w+)", part, re.MULTILINE)
        if not names or not re.search(rf"\b(?:{'|'.join(names)})\b", used):
            continue
        if part.startswith("-- Seldom"):
            whole, name = _with_needed(part, parts[:number]), names[0]
            found.insert(0, f"local function {name}(...)\n{whole}\nreturn {name}(...)\nend")
        else:
            used = f"{part}\n{used}"
            found.insert(0, part)
    return "\n\n".join(found)
