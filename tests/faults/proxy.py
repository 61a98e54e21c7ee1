"""A proxy in front of Redis that knows commands and replies: it records them, and breaks what it is told to.

proxy = Proxy(server, folder / "s")      # server.socket is where the real one listens
proxy.url, proxy.client                  # through the proxy; past it

proxy.refuse(), proxy.black_hole(), proxy.heal()         # all connections
proxy.delay_seconds = 0.2                                # every command
proxy.piece_bytes = 1                                    # sent one by one, both ways
fault = proxy.break_at(Break.AFTER, nth(3, naming(b"fc-")))
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import select
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

_RECEIVE = 1024 * 1024
_PUBSUB = {b"SUBSCRIBE", b"PSUBSCRIBE"}


class Break(enum.Enum):
    """Where a connection is closed."""

    #: The server never sees the command.
    BEFORE = "before the server has the command"
    #: The server has executed it, the client gets no reply.
    AFTER = "after the server has executed the command"
    #: The client gets the first half of the reply's bytes.
    WITHIN = "within the reply"


@dataclass(slots=True)
class Exchange:
    """One command, and its reply as it stands on the wire, once there is one."""

    connection: int
    words: tuple[bytes, ...]
    reply: bytes | None = None

    @property
    def name(self):
        return self.words[0].decode().upper()


class Fault:
    """What was ordered by `break_at`; `struck` is the exchange that it hit."""

    def __init__(self, where, when):
        self.where = where
        self.when = when
        self.struck = None


def nth(number, when=lambda _exchange: True):
    """Return a condition that is true for the `number`-th exchange, from 1, for which `when` is true."""
    count = itertools.count(1)
    return lambda exchange: bool(when(exchange)) and next(count) == number


def naming(text):
    """Return a condition: a text stands in the command, or in its reply as far as there is one."""
    return lambda exchange: any(text in word for word in exchange.words) or text in (exchange.reply or b"")


class Proxy:
    """Listens on a unix socket, or with no `path` on a port of loopback."""

    def __init__(self, server, path=None, *, patience_seconds=0.0):
        """Stand before `server`; a client has `patience_seconds` to say more before it is passed on.

        Who waits for a reply says nothing: with patience a pipeline that comes in pieces is one round trip.
        """
        self.client = server.client
        #: Every exchange since the start, or since it was cleared, in the order of the commands.
        self.exchanges = []
        #: Seconds by which every command is late.
        self.delay_seconds = 0.0
        #: Bytes that are sent at once, both ways; 0: as many as there are.
        self.piece_bytes = 0
        self.patience_seconds = patience_seconds
        self._server = str(server.socket)
        self.address = str(path) if path else ("127.0.0.1", 0)
        self._faults = []
        self._lock = threading.Lock()
        self._passing = threading.Event()
        self._passing.set()
        self._links = set()
        self._turns = []
        self._listen()
        if path:
            self.url = f"unix://{path}"
        else:
            self.address = self._listening.getsockname()
            self.url = f"redis://127.0.0.1:{self.address[1]}/0"

    # -- what tests order

    def break_at(self, where, when):
        """Close a connection at the first exchange for which `when` is true; `BEFORE` knows no reply."""
        fault = Fault(where, when)
        with self._lock:
            self._faults.append(fault)
        return fault

    def refuse(self):
        """Close all connections, and accept no new ones."""
        self._stop_listening()
        self.cut()

    def cut(self):
        """Close all connections."""
        with self._lock:
            links = tuple(self._links)
        for link in links:
            link.cut()

    def black_hole(self):
        """Pass nothing on, either way, and keep every connection open: what comes is late, or never read."""
        self._passing.clear()

    def heal(self):
        """Accept and pass everything again."""
        self._faults.clear()
        if self._listening is None:
            self._listen()
        self._passing.set()

    def clear(self):
        """Forget what was recorded."""
        with self._lock:
            self.exchanges.clear()
            self._turns.clear()

    def commands(self):
        """Return the names of the recorded commands."""
        return [exchange.name for exchange in self.exchanges]

    def round_trips(self):
        """Return how often a client sent something after the server's last word."""
        with self._lock:
            return sum(is_client for is_client, _ in itertools.groupby(self._turns))

    def close(self):
        self._stop_listening()
        self.cut()
        self._passing.set()

    # -- what connections call

    def broken(self, exchange):
        """Return where to break this exchange off, None to let it pass."""
        at_command = exchange.reply is None
        with self._lock:
            for fault in self._faults:
                if (fault.where is Break.BEFORE) == at_command and fault.when(exchange):
                    self._faults.remove(fault)
                    fault.struck = exchange
                    return fault.where
        return None

    def record(self, exchange):
        with self._lock:
            if exchange.reply is None:
                self.exchanges.append(exchange)
            self._turns.append(exchange.reply is None)

    def wait_until_passing(self):
        self._passing.wait()

    def forget(self, link):
        with self._lock:
            self._links.discard(link)

    def _listen(self):
        unix = isinstance(self.address, str)
        listening = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        if unix:
            with contextlib.suppress(FileNotFoundError):
                Path(self.address).unlink()
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # As Redis does: what is sent leaves at once, also while the last of it is not acknowledged yet.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.bind(self.address)
        listening.listen(512)
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def _stop_listening(self):
        if self._listening is not None:
            _shut(self._listening)
            self._listening.close()
            self._listening = None

    def _accept(self, listening):
        for number in itertools.count():
            try:
                near, _ = listening.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(self._server)
            except OSError:
                near.close()
                far.close()
                continue
            link = _Link(self, number, near, far)
            with self._lock:
                self._links.add(link)
            link.start()


