"""Below prefixes and behind proxies: the app sees what it sees without jobs, and a redirect leads back."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from harness import APPS, Answer, Gunicorn, Pool, Process, is_missing, listen, until
from result_urls import MARK

#: Seconds after which a request is redirected.
WAIT = 0.2
ALONE = ("-k", "gthread", "--threads", "8", "--no-control-socket")
FORWARDED = {
    "X-Forwarded-For": "198.51.100.1",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "shop.example",
    "X-Forwarded-Port": "8443",
}

#: What follows a prefix, byte for byte.
RESTS = [
    b"/",
    b"/x?a&b=&=c&&",
    b"//host.example/path",
    b"/a%2Fb%2f%2F",
    b"/a;b=c/d;e?f;g=1",
    b"/caf%c3%a9/%FF%fe?q=%E9%80",
    b"/%E2%9C%93%00%0A",
    b"/a/../b/./c",
    b"/100%25/%zz?%2F%20+%23",
    b"/%23%3F%26x",
    b'/|^`{}[]"<>?[]={}|"<>\'',
]
#: What gunicorn 27 refuses by itself: RFC 9112 section 3.2 has it percent-encoded.
REFUSED = [b"/caf\xc3\xa9", b"/x?q=\xff", b"/\x7f"]


class Way:
    """A way to serve the app below a prefix: alone, and through jobs."""

    def __init__(self, prefix, alone, ours, *, options=(), env=None, headers=None):
        self.prefix, self.alone, self.ours = prefix, alone, ours
        self.options, self.env, self.headers = options, env or {}, headers or {}

    def start(self, site):
        """Start both gunicorns; returns them."""
        ours = self.ours.replace("NAME", repr(site.name))
        env = {**site.env, **self.env}
        first = Gunicorn(self.alone, site.redis.url, *ALONE, *self.options, env=env, cwd=APPS, config=None)
        return first, Gunicorn(ours, site.redis.url, *self.options, env=env, cwd=APPS)


GATEWAY = "wsgi_timeout:gateway('bare:app', name=NAME)"
WAYS = {
    "plain": Way(b"", "bare:app", GATEWAY),
    "SCRIPT_NAME": Way(b"/site", "bare:app", GATEWAY, env={"SCRIPT_NAME": "/site"}),
    "raw_env": Way(b"/of/raw", "bare:app", GATEWAY, options=("--env", "SCRIPT_NAME=/of/raw")),
    "header": Way(b"/named", "bare:app", GATEWAY, headers={"SCRIPT_NAME": "/named"}),
    "mounted": Way(b"/mounted", "prefixed:mounted()", "prefixed:mounted(NAME)"),
    "mounted deep": Way(b"/mounted/deep", "prefixed:mounted()", "prefixed:mounted(NAME)"),
    "ProxyFix": Way(b"", "prefixed:fixed()", "prefixed:fixed(NAME)", headers=FORWARDED),
}
#: Ways that a gunicorn of another one serves.
SHARED = {"header": "plain", "mounted deep": "mounted"}


@pytest.fixture(scope="module")
def site(deploy):
    return deploy("bare:app", pool=("--processes", "2"), wait_seconds=WAIT)


@pytest.fixture(scope="module")
def webs(site):
    """Both gunicorns of every way."""
    started = {name: way.start(site) for name, way in WAYS.items() if name not in SHARED}
    yield started
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda web: web.stop(), [web for pair in started.values() for web in pair]))


def send(port, target, headers):
    """Send a target byte for byte."""
    fields = {"Host": "shop.example", "Connection": "close", **headers}
    lines = [b"GET %b HTTP/1.1" % target, *(f"{name}: {value}".encode() for name, value in fields.items())]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(b"\r\n".join([*lines, b"", b""]))
        response = http.client.HTTPResponse(sock, method="GET")
        response.begin()
        return Answer(response.status, response.reason, response.getheaders(), response.read())


def at_once(port, target, headers):
    """Return an answer that came within the wait, as it does but on a busy machine."""
    return until(lambda: answer if (answer := send(port, target, headers)).status != 303 else None)


def with_query(target, query):
    return target + (b"&" if b"?" in target else b"?") + query


@pytest.mark.parametrize("rest", [b"", *RESTS], ids=repr)
@pytest.mark.parametrize("name", WAYS)
def test_the_app_sees_what_it_sees_directly(webs, name, rest):
    """The answer, with all that the app was told, is the one of the app served alone in the same place."""
    way = WAYS[name]
    alone, ours = webs[SHARED.get(name, name)]
    target = way.prefix + rest or b"/"
    expected = send(alone.port, target, way.headers)
    answer = at_once(ours.port, target, way.headers)
    assert (answer.status, answer.app_headers, answer.body) == (
        expected.status,
        expected.app_headers,
        expected.body,
    )
    if name != "mounted" or not rest.startswith(b"/deep"):
        assert answer.json["SCRIPT_NAME"].encode() == way.prefix


@pytest.mark.parametrize("rest", REFUSED, ids=repr)
@pytest.mark.parametrize("name", WAYS)
def test_raw_bytes_are_refused_as_directly(webs, name, rest):
    """A target with raw bytes above 0x7e never reaches an app, in either place."""
    way = WAYS[name]
    answers = [send(web.port, way.prefix + rest, way.headers) for web in webs[SHARED.get(name, name)]]
    assert [(answer.status, answer.reason) for answer in answers] == [(400, "Bad Request")] * 2


def test_a_proxy_fix_is_believed(webs):
    """Host, port, scheme and address are those that the proxy told, once."""
    told = at_once(webs["ProxyFix"][1].port, b"/x", FORWARDED).json
    keys = ("HTTP_HOST", "wsgi.url_scheme", "REMOTE_ADDR")
    assert [told[key] for key in keys] == ["shop.example:8443", "https", "198.51.100.1"]


@pytest.mark.parametrize("rest", RESTS, ids=repr)
@pytest.mark.parametrize("name", [name for name in WAYS if name not in {"raw_env", "mounted deep"}])
def test_a_redirect_leads_back(webs, gate, name, rest):
    """Location is the same place, and there comes what the app answers alone to the first request."""
    way = WAYS[name]
    alone, ours = webs[SHARED.get(name, name)]
    target = with_query(way.prefix + rest, b"file=" + os.fsencode(gate))
    first = send(ours.port, target, way.headers)
    assert first.status == 303
    own = first.location.partition(f"&{MARK}")[0]
    assert re.fullmatch(r"/(?!/)[!-~]*", own)
    assert undone(own) == undone(re.sub(rb"^//+", b"/", target).decode("latin-1"))
    gate.touch()
    last = send(ours.port, first.location.encode(), way.headers)
    expected = send(alone.port, target, way.headers)
    assert (last.status, last.body) == (200, expected.body)


def undone(url):
    """Return a URL with the characters as they are that may stand in no header."""
    return re.sub(
        "%([89A-F][0-9A-F]|22|3C|3E|5C)", lambda match: chr(int(match[1], 16)), url, flags=re.IGNORECASE
    )


# -- nginx in front

#: Where nginx puts a way's gunicorn: what follows its address, and more lines.
LOCATIONS = {
    "/": ("plain", "", ""),
    "/site/": ("SCRIPT_NAME", "", ""),
    "/named/": ("plain", "", "proxy_set_header SCRIPT_NAME /named;"),
    "/told/": ("plain", "/", "proxy_set_header X-Forwarded-Prefix /told;"),
    "/fixed/": ("ProxyFix", "/", "proxy_set_header X-Forwarded-Prefix /fixed/;"),
    "/within/": ("ProxyFix in the app", "/", "proxy_set_header X-Forwarded-Prefix /within;"),
    "/rewritten/": ("plain", "/", "proxy_redirect / /rewritten/;"),
    "/silent/": ("plain", "/", ""),
}
NGINX = """
daemon off;
worker_processes 1;
error_log stderr warn;
pid FOLDER/pid;
USER
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path FOLDER/body;
  proxy_temp_path FOLDER/proxy;
  fastcgi_temp_path FOLDER/fastcgi;
  uwsgi_temp_path FOLDER/uwsgi;
  scgi_temp_path FOLDER/scgi;
  SERVERS
}
"""


class Nginx(Process):
    """nginx before the app alone, and before the same through jobs, on a port for each."""

    def __init__(self, folder, backends):
        """`backends` are the two gunicorns' ports by the name of their way."""
        self.sockets = [listen(), listen()]
        self.ports = SimpleNamespace(
            **{
                side: sock.getsockname()[1]
                for side, sock in zip(("alone", "ours"), self.sockets, strict=True)
            }
        )
        servers = [self._server(port, backends, side) for side, port in enumerate(vars(self.ports).values())]
        config = folder / "nginx.conf"
        text = NGINX.replace("SERVERS", "\n".join(servers)).replace("FOLDER", str(folder))
        config.write_text(text.replace("USER", "user root;" if os.getuid() == 0 else ""), "utf-8")
        numbers = [sock.fileno() for sock in self.sockets]
        self._webs = [backend[1] for backend in backends.values()]
        super().__init__(
            ["nginx", "-p", folder, "-e", "stderr", "-c", config],
            env={"PATH": os.environ["PATH"], "NGINX": "".join(f"{number};" for number in numbers)},
            pass_fds=numbers,
        )

    @staticmethod
    def _server(port, backends, side):
        places = [
            f"location {path} {{ proxy_pass http://127.0.0.1:{backends[way][side].port}{uri}; {lines}"
            "proxy_set_header Host shop.example; }"
            for path, (way, uri, lines) in LOCATIONS.items()
        ]
        return "\n".join([f"server {{ listen 127.0.0.1:{port};", *places, "}"])

    def redirects(self):
        """Return how many requests were redirected behind it."""
        return sum(web.output.count('" 303 ') for web in self._webs)

    def stop(self, number=signal.SIGTERM, seconds=20.0):
        code = super().stop(number, seconds)
        for sock in self.sockets:
            sock.close()
        return code


