"""A blueprint and its host: the host's login, sessions and routes, and hosts of other shapes."""

import re
from urllib.parse import urlsplit

import pytest
import requests
from blueprint_host import HOST, SHORT, TARGETS_OF_BARE, exchange, logged_in, pids, same
from harness import ask, follow
from result_urls import MARK


def path_of(location):
    """Return the path of a host's own redirect, which Werkzeug made absolute before 2.1."""
    return urlsplit(location).path


# -- the host's own


def test_the_hosts_own_routes_come_first(port, web):
    """A route of the host below a prefix, or that only begins like it, is the host's."""
    for path in ("/bare/own", "/barefoot"):
        assert ask(port, path).json["pid"] in pids(web)
    assert ask(port, "/bare/own/x").json["PATH_INFO"] == "/own/x"
    assert ask(port, "/nowhere").status == 404
    assert ask(port, "/barefeet").status == 404


@pytest.mark.parametrize("method", ["GET", "POST", "PROPFIND", "OPTIONS"])
@pytest.mark.parametrize("target", ["/members/area", "/members/area/x?pid", "//members/area/x"])
def test_the_login_check_guards_a_request(port, target, method):
    """Who is not logged in gets the host's login, and nothing runs."""
    answer = exchange(port, target.encode(), method)
    assert (answer.status, path_of(answer.location)) == (302, "/login")
    assert exchange(port, target.encode(), method, headers={**HOST, **logged_in(port)}).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_the_login_check_guards_a_result_url(hasty, gate, method):
    """The right token alone is not enough: without a login every hop, and the status URL, is the login."""
    cookie = logged_in(hasty)
    first = ask(hasty, f"/members/area/x?file={gate}", headers=cookie)
    assert first.status == 303
    gate.touch()
    status = first.location.replace(f"{MARK}call", f"{MARK}status").partition(f"&{MARK}hop")[0]
    for url in (first.location, status):
        refused = ask(hasty, url, method)
        assert (refused.status, path_of(refused.location)) == (302, "/login")
    # What was refused has used nothing up, nor cancelled the call.
    answer = follow(hasty, first.location, headers=cookie)[-1]
    assert answer.json["PATH_INFO"] == "/x"


def test_who_has_logged_out_gets_nothing(hasty, gate):
    """A client that logs out while its request runs gets the login, not the result."""
    with requests.Session() as client:
        base = f"http://127.0.0.1:{hasty}"
        client.post(f"{base}/login/ann", timeout=30)
        first = client.get(f"{base}/members/area/x?file={gate}", timeout=30, allow_redirects=False)
        assert first.status_code == 303
        client.post(f"{base}/logout", timeout=30)
        gate.touch()
        answer = client.get(base + first.headers["Location"], timeout=30, allow_redirects=False)
        assert (answer.status_code, path_of(answer.headers["Location"])) == (302, "/login")


@pytest.mark.parametrize("prefix", ["/bare", "/team/bare", "//bare", "/bare//members/area", "/some/calls"])
def test_a_result_belongs_to_its_place(hasty, gate, prefix):
    """The same app under a prefix without a login does not give out what was asked for behind one."""
    cookie = logged_in(hasty)
    location = ask(hasty, f"/members/area/x?file={gate}", headers=cookie).location
    gate.touch()
    elsewhere = location.replace("/members/area", prefix)
    assert exchange(hasty, elsewhere.encode(), headers={**HOST, **cookie}).status == 404
    assert follow(hasty, location, headers=cookie)[-1].status == 200


def test_a_blueprints_own_guard(hasty, gate):
    """`before_request` of the blueprint itself guards both, too."""
    assert ask(hasty, "/staff/x").status == 403
    admin = logged_in(hasty, "admin")
    location = ask(hasty, f"/staff/x?file={gate}", headers=admin).location
    gate.touch()
    assert ask(hasty, location, headers=logged_in(hasty)).status == 403
    assert follow(hasty, location, headers=admin)[-1].status == 200


