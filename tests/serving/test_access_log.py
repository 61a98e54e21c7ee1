"""gunicorn's access log: ids and no tokens, clean for formatters too, one line whatever a client sends."""

import re
import signal
import socket

from harness import APPS, Gunicorn, ask, raw_request, until

CONFIG = """
import json, logging, sys
from wsgi_timeout.gunicorn_conf import *

class Line(logging.Formatter):
    def format(self, record):
        atoms = record.args
        names = ("r", "q", "U", "s", "f", "{referer}i", "{raw_uri}e")
        return "LINE " + json.dumps([atoms[name] for name in names])

logconfig_dict = {
    "version": 1, "disable_existing_loggers": False,
    "formatters": {"line": {"()": Line}},
    "handlers": {"line": {"class": "logging.StreamHandler", "stream": sys.stdout, "formatter": "line"}},
    "root": {"level": "INFO", "handlers": []},
    "loggers": {"gunicorn.access": {"level": "INFO", "handlers": ["line"], "propagate": False}},
}
"""


def test_redirects_and_hops_have_their_calls_id(deploy, gate):
    """A redirect and its hop are logged with the id, never with the token; a path stays on its line."""
    site = deploy(pool=("--processes", "1"), wait_seconds=0.5)
    location = ask(site.web.port, f"/gate?file={gate}").location
    gate.touch()
    assert ask(site.web.port, location).status == 200
    assert ask(site.web.port, "/x" + location.replace("?", "%3F")).status == 404
    raw_request(site.web.port, b"GET /x%0aforged%1b[31m HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    call_id, token = re.search(r"=(fc-[\w-]+)\.([\w-]+)", location).groups()
    until(
        lambda: len(re.findall(rf" {re.escape(call_id)}$", site.web.output, re.MULTILINE)) == 2,
        what="two lines",
    )
    until(lambda: r"/x\nforged\x1b[31m" in site.web.output, what="the escaped path")
    until(lambda: r"/x\nforged\x1b[31m" in site.pool.output, what="the same in the worker's log")
    assert "\x1b" not in site.web.output + site.pool.output
    assert token not in site.web.output + site.pool.output


def test_formatters_see_no_token(deploy, gate, tmp_path):
    """A JSON formatter gets a line for each hop, with every atom and without a token; statsd is told too."""
    site = deploy(pool=("--processes", "1"), wait_seconds=0.5)
    (tmp_path / "conf.py").write_text(CONFIG)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.settimeout(10)
        statsd = ("--statsd-host", f"127.0.0.1:{sink.getsockname()[1]}")
        app = f"wsgi_timeout:gateway({site.target!r}, name={site.name!r})"
        web = Gunicorn(app, site.redis.url, *statsd, env=site.env, cwd=APPS, config=str(tmp_path / "conf.py"))
        try:
            until(web.workers, what="the worker")
            location = ask(web.port, f"/gate?file={gate}").location
            gate.touch()
            assert ask(web.port, location, headers={"Referer": f"http://x{location}"}).status == 200
            until(lambda: web.output.count("LINE ") == 2, what="two lines")
            assert location.partition(".")[2][:20] not in web.output
            assert "Traceback" not in web.output
            assert b"gunicorn" in sink.recv(4096)
        finally:
            web.stop(signal.SIGTERM)
