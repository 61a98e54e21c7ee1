"""What the doctor learns of the proxies in front, by requests through the public URL."""

from __future__ import annotations

import http.client
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from wsgi_timeout.front.platforms import of_limit, wait_below
from wsgi_timeout.serving.finding import Finding
from wsgi_timeout.serving.health import READY
from wsgi_timeout.serving.probe import PAUSE_SECONDS, PROBE
from wsgi_timeout.store import keys

#: A request body that is larger than what our server receives before it uses a thread.
_BODY = bytes(400_000)
#: Seconds that an answer may be late before it counts as missing.
_SPARE_SECONDS = 10.0


class Proxy:
    """The way to our web processes by one URL."""

    def __init__(self, client: Any, public_url: str) -> None:
        parts = urlsplit(public_url)
        self._url = public_url.rstrip("/")
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host = parts.netloc
        self._prefix = parts.path.rstrip("/")
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._client = client
        self._nonce = secrets.token_urlsafe(16)

    def examine(self, seconds: float | None) -> Iterator[Finding]:
        """Yield what is found; `seconds`: how long a request is held, None: as long as a wait, and 5 s."""
        ready = self._ready()
        yield ready
        if ready.verdict == "fail":
            return
        try:
            told = self._look()
            yield from self._judge(told)
            yield self._hold(told["wait_seconds"] + 5 if seconds is None else seconds)
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            remedy = (
                "look at the proxy's log of errors; it is to pass POST requests and this path on, to a web "
                "process of this version"
            )
            yield Finding("proxy", "warn", f"{self._url}{PROBE} cannot be asked: {error}", remedy)

    def _ready(self) -> Finding:
        try:
            with closing(self._kind(self._host, timeout=10)) as connection:
                connection.request("GET", self._prefix + READY)
                response = connection.getresponse()
                body = response.read()
        except (OSError, http.client.HTTPException) as error:
            return Finding("public URL", "fail", f"{self._url} does not answer: {error}", "look at the proxy")
        if response.status != http.client.OK or body != b"ok\n":
            what = f"{self._url}{READY} answers {response.status}, not our web process"
            return Finding(
                "public URL", "fail", what, "have the proxy pass this path on, and use our worker class"
            )
        return Finding("public URL", "ok", f"{self._url} leads to a ready web process")

    def _look(self) -> dict[str, Any]:
        """Send a body in two parts; return what arrived there, and when its answer's parts arrived here."""
        self._allow(60)
        with closing(self._kind(self._host, timeout=30)) as connection:
            connection.putrequest("POST", f"{self._prefix}{PROBE}?nonce={self._nonce}")
            connection.putheader("Content-Length", str(len(_BODY)))
            connection.endheaders(_BODY[: len(_BODY) // 2])
            time.sleep(PAUSE_SECONDS)
            connection.send(_BODY[len(_BODY) // 2 :])
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise ValueError(f"it answers {response.status}")
            told: dict[str, Any] = json.loads(response.readline())
            began = time.monotonic()
            response.read()
            return {**told, "answer_seconds": time.monotonic() - began}

    def _judge(self, told: dict[str, Any]) -> Iterator[Finding]:
        if told["protocol"] == "HTTP/1.0":
            what = "the proxy speaks HTTP/1.0 to us: a response that breaks off may look complete"
            yield Finding(
                "HTTP version", "warn", what, "have it speak HTTP/1.1 (nginx: proxy_http_version 1.1)"
            )
        else:
            yield Finding("HTTP version", "ok", f"the proxy speaks {told['protocol']} to us")
        if told["path"] != self._prefix + PROBE:
            what = f"redirects would lead to {told['path']} in place of {self._prefix + PROBE}"
            remedy = "send X-Forwarded-Prefix, from a peer in WSGI_TIMEOUT_TRUSTED_PROXIES"
            yield Finding("prefix", "fail", what, remedy)
        else:
            yield Finding("prefix", "ok", f"{self._prefix or '/'} arrives")
        if told["origin"] != self._origin:
            what = f"URLs in JSON would begin with {told['origin']} in place of {self._origin}"
            remedy = f"set WSGI_TIMEOUT_PUBLIC_URL={self._origin}, or send Host and X-Forwarded-Proto"
            yield Finding("origin", "warn", what, remedy)
        else:
            yield Finding("origin", "ok", told["origin"])
        yield self._buffering("responses", told["answer_seconds"], "event streams and progress come late")
        yield self._buffering("uploads", told["body_seconds"], "a large one begins late")

    def _buffering(self, what: str, seconds: float, harm: str) -> Finding:
        if seconds < PAUSE_SECONDS / 2:
            option = "proxy_buffering" if what == "responses" else "proxy_request_buffering"
            told = f"the proxy holds {what} back until they are whole: {harm}"
            return Finding("buffering", "warn", told, f"switch that off (nginx: {option} off)")
        return Finding("buffering", "ok", f"{what} pass as they come")

    def _hold(self, seconds: float) -> Finding:
        """Have a request take so long, and see whether its answer comes."""
        self._allow(int(seconds) + 60)
        began = time.monotonic()
        try:
            with closing(self._kind(self._host, timeout=seconds + _SPARE_SECONDS)) as connection:
                connection.request("GET", f"{self._prefix}{PROBE}?nonce={self._nonce}&seconds={seconds}")
                response = connection.getresponse()
                response.read()
                how = f"answers {response.status}"
                held = response.status == http.client.OK
        except TimeoutError:
            how, held = "says nothing more", False
        except (OSError, http.client.HTTPException) as error:
            how, held = f"breaks off ({error or type(error).__name__})", False
        took = time.monotonic() - began
        if held:
            return Finding("timeout", "ok", f"a request may take {seconds:g} s")
        known = of_limit(took)
        what = f"the proxy {how} after {took:.0f} s" + (f"; the limit of {known}" if known else "")
        return Finding(
            "timeout",
            "fail",
            what,
            f"set WSGI_TIMEOUT_WAIT_SECONDS={wait_below(took)}, or its timeout higher",
        )

    def _allow(self, seconds: int) -> None:
        self._client.set(f"{keys.PROBE}:{self._nonce}", "1", ex=seconds)
