"""An app that runs on every Python from 2.7 on, without anything installed: what `--python` serves."""

import os
import sys
import time

DOES = {}


def does(handler):
    DOES["/" + handler.__name__.replace("_", "-")] = handler
    return handler


def app(environ, start_response):
    return DOES[environ["PATH_INFO"]](environ, start_response)


def text(start_response, body, *headers):
    start_response("200 OK", [("Content-Type", "text/plain")] + list(headers))
    return [body if isinstance(body, bytes) else body.encode("utf-8")]


def asked(environ):
    return dict(pair.split("=", 1) for pair in environ["QUERY_STRING"].split("&") if pair)


def note(environ, words):
    with open(asked(environ)["file"], "a") as log:
        log.write(words + "\n")


def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.02)


@does
def python(_environ, start_response):
    installed = "no"
    try:
        import wsgi_timeout  # noqa: F401

        installed = "yes"
    except (ImportError, SyntaxError):
        pass
    return text(start_response, "%d.%d %s" % (sys.version_info[0], sys.version_info[1], installed))


@does
def fresh_processes(_environ, start_response):
    """Have numbers worked on in processes that are not forked from this one."""
    import multiprocessing

    found = []
    for way in ("spawn", "forkserver"):
        with multiprocessing.get_context(way).Pool(1) as processes:
            found += processes.map(abs, [-1, -2])
    return text(start_response, str(found))


@does
def pid(_environ, start_response):
    return text(start_response, str(os.getpid()))


@does
def echo(environ, start_response):
    body = environ["wsgi.input"].read()
    return text(start_response, body, ("X-Lines", str(body.count(b"\n"))))


@does
def back(environ, start_response):
    """Stream the request body back while it comes."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return iter(lambda: environ["wsgi.input"].read(50000), b"")


@does
def written(_environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"written, ")
    return [b"then ", b"returned"]


@does
def a_file(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return environ["wsgi.file_wrapper"](open(__file__.replace(".pyc", ".py"), "rb"))


@does
def raises(_environ, _start_response):
    raise ValueError("before the first byte")


@does
def breaks(_environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"some bytes"
    raise ValueError("after the first byte")


@does
def bad_header(_environ, start_response):
    try:
        start_response("200 OK", [("X-Bad", "a\nb")])
    except ValueError as error:
        return text(start_response, "refused: %s" % error)


@does
def prints(environ, start_response):
    print("printed by the app")
    sys.stdout.flush()
    environ["wsgi.errors"].write("written to wsgi.errors\n")
    environ["wsgi.errors"].flush()
    return text(start_response, "ok")


@does
def reports(environ, start_response):
    environ["wsgi_timeout.progress"](3, 10, u"three of ten\u2026")  # fmt: skip
    wait_for(asked(environ)["gate"])
    return text(start_response, "done")


class Closing(object):
    def __init__(self, environ):
        self.environ = environ

    def __iter__(self):
        return iter([b"body"])

    def close(self):
        note(self.environ, "closed")


@does
def closes(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Closing(environ)


@does
def sleeps(environ, start_response):
    """Run until it is interrupted, and say what it saw of that."""
    note(environ, "began")
    try:
        while True:
            time.sleep(0.1)
    except Exception:  # noqa: BLE001
        note(environ, "an exception")
    finally:
        note(environ, "finally")
    return text(start_response, "never")


@does
def endless(environ, start_response):
    """Stream without end; its generator is closed by an interrupt."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    try:
        while True:
            yield b"x" * 100000
    finally:
        note(environ, "finally")


@does
def forks(environ, start_response):
    """Fork a child that leaves its handler, and one that is terminated."""
    child = os.fork()
    if child == 0:
        return text(start_response, "the child's")
    first = os.waitpid(child, 0)[1]
    child = os.fork()
    if child == 0:
        time.sleep(60)
    os.kill(child, 15)
    return text(start_response, "%d %d" % (first, os.waitpid(child, 0)[1]))


@does
def dies(environ, start_response):
    if os.path.exists(asked(environ)["file"]):
        return text(start_response, "the second run")
    note(environ, "died")
    os.kill(os.getpid(), 9)


@does
def waits(environ, start_response):
    note(environ, "began")
    wait_for(asked(environ)["gate"])
    return text(start_response, "waited")