def test_after_request_signs_every_answer(hasty, gate):
    """The host's `after_request` and session reach the redirect and the response, after the app's headers."""
    cookie = logged_in(hasty)
    first = ask(hasty, f"/members/area?file={gate}", headers=cookie)
    gate.touch()
    last = follow(hasty, first.location, headers=cookie)[-1]
    assert (first.status, last.status) == (303, 200)
    assert [answer.header("X-Host") for answer in (first, last)] == ["members.call for ann"] * 2
    cookies = [value.partition(";")[0] for name, value in last.headers if name == "Set-Cookie"]
    assert cookies[:2] == ["a=1", "b=2"]
    assert cookies[2] == 'host="was here"'
    assert cookies[3].startswith("session=")


def test_a_form_that_the_host_has_read(port):
    """A body that `before_request` took away is an error that says so, and no empty form in the app."""
    answer = requests.post(
        f"http://127.0.0.1:{port}/bottle/upload?peek",
        files={"part": ("x", b"data")},
        data={"field": "value"},
        timeout=30,
    )
    assert answer.status_code == 400
    assert re.fullmatch(r"the request body ended after 0 of \d+ bytes", answer.json()["detail"])


def test_a_websocket_is_refused(port):
    """A WebSocket handshake gets our 501, not a 400 of the host's routing."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAA",
    }
    assert ask(port, "/bare/x", headers=headers).status == 501


# -- hosts of other shapes


@pytest.mark.parametrize("target", TARGETS_OF_BARE[1:])
def test_an_app_at_the_root(serve, pools, target):
    """Without a prefix the app has all that the host has no route for, with an empty SCRIPT_NAME."""
    ports = serve("host:root").port, serve("bare:app", config=None).port
    told = same(*ports, target.encode() if target.startswith("/") else b"/" + target.encode()).json
    assert told.get("SCRIPT_NAME", "") == ""


def test_a_route_beside_an_app_at_the_root(serve, pools):
    """The host's routes come before an app at the root."""
    root = serve("host:root")
    assert ask(root.port, "/own").json["pid"] in pids(root)
    assert ask(root.port, "/own/x?pid").json["pid"] in pids(pools["bare"])


@pytest.mark.parametrize("target", ["/bare", "/bare//a%2Fb?c", "/of/acme/x", "/team/bare/y"])
def test_a_host_that_is_mounted_itself(serve, pools, gate, target):
    """Below a SCRIPT_NAME of the host, the app's is both; the result URL stands under it."""
    port = serve("host:host", script="/site", wait=SHORT).port
    prefix = re.match(r"/bare|/of/acme|/team/bare", target)[0]
    mark = "&" if "?" in target else "?"
    location = ask(port, f"/site{target}{mark}file={gate}").location
    assert location.startswith(f"/site{target}{mark}file={gate}&{MARK}call=")
    gate.touch()
    assert follow(port, location)[-1].json["SCRIPT_NAME"] == f"/site{prefix}"


def test_one_inside_another(port, pools):
    """A wrapped app with a blueprint of this kind runs what it wraps in place, in its own worker."""
    (worker,) = pids(pools["nesting"])
    assert ask(port, "/nesting/pid").json["pid"] == worker
    told = ask(port, "/nesting/inner/x%2Fy?pid").json
    assert told["pid"] == worker
    assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("/nesting/inner", "/x/y")


def test_a_stub_below_a_prefix(port, pools):
    """The web functions of a stub are mounted under the prefix and their labels, each with its settings."""
    told = ask(port, "/stub/site/a//b?c", headers=HOST).json
    assert told["pid"] in pids(pools["several"])
    assert (told["root"], told["path"]) == ("/stub/site", "a//b")
    assert ask(port, "/stub/v1.api/x").text == "from the API"
    accepted = ask(port, "/stub/later?x=3")
    assert accepted.status == 202
    assert accepted.location.startswith(f"/stub/later?x=3&{MARK}call=")
    assert ask(port, accepted.location).json == {"later": 3}
    assert ask(port, "/stub/missing").status == 404


def test_a_host_behind_a_gateway(serve, pools):
    """Where the host itself runs in workers, so does all that it wraps: one call, not two."""
    port = serve("wsgi_timeout:gateway('host:host', name='hosts')").port
    told = ask(port, "/bare/x?pid").json
    assert told["pid"] in pids(pools["hosts"])
    assert told["SCRIPT_NAME"] == "/bare"
    assert path_of(ask(port, "/members/area").location) == "/login"
