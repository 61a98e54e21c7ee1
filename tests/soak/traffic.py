"""Clients of the soak: each sends one call after the other, follows it to its outcome, and writes it down."""

import http.client
import json
import random
import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from soaked import content

from soak.site import SETTINGS

#: Seconds after which a client gives an accepted call up: over the longest chain of faults.
PATIENCE = 90.0
#: How often each kind is sent.
WEIGHTS = {
    "read": 6,
    "write": 6,
    "upload": 2,
    "drip": 2,
    "download": 2,
    "slow": 2,
    "function": 4,
    "reload": 2,
    "cancel": 2,
    "leave": 3,
}
#: Seconds between two pieces of a slow client, and bytes of one.
PACE_SECONDS = 0.03
PIECE = 16 * 1024
#: Connections of one client that never get further than half a head.
HALVES = 5
SMALL = 200
#: Seconds after a delivery in which its result can surely be had again.
SURE = SETTINGS["delivery_grace"] - 1
_CALL = re.compile(r"__wsgi_timeout_call=([^&]+)")


class Broken(Exception):
    """The connection broke: before an answer, or within it."""

    def __init__(self, *, answered):
        super().__init__("the connection broke")
        self.answered = answered


class Gone(Exception):
    """The call cannot be followed any more."""


@dataclass
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def location(self):
        return self.headers["Location"]


