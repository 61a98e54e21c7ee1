"""Our errors as answers: a page for a person, problem details (RFC 9457) for a program.

Neither names hosts, settings, signals or processes. Details for the operator go to the log, under a
reference number that the answer shows.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from wsgi_timeout import errors
from wsgi_timeout.errors import AlreadyDelivered, CallRefused, WsgiTimeoutError
from wsgi_timeout.http import answers, urls
from wsgi_timeout.pages.pages import Pages, Way

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

log = logging.getLogger("wsgi_timeout")

#: The page for each error, by its name in the catalogue of texts; a subclass without one uses its base's.
KINDS: dict[type[WsgiTimeoutError], str] = {
    errors.CallRefused: "unavailable",
    errors.NoWorker: "no_worker",
    errors.UnknownLabel: "no_worker",
    errors.QueueFull: "full",
    errors.QueuePaused: "unavailable",
    errors.TooManyWaiting: "full",
    errors.BodyTooLarge: "too_large",
    errors.UploadBroken: "upload_broken",
    errors.UpgradeUnsupported: "unsupported",
    errors.CallUnknown: "not_found",
    errors.NotFound: "not_found",
    errors.ResultTrimmed: "taken",
    errors.CallTimedOut: "timed_out",
    errors.WorkerLost: "lost",
    errors.CallCancelled: "cancelled",
    errors.AlreadyDelivered: "gone",
    errors.WsgiTimeoutError: "error",
}
#: What a client is told in place of an error's message, which is for the operator; "": the message itself.
_PUBLIC: dict[type[WsgiTimeoutError], str] = {
    errors.CallRefused: "",
    errors.NoWorker: "this request cannot be taken now: it does not fit those who would handle it",
    errors.UnknownLabel: "nobody is there to handle requests to this path",
    errors.QueueFull: "too many requests wait already",
    errors.QueuePaused: "requests are paused for a while, and too many wait already",
    errors.BytesFull: "too many requests wait already",
    errors.TooManyWaiting: "too many requests wait already",
    errors.RedisUnavailable: "this request cannot be taken now",
    errors.BodyTooLarge: "the request body is larger than is accepted here",
    errors.UploadBroken: "",
    errors.IdempotencyKeyReused: "",
    errors.UpgradeUnsupported: "a WebSocket is not supported here",
    errors.CallUnknown: "",
    errors.NotFound: "",
    errors.ResultTrimmed: "",
    errors.WorkerLost: "it was interrupted while it ran, and could not be completed",
    errors.CallTimedOut: "it took longer than is allowed",
    errors.CallCancelled: "it was cancelled",
    errors.WsgiTimeoutError: "it could not be completed because of a fault on our side",
}
#: Errors after which opening the address again makes no sense.
_SENT = frozenset({"too_large", "upload_broken"})


def answer(
    pages: Pages,
    environ: Mapping[str, Any],
    start_response: StartResponse,
    problem: WsgiTimeoutError,
    clean_url: str,
    headers: answers.Headers | None = None,
    *,
    reconnects: bool = False,
) -> Iterable[bytes]:
    """Answer with an error's own status; `clean_url` is the address to try again.

    `reconnects`: the client is an EventSource, which reconnects by itself, but not after an error status:
    where nothing was accepted it is asked to come again by a stream without events.
    """
    headers = list(headers or [])
    reference = _logged(environ, problem)
    if isinstance(problem, CallRefused):
        if reconnects:
            return answers.come_back(start_response, problem.retry_after, public_detail(problem))
        headers.append(("Retry-After", str(problem.retry_after)))
    if not answers.wants_html(environ):
        return answers.problem(
            start_response, problem, public_detail(problem), headers, **_members(problem, reference)
        )
    texts = pages.texts(environ.get("HTTP_ACCEPT_LANGUAGE", ""))
    kind = next(KINDS[cls] for cls in type(problem).__mro__ if cls in KINDS)
    when = _when(problem) if isinstance(problem, AlreadyDelivered) else ""
    ways = _ways(environ, problem, kind, clean_url)
    page = pages.message(texts, kind, ways=ways, reference=reference, when=when)
    return answers.as_page(start_response, problem.status, page, headers)


def public_detail(problem: WsgiTimeoutError) -> str:
    """Return what a client is told of an error: no settings, hosts, signals or names of workers."""
    if isinstance(problem, AlreadyDelivered):
        return f"This result was delivered on {_when(problem)} and is not kept after that."
    text = str(problem)
    if isinstance(problem, errors.NoWorker) and text.startswith("no live worker"):
        return text  # names the command that starts a worker: new users see it here first
    return next((_PUBLIC[cls] for cls in type(problem).__mro__ if cls in _PUBLIC), "") or text


def _logged(environ: Mapping[str, Any], problem: WsgiTimeoutError) -> str:
    """Log what the answer leaves out; return the reference number in both, "" if nothing is left out."""
    fault = int(problem.status[:3]) >= 500
    if not fault and not isinstance(problem, errors.BodyTooLarge):
        return ""
    reference = secrets.token_hex(4)
    level = logging.WARNING if fault else logging.INFO
    method, path = environ["REQUEST_METHOD"], urls.local_path(environ)
    log.log(level, "reference %s: %s to %s %s: %s", reference, problem.status[:3], method, path, problem)
    return reference


def _members(problem: WsgiTimeoutError, reference: str) -> dict[str, str]:
    members = {"reference": reference} if reference else {}
    if isinstance(problem, AlreadyDelivered):
        members["url"] = problem.clean_url
    return members


def _when(problem: AlreadyDelivered) -> str:
    return formatdate(problem.delivered_ms / 1000, usegmt=True)


def _ways(
    environ: Mapping[str, Any], problem: WsgiTimeoutError, kind: str, clean_url: str
) -> tuple[Way, ...]:
    """Return what a person can do now: a link is a GET, which may be repeated."""
    if kind == "unsupported":
        return ()
    if kind in _SENT:
        return (Way("back", clean_url, back=True),)
    refused = isinstance(problem, CallRefused) and environ["REQUEST_METHOD"] == "GET"
    return (Way("try_again" if refused else "open_again", clean_url),)
