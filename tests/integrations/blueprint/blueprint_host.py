"""The host of the blueprint's tests, what it wraps, and requests to it."""

import http.client
import socket
from concurrent.futures import ThreadPoolExecutor

from harness import Answer, ask

#: Seconds that most requests wait, however busy the machine is.
WAIT = 30


#: Seconds after which a request is redirected where a test wants that.
SHORT = 0.3


#: What the workers serve, by the name of its queue.
TARGETS = {
    "bare": "bare:app",
    "below-flask": "basic:app",
    "bottled": "bottled:app",
    "django_project": "django_project:application",
    "nesting": "nesting:app",
    "several": "several:stub",
    "hosts": "host:host",
}


#: The prefix of an app in the host, and what gunicorn serves directly under the same one.
DIRECT = {
    "/bare": "bare:app",
    "/members/area": "bare:app",
    "/flask": "basic:app",
    "/bottle": "bottled:app",
    "/django": "django_project:application",
}
HOST = {"Host": "shop.example"}


def stop_all(processes):
    with ThreadPoolExecutor(len(processes)) as threads:
        list(threads.map(lambda process: process.stop(), processes))


def pids(process):
    return {child.pid for child in process.workers()}


def exchange(port, target, method="GET", headers=HOST, body=b""):
    """Send a request target byte for byte, also one that `http.client` would not send."""
    fields = {"Connection": "close", "Content-Length": str(len(body)), **headers}
    lines = [f"{method} ".encode() + target + b" HTTP/1.1"]
    lines += [f"{name}: {value}".encode() for name, value in fields.items()]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(b"\r\n".join([*lines, b"", body]))
        response = http.client.HTTPResponse(sock, method=method)
        response.begin()
        return Answer(response.status, response.reason, response.getheaders(), response.read())


def seen(answer):
    """Return what a client sees of an answer, but for the server's own headers."""
    return answer.status, answer.reason, answer.app_headers, answer.body


def same(port, direct_port, target, method="GET", **options):
    """Compare the answer of the host with the direct one, and return it."""
    ours = exchange(port, target, method, **options)
    assert seen(ours) == seen(exchange(direct_port, target, method, **options))
    return ours


TARGETS_OF_BARE = [
    "",
    "/",
    "?a=1",
    "//",
    "///a//b//",
    "/a//b?c=//d",
    "/a%2Fb",
    "/%2F",
    "/%2F%2Fevil.example/x",
    "/caf%C3%A9",
    "/%E2%9C%93",
    "/%FF%FE",
    "/a;b=c/d;e?f;g=1",
    "/%3B%3F%23",
    "/a/../b/./c/..",
    "/%2e%2e/x",
    "/a%0Ab%0D",
    "/a%20b+c",
    "/100%25",
    "/*",
    "/a:b@c,d!$&'()",
    "/a%zz",
    "/|^`{}",
    "?",
    "/x?a&b=&=c&&a=2",
    "/x?a=%2F%20+%C3%A9&A=1",
    "/x?[]=1|2",
]


def logged_in(port, user="ann"):
    """Return the header of a client that has logged in to the host."""
    answer = ask(port, f"/login/{user}", "POST")
    return {"Cookie": answer.header("Set-Cookie").partition(";")[0]}