def send(port, target, method="GET", body=None, *, slowly=False):
    """Return one answer as it stands; raises `Broken`. A slow client sends and reads piece by piece."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    answered = False
    try:
        if slowly and body:
            headers = {"Content-Length": str(len(body))}
            connection.request(method, target, body=pieces(body), headers=headers)
        else:
            connection.request(method, target, body=body)
        answer = connection.getresponse()
        answered = True
        return Reply(answer.status, answer.headers, read_slowly(answer) if slowly else answer.read())
    except (OSError, http.client.HTTPException) as error:
        raise Broken(answered=answered) from error
    finally:
        connection.close()


def pieces(body):
    for start in range(0, len(body), PIECE):
        time.sleep(PACE_SECONDS)
        yield body[start : start + PIECE]


def read_slowly(answer):
    found = []
    while piece := answer.read(PIECE):
        found.append(piece)
        time.sleep(PACE_SECONDS)
    if answer.length:
        raise http.client.IncompleteRead(b"".join(found), answer.length)
    return b"".join(found)


class Client(threading.Thread):
    """Sends calls to one target until `stopped` is set."""

    def __init__(self, name, seed, target, ports, history, stopped):
        super().__init__(name=name)
        self._target = target
        self._halves = []
        self.errors = []
        self._random = random.Random(seed)
        self._ports = ports
        self._history = history
        self._stopped = stopped

    def run(self):
        count = 0
        while not self._stopped.is_set():
            count += 1
            kind = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            try:
                self._call(kind, f"{self.name}-{count}")
            except Exception as error:  # noqa: BLE001 - the soak itself is at fault
                self.errors.append(repr(error))
        for sock in self._halves:
            sock.close()

    def _call(self, kind, number):
        if self._random.random() < 1 / 4:
            self._send_half()
        method, path, body, size = self._request(kind, number)
        # Of reloads and cancels, which are reads and writes, more is asked.
        plain = "write" if method == "POST" else "read"
        known = {"reload": plain, "cancel": plain, "leave": "leave-write" if method == "POST" else "leave"}
        self._history.note(number, "sent", kind=known.get(kind, kind), target=self._target)
        if kind == "leave":
            self._leave(method, path)
            self._history.note(number, "left")
            return
        try:
            reply = send(self._port(), path, method, body, slowly=kind in {"slow", "drip"})
        except Broken as broken:
            # Its head came, so it was accepted; without a result URL nobody can ask again.
            if broken.answered and kind != "function":
                self._history.note(number, "answer", status="broken", right=False)
            else:
                self._history.note(number, "unknown")
            return
        if reply.status == 503:
            self._history.note(number, "refused")
            return
        location, followed = reply.location, time.monotonic()
        try:
            if kind == "function":
                self._function(number, reply)
                return
            if reply.status == 303:
                self._history.note(number, "accepted")
                reply = self._follow(self._meddle(kind, number, location), slowly=kind == "slow")
        except Gone as gone:
            self._history.note(number, "gone", why=str(gone))
            return
        right = reply.body == self._content(number, size)
        self._history.note(number, "answer", status=reply.status, right=right, late=self._is_late(followed))
        if kind == "reload" and location and reply.status == 200:
            self._reload(number, location, size)

    def _reload(self, number, location, size):
        """Ask for a result again that was answered just now; note what came, and whether it came late."""
        answered = time.monotonic()
        try:
            reply = self._follow(location)
        except Gone:
            self._history.note(number, "again", status="gone", right=False, late=False)
            return
        late = self._is_late(answered)
        right = reply.body == self._content(number, size)
        self._history.note(number, "again", status=reply.status, right=right, late=late)

    @staticmethod
    def _is_late(since):
        """Whether the grace of a result that was delivered then may be over."""
        return time.monotonic() - since > SURE

    def _send_half(self):
        """Open a connection that never gets further than half a head; close the oldest one."""
        with suppress(OSError):
            sock = socket.create_connection(("127.0.0.1", self._port()), timeout=30)
            sock.sendall(b"GET /read/half HTTP/1.1\r\nHost: ")
            self._halves.append(sock)
        if len(self._halves) > HALVES:
            self._halves.pop(0).close()

    def _leave(self, method, path):
        """Send a request and close the connection, at once or while it waits."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port()), timeout=30) as sock:
            sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            time.sleep(self._random.choice((0, 0.1, 0.3)))

    def _request(self, kind, number):
        """Return method, target, body and the size of the answer."""
        pause = round(self._random.choice((0, 0, 0.2, 0.8, 1.5)), 2)
        if kind == "cancel":
            return "GET", f"/read/{number}?pause=4", None, SMALL
        if kind == "read" or (kind == "reload" and self._random.random() < 0.5):
            return "GET", f"/read/{number}?pause={pause}", None, SMALL
        if kind == "leave":
            what = self._random.choice(("GET /read", "GET /download", "POST /write"))
            return (*f"{what}/{number}?pause={pause}&size=300000".split(), None, SMALL)
        if kind in {"download", "slow"}:
            size = self._random.randrange(100_000, 2_000_000 if kind == "download" else 500_000)
            return "GET", f"/download/{number}?size={size}", None, size
        if kind == "function":
            return "POST", f"/spawn/{number}?pause={pause}", b"", SMALL
        return self._with_body(kind, number, pause)

    def _with_body(self, kind, number, pause):
        if kind in {"upload", "drip"}:
            most = 3_000_000 if kind == "upload" else 300_000
            body = self._content(number, self._random.randrange(20_000, most))
            return "POST", f"/upload/{number}", body, SMALL
        body = self._content(number, self._random.randrange(2000))
        return "POST", f"/write/{number}?pause={pause}", body, SMALL

    def _content(self, number, size):
        return content(number, size, self._target)

    def _meddle(self, kind, number, location):
        """Do with a running call what its kind says; return where it goes on."""
        if kind == "reload":
            # A second reader, that leaves again.
            another = http.client.HTTPConnection("127.0.0.1", self._port(), timeout=30)
            try:
                another.request("GET", location)
                self._history.note(number, "shared")
                time.sleep(0.2)
            except OSError:
                pass
            finally:
                another.close()
        if kind == "cancel":
            found = _CALL.search(location)
            target = f"{urlsplit(location).path}?__wsgi_timeout_status={found[1]}"
            try:
                # Where Redis' reply was lost, a 503 does not say whether it was cancelled.
                if send(self._port(), target, "DELETE").status in {202, 410, 503}:
                    self._history.note(number, "cancelled")
            except Broken:
                # It may have been cancelled all the same.
                self._history.note(number, "cancelled")
        return location

    def _follow(self, location, *, slowly=False):
        """Return a call's outcome from its result URL, through redirects and breaks."""
        deadline = time.monotonic() + PATIENCE
        last = "nothing"
        while time.monotonic() < deadline:
            try:
                reply = send(self._port(), location, slowly=slowly)
            except Broken:
                last = "a broken connection"
                time.sleep(0.1)
                continue
            last = str(reply.status)
            if reply.status == 303:
                location = reply.location
            elif reply.status == 404:
                raise Gone("404 on its result URL")
            elif reply.status == 503:
                time.sleep(0.3)
            else:
                return reply
        raise Gone(f"no outcome in {PATIENCE:.0f} s, {last} at the end")

    def _function(self, number, reply):
        if reply.status == 303:
            reply = self._follow(reply.location)
        if reply.status != 200:
            # The handler that spawns was lost: before the spawn, or after it.
            self._history.note(number, "unknown")
            return
        call_id = json.loads(reply.body)["call_id"]
        self._history.note(number, "accepted")
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            reply = self._poll(call_id)
            if reply is not None and reply.status == 200:
                right = reply.body == self._content(number, SMALL)
                self._history.note(number, "answer", status=200, right=right)
                return
            if reply is not None and reply.status == 500:
                status = 502 if b"WorkerLost" in reply.body else 500
                self._history.note(number, "answer", status=status, right=False, why=reply.body.decode())
                return
            time.sleep(0.2)
        raise Gone(f"no result in {PATIENCE:.0f} s")

    def _poll(self, call_id):
        try:
            reply = send(self._port(), f"/poll/{call_id}")
            return self._follow(reply.location) if reply.status == 303 else reply
        except (Broken, Gone):
            return None

    def _port(self):
        return self._random.choice(self._ports)
