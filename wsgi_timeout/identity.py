"""What tells two deployments of one name apart: their folder, their code, the name of their environment.

Many apps are `app:app`, and staging is called as production is. Two that meet on one Redis must not get
each other's requests; several machines of one deployment, and a rolling deploy, must pass.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from wsgi_timeout.target import folder_of, is_generic, source_of

#: Variables that name a deployment, by platforms and by habit. One that both have must be the same.
DEPLOYMENT_VARIABLES = (
    "APP_ENV",
    "DD_ENV",
    "DJANGO_ENV",
    "ENVIRONMENT",
    "FLASK_ENV",
    "HEROKU_APP_NAME",
    "POD_NAMESPACE",
    "RAILWAY_ENVIRONMENT_NAME",
    "SENTRY_ENVIRONMENT",
)

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_GIVE_NAMES = (
    "Give each a name of its own, by --name, name= or WSGI_TIMEOUT_NAME, "
    "the same for its web processes and workers"
)

#: Lines of a program that are compared: the smallest of their digests, as in MinHash.
_SKETCH = 48
#: Fewer lines say nothing.
_FEWEST = 8
#: Shares of common lines: below the first two programs have nothing in common, from the second on they
#: are versions of one.
_STRANGE, _AKIN = 0.2, 0.5


def describe(target: str) -> dict[str, str]:
    """Return what a process tells of itself, by which others know whether it is of their deployment."""
    return {
        "folder": _folder(target),
        "host": socket.gethostname(),
        "code": _code(target),
        "deployment": json.dumps(_deployment()),
    }


@lru_cache
def version() -> str:
    """Return the version of this package; empty where it is not installed."""
    from importlib import metadata  # noqa: PLC0415 - it is slow to import

    try:
        return metadata.version("wsgi-timeout")
    except metadata.PackageNotFoundError:
        return ""


#: The names of what `describe` returns, in its order.
FIELDS = ("folder", "host", "code", "deployment")


def conflict(name: str, worker: str, theirs: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Return why a worker is of another deployment than this process, empty if it may be of the same one.

    `theirs` is what it told of itself, `here` what `describe` tells of this process. What one of them does
    not tell is not compared.
    """
    who = f"queue wt:{name} is served by worker {worker}"
    if differing := _other_deployment(theirs.get("deployment", ""), here["deployment"]):
        return f"{who} {differing}: it is another deployment. {_GIVE_NAMES}"
    if not is_generic(name) or not theirs.get("folder"):
        return ""
    shared = _shared(theirs.get("code", ""), here["code"])
    several = f"and many apps are called {name!r}: it may be another app. {_GIVE_NAMES}"
    if theirs["folder"] != here["folder"]:
        elsewhere = theirs.get("host", "") not in {"", here["host"]}
        if elsewhere and shared is not None and shared >= _AKIN:
            return ""
        return f"{who} from {theirs['folder']}, this process runs from {here['folder']}, {several}"
    if shared is not None and shared < _STRANGE:
        return f"{who}, whose code has hardly a line in common with the code here, {several}"
    return ""


def other_code(name: str, theirs: Mapping[str, str], here: Mapping[str, str]) -> bool:
    """Whether a worker of a name that many have runs other code: a version of this app, or another one."""
    one, other = theirs.get("code", ""), here["code"]
    return bool(is_generic(name) and one and other and one != other)


def _folder(target: str) -> str:
    """Return where a target lies; the releases of a deploy tool are one place."""
    return re.sub(r"/releases/[^/]+", "/releases/*", folder_of(target))


def _deployment() -> dict[str, str]:
    found = {name: value for name in DEPLOYMENT_VARIABLES if (value := os.environ.get(name))}
    if "POD_NAMESPACE" not in found and _NAMESPACE_FILE.is_file():
        found["POD_NAMESPACE"] = _NAMESPACE_FILE.read_text(encoding="utf-8", errors="replace").strip()
    return found


def _other_deployment(theirs: str, here: str) -> str:
    """Return which variable differs, empty if none does."""
    try:
        told = json.loads(theirs or "{}")
        pairs = {key: (str(told[key]), value) for key, value in json.loads(here).items() if key in told}
    except (ValueError, TypeError):
        return ""  # nobody of ours wrote it
    for variable, (there, value) in pairs.items():
        if there != value:
            return f"with {variable}={there!r}, here it is {value!r}"
    return ""


def _code(target: str) -> str:
    """Return a digest of a target's source, and the smallest ones of its lines; empty without a file."""
    files = source_of(target)
    try:
        return _sketch(tuple((str(path), path.stat().st_mtime_ns) for path in files)) if files else ""
    except OSError:
        return ""


@lru_cache(maxsize=8)
def _sketch(files: tuple[tuple[str, int], ...]) -> str:
    whole = sha256()
    lines: set[bytes] = set()
    for path, _ in files:
        content = Path(path).read_bytes()
        whole.update(content)
        lines.update(filter(None, map(_telling, content.splitlines())))
    digests = sorted(sha256(line).hexdigest()[:8] for line in lines)
    return " ".join([whole.hexdigest()[:16], *digests[:_SKETCH]])


def _telling(line: bytes) -> bytes:
    """Return a line without its indentation, empty for one that any program may have."""
    line = line.strip()
    return b"" if len(line) < 6 or line.startswith((b"import ", b"from ", b"#")) else line


def _shared(theirs: str, here: str) -> float | None:
    """Return the share of lines that two programs have in common; None if that cannot be said."""
    if not theirs or not here:
        return None
    (one, *there), (other, *mine) = theirs.split(), here.split()
    if one == other:
        return 1.0
    if min(len(there), len(mine)) < _FEWEST:
        return None
    return _common(there, mine)


def _common(there: Iterable[str], mine: Iterable[str]) -> float:
    both = set(there) & set(mine)
    smallest = sorted({*there, *mine})[:_SKETCH]
    return sum(digest in both for digest in smallest) / len(smallest)
