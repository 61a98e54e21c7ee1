"""Our errors as answers: a page for a person, problem details (RFC 9457) for a program.

Neither names hosts, addresses or processes. What an operator needs goes to the log, under a reference
that the answer shows.
"""

from __future__ import annotations

import logging
import re
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

#: The page of each error, as the catalogue names it; of a subclass without one, its base's.
_KINDS: dict[type[WsgiTimeoutError], str] = {
    errors.CallRefused: "unavailable",
    errors.NoWorker: "no_worker",
    errors.UnknownLabel: "no_worker",
    errors.QueueFull: "full",
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
#: Where it makes no sense to open the address again.
_SENT = frozenset({"too_large", "upload_broken"})


def answer(
    pages: Pages,
    environ: Mapping[str, Any],
    start_response: StartResponse,
    problem: WsgiTimeoutError,
    clean_url: str,
    headers: answers.Headers | None = None,
) -> Iterable[bytes]:
    """Answer with an error's own status; `clean_url` is the address to try again."""
    headers = list(headers or [])
    if isinstance(problem, CallRefused):
        headers.append(("Retry-After", str(problem.retry_after)))
    reference = _logged(environ, problem)
    if not answers.wants_html(environ):
        return answers.problem(
            start_response, problem, public_detail(problem), headers, **_members(problem, reference)
        )
    texts = pages.texts(environ.get("HTTP_ACCEPT_LANGUAGE", ""))
    kind = next(_KINDS[cls] for cls in type(problem).__mro__ if cls in _KINDS)
    when = _when(problem) if isinstance(problem, AlreadyDelivered) else ""
    ways = _ways(environ, problem, kind, clean_url)
    page = pages.message(texts, kind, ways=ways, reference=reference, when=when)
    return answers.as_page(start_response, problem.status, page, headers)


def public_detail(problem: WsgiTimeoutError) -> str:
    """Return an error's message without what is nobody's business: addresses, hosts, worker names."""
    text = str(problem)
    if isinstance(problem, AlreadyDelivered):
        return f"This result was delivered on {_when(problem)} and is not kept after that."
    if isinstance(problem, errors.RedisUnavailable):
        return "Redis does not take this request now"
    if isinstance(problem, errors.WorkerLost):
        return text.partition("could not be recorded: ")[0]
    # `worker <host>-<pid>-<random> of queue ...`
    return re.sub(r"\bworker \S+ (of|with)\b", r"a worker \1", text)


def _logged(environ: Mapping[str, Any], problem: WsgiTimeoutError) -> str:
    """Log why a request failed by no fault of its own; return the reference, "" if there is none."""
    if int(problem.status[:3]) < 500:
        return ""
    reference = secrets.token_hex(4)
    method, path = environ["REQUEST_METHOD"], urls.local_path(environ)
    log.warning("reference %s: %s to %s %s: %s", reference, problem.status[:3], method, path, problem)
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
