"""The kinds of settings: which values each may have, and how they are read from text."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Callable
from dataclasses import field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from wsgi_timeout.errors import ConfigurationError

_SERVICE_LINK = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$"
)


def number(default: Any, unit: str, meaning: str, *, least: float = 0, one_of: tuple[int, ...] = ()) -> Any:
    metadata = {"unit": unit, "meaning": meaning, "least": least, "one_of": one_of}
    return field(default=default, metadata=metadata)


def text(default: str, unit: str, meaning: str, good: Callable[[str], bool], wanted: str) -> Any:
    return field(default=default, metadata={"unit": unit, "meaning": meaning, "good": good, "wanted": wanted})


def is_base_url(given: str) -> bool:
    url = urlsplit(given)
    return (
        url.scheme in {"http", "https"} and bool(url.netloc) and not (url.path or url.query or url.fragment)
    )


def are_addresses(given: str) -> bool:
    try:
        return all(item.strip() == "*" or ip_address(item.strip()) for item in given.split(","))
    except ValueError:
        return False


def are_origins(given: str) -> bool:
    """Whether a text is a list of origins, or `*`."""
    return all(item.strip() == "*" or _is_origin(item.strip()) for item in given.split(","))


def _is_origin(text: str) -> bool:
    url = urlsplit(text)
    return bool(url.scheme and url.netloc) and text == f"{url.scheme}://{url.netloc}"


def is_header_list(given: str) -> bool:
    """Whether a text is a list of names of headers."""
    return all(item.strip().replace("-", "").isalnum() for item in given.split(","))


def parse(key: str, kind: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        match kind:
            case "bool":
                return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
                    value.lower()
                ]
            case "int":
                return int(value)
            case "float":
                return float(value)
            case _:
                return value
    except (KeyError, ValueError):
        wanted = {"bool": "true or false", "int": "a whole number", "float": "a number"}[kind]
        raise ConfigurationError(f"{key}={value!r} is not {wanted}") from None


def check(spec: dataclasses.Field[Any], value: Any) -> None:
    kind = {"bool": bool, "int": int, "float": int | float, "str": str}[str(spec.type)]
    if not isinstance(value, kind) or (isinstance(value, bool) and spec.type != "bool"):
        raise ConfigurationError(f"{spec.name}={value!r}: must be of type {spec.type}")
    if isinstance(value, bool):
        return
    if isinstance(value, str):
        if value and not spec.metadata["good"](value):
            raise ConfigurationError(f"{spec.name}={value!r}: must be {spec.metadata['wanted']}")
        return
    if one_of := spec.metadata["one_of"]:
        if value not in one_of:
            wanted = " or ".join(map(str, one_of))
            raise ConfigurationError(f"{spec.name}={value!r}: must be {wanted}")
        return
    if not math.isfinite(value) or value < spec.metadata["least"]:
        unit = spec.metadata["unit"]
        raise ConfigurationError(
            f"{spec.name}={value!r}: must be at least {spec.metadata['least']} {unit}".strip()
        )


def check_environment(known: set[str], prefix: str) -> None:
    """Raise `ConfigurationError` for an environment variable with our prefix that is no setting."""
    for variable, value in os.environ.items():
        if variable.startswith(prefix) and variable not in known and not _is_service_link(variable, value):
            close = difflib.get_close_matches(variable, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"
            raise ConfigurationError(f"unknown environment variable {variable}: {hint}")


def _is_service_link(variable: str, value: str) -> bool:
    """Return whether Kubernetes wrote it, for a service whose name begins with `wsgi-timeout`."""
    # https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    return bool(_SERVICE_LINK.search(variable)) or (
        variable.endswith("_PORT") and value.startswith(("tcp://", "udp://", "sctp://"))
    )
