"""`wsgi-timeout serve`: an embedded Redis, gunicorn and a pool of workers, started and stopped together."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from wsgi_timeout import target as targets
from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.http.routes import Routes
from wsgi_timeout.secret import MADE_BY_SERVE
from wsgi_timeout.serving.embedded_redis import EmbeddedServer, state_folder
from wsgi_timeout.serving.listening import listen
from wsgi_timeout.serving.parts import ServeOptions
from wsgi_timeout.serving.signals import Signals
from wsgi_timeout.serving.site import Site
from wsgi_timeout.settings import (
    RESERVE_THREADS,
    SECRET_VARIABLE,
    Settings,
    environment_of,
)


def serve(options: ServeOptions, say: Callable[[str], None]) -> int:
    """Serve until SIGINT, SIGTERM or SIGQUIT, or until a part dies that cannot be replaced.

    `say` prints a line for the user.

    Returns:
        The exit code.

    Raises:
        ConfigurationError: something is missing, or in use, or a word of `options` makes no sense.
    """
    targets.name_of(options.target)  # raises before anything is started
    settings = _settings(options)
    sock = listen(options.bind)
    signals = Signals()
    server: EmbeddedServer | None = None
    site: Site | None = None
    try:
        url = os.environ.get("REDIS_URL", "")
        loaded = Settings.load(**settings)
        if url:
            _ping(url)
        else:
            server = _embedded(options, loaded)
            url = server.url
        if loaded.durable:
            _check_durability(url)
        environment = {**os.environ, **environment_of(settings), "REDIS_URL": url}
        if not environment.get(SECRET_VARIABLE):
            environment[SECRET_VARIABLE] = _secret(options, server)
        site = Site(options, environment, sock, server, signals, say)
        if not site.start():
            return 0 if signals.stop else 1
        _announce(options, site.name, settings, sock, server, say)
        return site.watch()
    finally:
        sock.close()
        if site:
            site.stop()
        if server:
            server.stop()


def _settings(options: ServeOptions) -> dict[str, Any]:
    settings = dict(options.settings)
    if options.web_threads is not None:
        reserve = min(RESERVE_THREADS, max(1, options.web_threads // 4))
        settings["max_waiting"] = max(1, options.web_threads - reserve)
    # Checked here, so that not each child raises it.
    if options.python and (options.only or options.except_):
        raise ConfigurationError(
            f"--python {options.python!r} with --only or --except: the web process would have to load "
            "the app too; leave these options out"
        )
    if options.name:
        targets.check_name(options.name)
    Routes(Settings.load(**settings), only=options.only, except_=options.except_)
    return settings


def _ping(url: str) -> None:
    # With an embedded server this process needs no client.
    from wsgi_timeout.store.connection import connect  # noqa: PLC0415
    from wsgi_timeout.store.redis_errors import ANY, WrongPassword  # noqa: PLC0415
    from wsgi_timeout.store.redis_url import check_server, without_password  # noqa: PLC0415

    client = connect(url, connections=1)
    try:
        check_server(client, url)
        client.ping()
    except WrongPassword as error:
        raise ConfigurationError(
            f"REDIS_URL={without_password(url)!r}: the server refuses its user or password: {error}"
        ) from None
    except ANY as error:
        raise ConfigurationError(
            f"REDIS_URL={without_password(url)!r} cannot be reached: {error}; start that server, "
            "or unset REDIS_URL to use an embedded one"
        ) from None
    finally:
        client.close()


def _check_durability(url: str) -> None:
    """Raise `ConfigurationError` if it cannot keep calls on disk; each part logs what that costs."""
    from wsgi_timeout.store import durability  # noqa: PLC0415 - with redis-py

    durability.cost(url)


def _embedded(options: ServeOptions, settings: Settings) -> EmbeddedServer:
    folder = Path(options.data_dir).absolute() if options.data_dir else state_folder(options.target)
    server = EmbeddedServer(
        folder,
        alone=options.data_dir is not None,
        memory=settings.embedded_memory,
        durable=settings.durable,
    )
    try:
        server.start()
    except ConfigurationError:
        server.stop()
        raise
    return server


def _secret(options: ServeOptions, server: EmbeddedServer | None) -> str:
    """Return the secret that signs payloads: made once, kept with the data, so that they stay readable."""
    folder = server.folder if server else state_folder(options.target)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "secret"
        if not path.exists():
            _keep_new_secret(path)
        return path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(
            f"the secret in {folder} cannot be kept: {error}; set {SECRET_VARIABLE}"
        ) from None


def _keep_new_secret(path: Path) -> None:
    # Written to a draft, then linked: another serve may start now, and the disk may be full.
    draft = path.with_name(f"secret-{os.getpid()}")
    draft.touch(mode=0o600)
    try:
        draft.write_text(MADE_BY_SERVE + secrets.token_hex(32))
        with suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()


def _address(sock: socket.socket) -> str:
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _announce(
    options: ServeOptions,
    name: str,
    settings: dict[str, Any],
    sock: socket.socket,
    server: EmbeddedServer | None,
    say: Callable[[str], None],
) -> None:
    loaded = Settings.load(**settings)
    say(f"serving {options.target} on {_address(sock)}  (Ctrl-C stops)")
    say(f"  queue wt:{name}, {options.processes} worker processes, {options.threads} thread(s) each")
    if options.processes > 1:
        say("  they share no memory: --processes 1 --threads 8 for sessions in memory (cookies are fine)")
    if loaded.wait_for_response:
        say(f"  a request waits up to {loaded.wait_seconds:g} s, then is redirected (303) to its result URL")
    else:
        say("  a request is answered at once, with 202 and a result URL")
    if server:
        say(f"  embedded server, data in {server.folder}")
        say(f"  to look inside: rq info --url {server.url}")
    elif not os.environ.get(SECRET_VARIABLE):
        say(f"  the secret of its functions is kept in {state_folder(options.target)}")
    if Path("gunicorn.conf.py").exists() and not options.gunicorn_config:
        say("  note: ./gunicorn.conf.py is yours and is not read here; for the hooks of its workers:")
        say("    --gunicorn-config gunicorn.conf.py")
    if os.environ.get("GUNICORN_CMD_ARGS"):
        say("  note: GUNICORN_CMD_ARGS is not read here; serve's own options are in `wsgi-timeout serve -h`")