class _Link:
    """One client's connection, and the one to the server that belongs to it."""

    def __init__(self, proxy, number, near, far):
        self._proxy = proxy
        self._number = number
        self._near = near
        self._far = far
        self._waiting = deque()
        #: Whether the server speaks without being asked.
        self._subscribed = False

    def start(self):
        commands = threading.Thread(target=self._run, args=(self._pass_commands,), daemon=True)
        commands.start()
        threading.Thread(target=self._run, args=(self._pass_replies, commands), daemon=True).start()

    def cut(self):
        _shut(self._near)
        _shut(self._far)

    def _run(self, work, other=None):
        with contextlib.suppress(OSError):
            work()
        self.cut()
        if other:
            other.join()
            self._near.close()
            self._far.close()
            self._proxy.forget(self)

    def _pass_commands(self):
        for frames in _frames(self._near, self._proxy.patience_seconds):
            data = b""
            for frame in frames:
                exchange = Exchange(self._number, _words(frame))
                self._proxy.record(exchange)
                if self._proxy.broken(exchange):
                    self._send(self._far, data)
                    return
                self._subscribed |= exchange.words[0].upper() in _PUBSUB
                self._waiting.append(exchange)
                data += frame
            if self._proxy.delay_seconds:
                time.sleep(self._proxy.delay_seconds)
            self._proxy.wait_until_passing()
            self._send(self._far, data)

    def _pass_replies(self):
        for frames in _frames(self._far):
            for frame in frames:
                # RESP3 marks what was not asked for by `>`.
                where = None if self._subscribed or frame[:1] == b">" else self._broken(frame)
                self._proxy.wait_until_passing()
                if where is Break.WITHIN:
                    self._send(self._near, frame[: len(frame) // 2])
                if where:
                    return
                self._send(self._near, frame)

    def _send(self, sock, data):
        size = self._proxy.piece_bytes or len(data) or 1
        for start in range(0, len(data), size):
            sock.sendall(data[start : start + size])

    def _broken(self, frame):
        if not self._waiting:
            # A server that has too many clients says so before it is asked anything.
            return None
        exchange = self._waiting.popleft()
        exchange.reply = frame
        self._proxy.record(exchange)
        return self._proxy.broken(exchange)


def _shut(sock):
    # Wakes whoever is blocked on it, as a close does not.
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _frames(sock, patience_seconds=0.0):
    """Yield lists of whole commands or replies: as many as came at once, or within `patience_seconds`."""
    buffer, frames = b"", []
    while data := sock.recv(_RECEIVE):
        buffer += data
        start = 0
        while (end := _end(buffer, start)) is not None:
            frames.append(buffer[start:end])
            start = end
        buffer = buffer[start:]
        # What is not whole yet belongs to the same turn.
        if frames and not buffer and not select.select([sock], [], [], patience_seconds)[0]:
            yield frames
            frames = []
    if frames:
        yield frames


def _end(buffer, start):
    """Return where the RESP value that begins at `start` ends, None if it is not whole."""
    line_end = buffer.find(b"\r\n", start)
    if line_end < 0:
        return None
    kind, size, end = buffer[start : start + 1], buffer[start + 1 : line_end], line_end + 2
    if kind in b"$=!":
        end += int(size) + 2 if int(size) >= 0 else 0
        return end if end <= len(buffer) else None
    if kind in b"*~>%|":
        # An attribute (`|`) belongs to the value that follows it.
        for _ in range(int(size) * (2 if kind in b"%|" else 1) + (kind == b"|")):
            end = _end(buffer, end)
            if end is None:
                return None
    return end


def _words(frame):
    """Return the words of a command."""
    words, rest = [], frame[frame.index(b"\r\n") + 2 :]
    while rest:
        head, _, rest = rest.partition(b"\r\n")
        size = int(head.removeprefix(b"$"))
        words.append(rest[:size])
        rest = rest[size + 2 :]
    return tuple(words)
