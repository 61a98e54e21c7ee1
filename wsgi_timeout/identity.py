"""Tells deployments apart that have the same name, by folder, code, and the name of their environment.

Many apps are called `app:app`, and staging is often called like production. If two of them use one Redis,
neither may get the other's requests. Several machines of one deployment, and a rolling deploy, must pass.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from wsgi_timeout.target import folder_of, is_generic, source_of

#: Environment variables that name a deployment. If both processes have one, its values must be equal.
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

#: Two programs are compared by this many of their lines, those with the smallest digests (MinHash).
_SKETCH = 48
#: Programs with fewer lines are not compared.
_FEWEST = 8
#: Shares of common lines: below the first, two programs are unrelated; from the second on, they are versions
#: of one program.
_UNRELATED, _SAME = 0.2, 0.5


def describe(target: str) -> dict[str, str]:
    """Return the description of this process by which others tell whether it is of their deployment."""
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

    for name in ("wsgi-timeout", "wsgi-timeout-halves"):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return ""


#: The names of what `describe` returns, in its order.
FIELDS = ("folder", "host", "code", "deployment")


def conflict(name: str, worker: str, theirs: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Return why a worker belongs to another deployment than this process; empty if it may be the same.

    `theirs` is the worker's description, `here` what `describe` returns in this process. Only fields that
    both have are compared.
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
        if elsewhere and shared is not None and shared >= _SAME:
            return ""
        return f"{who} from {theirs['folder']}, this process runs from {here['folder']}, {several}"
    if shared is not None and shared < _UNRELATED:
        return f"{who}, whose code has hardly a line in common with the code here, {several}"
    return ""


def other_code(name: str, theirs: Mapping[str, str], here: Mapping[str, str]) -> bool:
    """Return whether a worker with a generic name runs other code: another version, or another app."""
    one, other = theirs.get("code", ""), here["code"]
    return bool(is_generic(name) and one and other and one != other)


def _folder(target: str) -> str:
    """Return the folder of a target; for a deploy tool's numbered releases, the folder above them."""
    return re.sub(r"/releases/[^/]+", "/releases/*", folder_of(target))


def _deployment() -> dict[str, str]:
    found = {name: value for name in DEPLOYMENT_VARIABLES if (value := os.environ.get(name))}
    if "POD_NAMESPACE" not in found and _NAMESPACE_FILE.is_file():
        found["POD_NAMESPACE"] = _NAMESPACE_FILE.read_text(encoding="utf-8", errors="replace").strip()
    return found


def _other_deployment(theirs: str, here: str) -> str:
    """Return which variable differs; empty if none does."""
    try:
        told = json.loads(theirs or "{}")
        pairs = {key: (str(told[key]), value) for key, value in json.loads(here).items() if key in told}
    except (ValueError, TypeError):
        return ""  # not written by us
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
    """Return a line without indentation; empty for a line that any program may have."""
    line = line.strip()
    return b"" if len(line) < 6 or line.startswith((b"import ", b"from ", b"#")) else line


def _shared(theirs: str, here: str) -> float | None:
    """Return the share of lines that two programs have in common; None if that cannot be said."""
    if not theirs or not here:
        return None
    (their_digest, *their_lines), (our_digest, *our_lines) = theirs.split(), here.split()
    if their_digest == our_digest:
        return 1.0
    if min(len(their_lines), len(our_lines)) < _FEWEST:
        return None
    return _common(their_lines, our_lines)


def _common(theirs: Iterable[str], ours: Iterable[str]) -> float:
    both = set(theirs) & set(ours)
    smallest = sorted({*theirs, *ours})[:_SKETCH]
    return sum(digest in both for digest in smallest) / len(smallest)
