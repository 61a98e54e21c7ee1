"""The front: a WSGI callable that runs requests as calls, and waits for them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsgi_timeout import metrics, secret, tracing
from wsgi_timeout.errors import (
    HandlerRaised,
    ResponseBroken,
    WsgiTimeoutError,
)
from wsgi_timeout.front import error_pages, result_urls, resumed_stream, web_server
from wsgi_timeout.front.accept import NewCalls
from wsgi_timeout.front.exchange import Exchange
from wsgi_timeout.front.first_waits import FirstWaits
from wsgi_timeout.front.platforms import warn_of_platform
from wsgi_timeout.front.process import Runtime
from wsgi_timeout.front.resumed_download import ResumedDownload, RunAnew, at_result_url, patience
from wsgi_timeout.front.wait import ClientGone
from wsgi_timeout.front.waiting_page import Visit
from wsgi_timeout.front.web_server_limits import limit_silence, serve_with, wait_limit
from wsgi_timeout.http import answers, cookies, cors, parameters, urls
from wsgi_timeout.http.environ import clean
from wsgi_timeout.http.events import is_event_source
from wsgi_timeout.http.mounts import Mounts
from wsgi_timeout.http.navigation import is_navigation, is_resumed_download
from wsgi_timeout.http.routes import Routes
from wsgi_timeout.metrics import ROUTE_KEY
from wsgi_timeout.pages.pages import Pages, folders
from wsgi_timeout.settings import Settings
from wsgi_timeout.store import durability
from wsgi_timeout.store.enqueue import FirstWaitNoted
from wsgi_timeout.target import check_name

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

log = logging.getLogger("wsgi_timeout")


class Front:
    """Runs the requests that `routes` capture as calls of `name`; hands the others to `app`."""

    def __init__(
        self,
        url: str,
        name: str,
        routes: Routes,
        *,
        target: str = "",
        entry: str = "",
        app: WSGIApplication | None = None,
        mounts: Mounts | None = None,
        templates: Sequence[Path | None] = (),
    ) -> None:
        """Set the front up; it connects with its first request.

        Args:
            url: of Redis.
            target: the import string that workers load; `entry` is the WSGI app of it that runs.
            app: answers requests that are not captured; None: all are captured.
            mounts: a stub's web functions; None: the target is not imported here, and workers name them.
            templates: folders of the app's own in which `wsgi_timeout/` may hold pages.
        """
        self.name = check_name(name)
        secret.check_length()
        serve_with(routes.settings)
        self._url = url
        self._routes = routes
        self._target = target
        self._app = app
        self._new_calls = NewCalls(entry, mounts)
        self._templates = templates
        self._lock = threading.Lock()
        self._runtime: Runtime | None = None
        self._wait_limit = float("inf")
        self._first_waits: FirstWaits
        log.info("requests to %s run as calls of the queue wt:%s", target or "this app", name)
        warn_of_platform(routes.settings.wait_seconds, os.environ)
        if routes.durable:
            durability.log_cost(url)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        cookie = cookies.take(environ) if "HTTP_COOKIE" in environ else ""
        query = environ.get("QUERY_STRING", "")
        reference = None
        if parameters.holds_ours(query):
            if parameters.MARK in query and (asset := self._pages.assets.find(query)):
                return answers.asset(start_response, *asset)
            reference = urls.reference(query)
        settings = self._routes.match(environ)
        if reference is None and settings is None and self._app is not None:
            return self._app(clean(environ), start_response)
        environ[ROUTE_KEY] = self._routes.route(environ)
        with tracing.request(environ, start_response, hop=max(1, reference.hop) if reference else 0) as noted:
            counted = answers.counted(noted, self.name, environ[ROUTE_KEY])
            # Outermost: our own answers look for it in the `start_response` they are given.
            start = cors.allowing(environ, self._routes.settings.cors_origins, counted)
            if reference is not None and cors.is_preflight(environ):
                return cors.preflight(environ, start)
            return self._answer(settings or self._routes.settings, reference, cookie, environ, start)

    def _answer(
        self,
        settings: Settings,
        reference: urls.Reference | None,
        cookie: str,
        environ: dict[str, Any],
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        if settings.event_streams == "resumable":
            environ = resumed_stream.with_our_offset(environ)
        try:
            exchange = Exchange(self._here(), settings, environ, start_response)
            limit_silence(environ, settings.unread_timeout)
            return self._answer_exchange(exchange, reference, cookie)
        except (HandlerRaised, ResponseBroken):
            metrics.count("requests_total", self.name, environ[ROUTE_KEY], "500")
            raise  # the server answers it as it answers an exception of the app's own
        except ClientGone:
            return answers.client_gone(start_response)
        except WsgiTimeoutError as error:
            metrics.count("refused_total", self.name, type(error).__name__)
            clean_url = urls.clean_url(environ, settings.trusted_proxies)
            reconnects = settings.event_streams == "resumable" and is_event_source(environ)
            return error_pages.answer(
                self._pages, environ, start_response, error, clean_url, reconnects=reconnects
            )

    def _answer_exchange(
        self, exchange: Exchange, reference: urls.Reference | None, cookie: str
    ) -> Iterable[bytes]:
        limited = self._limited(exchange)
        if limited.settings.event_streams == "resumable":
            answered = resumed_stream.answer(limited)
            if answered is not None:
                return answered
        visit = self._visit(limited, cookie)
        if reference is not None:
            try:
                return result_urls.answer(limited, reference, visit)
            except RunAnew:
                start_response = at_result_url(exchange.start_response, exchange.own_url())
                limited = self._limited(replace(exchange, start_response=start_response), goes_on=True)
                visit = visit and replace(visit, start_response=start_response)
        if visit is not None and limited.method == "GET":
            return self._answer_visit(limited, visit)
        return self._new_calls.accept(limited, visit)

    def _limited(self, exchange: Exchange, *, goes_on: bool = False) -> Exchange:
        """Return the request with a wait that this server and its client can last.

        `goes_on`: the request asks for the rest of a response, see `resumed_download`.
        """
        settings = exchange.settings
        wait_seconds = min(settings.wait_seconds, self._wait_limit)
        if goes_on or is_resumed_download(exchange.environ):
            wait_seconds = patience(wait_seconds, self._wait_limit)
        if wait_seconds == settings.wait_seconds:
            return exchange
        return replace(exchange, settings=settings.replace(wait_seconds=wait_seconds))

    def _answer_visit(self, exchange: Exchange, visit: Visit) -> Iterable[bytes]:
        """Answer a browser that goes to an address: by a call that it waits for, else by a new one."""
        if (answered := visit.again()) is not None:
            return answered
        exchange = replace(exchange, start_response=visit.clearing_cookies())
        try:
            return self._new_calls.accept(exchange, visit)
        except FirstWaitNoted:
            # Before the first redirect a reload brings no cookie.
            if (answered := visit.rejoin()) is not None:
                return answered
            return self._new_calls.accept(exchange, visit, alone=True)

    @cached_property
    def _pages(self) -> Pages:
        return Pages(folders(self._routes.settings.templates, *self._templates))

    def _visit(self, exchange: Exchange, cookie: str) -> Visit | None:
        """Return the navigation of a person's browser, or its download; None for any other request."""
        environ, settings = exchange.environ, exchange.settings
        kind: type[Visit] = ResumedDownload if is_resumed_download(environ) else Visit
        if kind is Visit and (settings.waiting_page == "never" or not is_navigation(environ)):
            return None
        clean_url = exchange.own_url()
        return kind(
            exchange.runtime,
            settings,
            environ,
            exchange.start_response,
            self._pages,
            clean_url,
            cookies.read(cookie, clean_url),
            self._first_waits,
        )

    def _here(self) -> Runtime:
        """Return the runtime of this process; after a fork a new one is made."""
        if self._runtime is None:
            with self._lock:
                if self._runtime is None:
                    settings = self._routes.settings
                    server = web_server.find()
                    runtime = Runtime(self._url, self.name, self._target, settings, server)
                    self._first_waits = FirstWaits(runtime)
                    self._wait_limit = wait_limit(settings.wait_seconds)
                    web_server.warn_of_few_threads(server, settings.max_waiting)
                    self._runtime = runtime
        return self._runtime