@pytest.fixture(scope="module")
def nginx(webs, site, tmp_path_factory):
    if not shutil.which("nginx"):
        is_missing("nginx")
    target, name = "prefixed:fixed()", f"{site.name}-fixed"
    pool = Pool(target, name, site.redis.url, "--processes", "1", env=site.env, cwd=APPS)
    ours = Gunicorn(
        f"wsgi_timeout:gateway({target!r}, name={name!r})", site.redis.url, env=site.env, cwd=APPS
    )
    server = Nginx(
        tmp_path_factory.mktemp("nginx"), {**webs, "ProxyFix in the app": (webs["ProxyFix"][0], ours)}
    )
    yield server
    for process in (server, ours, pool):
        process.stop()


def curl(port, target):
    """Start a curl that follows redirects; it prints the last answer, and how many there were before."""
    url = b"http://127.0.0.1:%d%b" % (port, target)
    command = [
        "curl",
        "-sS",
        "-L",
        "-g",
        "--path-as-is",
        "-w",
        "\n%{http_code} %{num_redirects} %{url_effective}",
    ]
    return subprocess.Popen([*command, url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def printed(client):
    """Return the body, the status, the number of redirects and the last URL."""
    out, _ = client.communicate(timeout=20)
    body, _, last = out.rpartition(b"\n")
    status, redirects, url = last.decode().split(" ", 2)
    return body, int(status), int(redirects), url


def redirected(nginx, target, gate):
    """Return what curl gets alone, and through jobs behind at least one redirect."""
    target = with_query(target, b"file=" + os.fsencode(gate))
    before = nginx.redirects()
    client = curl(nginx.ports.ours, target)
    until(lambda: nginx.redirects() > before, what="a redirect")
    gate.touch()
    ours = printed(client)
    assert ours[2] >= 1
    return printed(curl(nginx.ports.alone, target)), ours


@pytest.mark.parametrize(
    "rest", [b"x?a&b=&=c&&", b"a%2Fb;c/%20%25?q=%2F;", b"/caf%C3%A9//y?%FF", b"%FF%3F%23"]
)
@pytest.mark.parametrize("path", [path for path in LOCATIONS if path != "/silent/"])
def test_curl_comes_back_through_nginx(nginx, gate, path, rest):
    """Through nginx, which keeps a prefix or takes it off, curl is led to the app's answer."""
    alone, ours = redirected(nginx, path.encode() + rest, gate)
    assert ours[:2] == alone[:2]
    assert ours[1] == 200
    assert ours[3].startswith(f"http://127.0.0.1:{nginx.ports.ours}{path}")


def test_a_prefix_that_nobody_tells_is_lost(nginx, gate):
    """A proxy that takes a prefix off, and says nothing, gets a Location without it: the README says so."""
    target = b"/silent/x?file=" + os.fsencode(gate)
    location = send(nginx.ports.ours, target, {}).location
    assert location.startswith(f"/x?file={gate}&{MARK}")
    gate.touch()
    assert json.loads(send(nginx.ports.ours, b"/silent" + location.encode(), {}).body)["PATH_INFO"] == "/x"
