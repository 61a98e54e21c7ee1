"""Every error of the package, and the HTTP status that each one becomes.

WsgiTimeoutError                500
  ConfigurationError            500   a setting, a target, an environment that cannot work
    TargetError                       an import string that names no WSGI app
  CallRefused                   503   nothing was accepted: try again
    NoWorker                          no live worker serves this name
    QueueFull                         `max_queued` calls wait already
      QueuePaused                     and an operator has paused those who would run them
    BytesFull                         requests and results use `max_buffered_bytes` already
    TooManyWaiting                    `max_waiting` requests wait in this process
    RedisUnavailable                  Redis is away, or refuses to write
  BodyTooLarge                  413   over `max_request_body`
  UploadBroken                  400   the request body ended early
    UploadStalled               408   its client said nothing for `upload_timeout`
  IdempotencyKeyReused          422   the key was sent before, with another body
  UpgradeUnsupported            501   WebSocket and the like
  CallUnknown                   404   unknown id, wrong token, wrong path: all alike
  AlreadyDelivered              410   a result was sent in full, and its grace is over
  ResultTrimmed                 409   a second reader of a result that did not fit the buffer
  CallFailed                    500   the call ended without the app's response
    HandlerRaised               500   the app raised
    WorkerLost                  502   its worker died, and it must not run twice
    CallTimedOut                504   it ran longer than its `timeout`
    CallCancelled               410   it was cancelled
  ResponseBroken                500   the response broke off after its headers were sent
  StreamLost                    500   Redis has lost the beginning of a body
  UnknownLabel                  502   no worker has a web function of this label
  NotFound                      404   no web function of a stub is mounted here
  PayloadTooLarge               413   arguments or a result over `max_payload`
  PayloadRefused                500   a payload that was not signed with our secret
  ResultNotReady                202   the function still runs (a builtin `TimeoutError` too)
  OutputExpiredError            404   a function call that is unknown, or whose result has expired
  RemoteError                   500   a function's exception that cannot be raised as itself
  Fenced                        409   a write of an attempt that is no longer the current one

CallInterrupted (BaseException)       raised *in* a handler, past every `except Exception`
"""

from __future__ import annotations


class WsgiTimeoutError(Exception):
    """The root of all errors raised here."""

    #: The HTTP status line that this error becomes.
    status = "500 Internal Server Error"


class ConfigurationError(WsgiTimeoutError):
    """Something must be set or installed differently; the message says what."""


class TargetError(ConfigurationError):
    """An import string that names no WSGI app."""


class CallRefused(WsgiTimeoutError):
    """The request was not accepted, nothing runs, and it may be sent again."""

    status = "503 Service Unavailable"
    #: Seconds for the `Retry-After` header (RFC 9110 section 10.2.3).
    retry_after = 5


class NoWorker(CallRefused):
    """No live worker serves this name."""


class QueueFull(CallRefused):
    """`max_queued` calls wait in the queue already."""


class QueuePaused(QueueFull):
    """`max_queued` calls wait in the queue already, and an operator has paused its workers."""


class BytesFull(CallRefused):
    """Requests and results of this name use `max_buffered_bytes` of Redis already."""


class TooManyWaiting(CallRefused):
    """`max_waiting` requests wait in this web process already."""


class RedisUnavailable(CallRefused):
    """Redis does not answer, or cannot take writes."""


class BodyTooLarge(WsgiTimeoutError):
    """The request body is larger than `max_request_body`."""

    status = "413 Content Too Large"


class UploadBroken(WsgiTimeoutError):
    """The request body ended before its announced length."""

    status = "400 Bad Request"


class UploadStalled(UploadBroken):
    """The client sent nothing of its request body for `upload_timeout` seconds."""

    status = "408 Request Timeout"


class IdempotencyKeyReused(WsgiTimeoutError):
    """The idempotency key of this request was sent before, with another body."""

    status = "422 Unprocessable Content"


class UpgradeUnsupported(WsgiTimeoutError):
    """The client asked to switch protocols, which no queue can carry."""

    status = "501 Not Implemented"


class CallUnknown(WsgiTimeoutError):
    """No such call, or not with this token, or not on this path."""

    status = "404 Not Found"


class AlreadyDelivered(WsgiTimeoutError):
    """This result was sent in full, and is not kept any longer."""

    status = "410 Gone"

    def __init__(self, message: str, delivered_ms: int = 0, clean_url: str = "") -> None:
        """`delivered_ms`: when, in ms since 1970; `clean_url`: the address at which the app can run again."""
        super().__init__(message)
        self.delivered_ms = delivered_ms
        self.clean_url = clean_url


class ResultTrimmed(WsgiTimeoutError):
    """Another reader has consumed the beginning of this result."""

    status = "409 Conflict"


class CallFailed(WsgiTimeoutError):
    """The call ended without a response of the app."""


class HandlerRaised(CallFailed):
    """The app raised an exception; the remote traceback is its message."""


class WorkerLost(CallFailed):
    """The worker died while it ran this call, and the call must not run again."""

    status = "502 Bad Gateway"


class CallTimedOut(CallFailed):
    """The handler ran longer than its `timeout`."""

    status = "504 Gateway Timeout"


class CallCancelled(CallFailed):
    """The call was cancelled."""

    status = "410 Gone"


class ResponseBroken(WsgiTimeoutError):
    """The response broke off after its headers were sent: the connection must break too."""


class StreamLost(WsgiTimeoutError):
    """Redis has lost the beginning of a request or response body, of which more was to come."""


class UnknownLabel(WsgiTimeoutError):
    """The workers of this name serve no web function of this label: another version is deployed there."""

    status = "502 Bad Gateway"


class NotFound(WsgiTimeoutError):
    """No web function of the stub is mounted at this path."""

    status = "404 Not Found"


class PayloadTooLarge(WsgiTimeoutError):
    """A function's arguments or its result are larger than `max_payload`."""

    status = "413 Content Too Large"


class PayloadRefused(WsgiTimeoutError):
    """A payload was not signed with our secret; it was not unpickled."""


class ResultNotReady(WsgiTimeoutError, TimeoutError):
    """The call has not ended within the time that was waited for it. Wait again, or come back."""

    status = "202 Accepted"


class OutputExpiredError(WsgiTimeoutError):
    """There is no such function call, or its result was not kept any longer."""

    status = "404 Not Found"


class RemoteError(WsgiTimeoutError):
    """A function's exception that cannot be raised as itself here; its traceback is the message.

    A function that raises a `TimeoutError` ends in this too: a poller must not take a failure
    for "still running". So does one that raises `SystemExit` or the like, which would end the poller.
    `__cause__` is the exception itself, where it could be read.
    """


class Fenced(WsgiTimeoutError):
    """This attempt is no longer the current one; its writes are refused."""

    status = "409 Conflict"


class CallInterrupted(BaseException):
    """Raised inside a running handler to end it.

    A `BaseException`, because Flask turns every `Exception` into a 500 page: the handler's
    `finally` blocks run, its `except Exception` blocks do not. `reason` is an outcome, as in
    `wsgi_timeout.store.record.Outcome`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
