"""Navigations as a browser sends them, without a browser: redirects, cookies, pages and programs."""

import re
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from harness import ask, until

#: What Chromium sends when an address is typed.
NAVIGATION = {
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Accept-Language": "en",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-User": "?1",
}
#: The same on plain http, on a host that is not this machine.
PLAIN = {"Accept": NAVIGATION["Accept"], "Upgrade-Insecure-Requests": "1"}
F5 = {"Cache-Control": "max-age=0"}
HARD = {"Cache-Control": "no-cache", "Pragma": "no-cache"}
FRAME = {**NAVIGATION, "Sec-Fetch-Dest": "iframe"}
FETCH = {"Accept": "*/*", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
MARK = "__wsgi_timeout_"


@pytest.fixture(scope="module")
def site(deploy):
    # A process that dies in a test is replaced within the time that a request waits for a worker.
    return deploy("waiting:app", pool=("--processes", "2"), wait_seconds=20, page_after=0.2, worker_wait=10)


@pytest.fixture(scope="module")
def patient(site):
    """A web process that shows no page while a test lasts."""
    web = site.start_web(gateway="page_after=60, wait_seconds=60")
    yield web
    web.stop()


@pytest.fixture(scope="module")
def elsewhere(site):
    """Another web process of the same app, as on another machine."""
    web = site.start_web(gateway="page_after=60, wait_seconds=60")
    yield web
    web.stop()


@pytest.fixture
def person():
    """A browser that keeps cookies."""
    with requests.Session() as session:
        session.headers = {**NAVIGATION}
        yield session


def result_url(page):
    return re.search(r'data-result="([^"]+)"', page.text)[1].replace("&amp;", "&")


def status_url(page):
    return re.search(r'data-status="([^"]+)"', page.text)[1].replace("&amp;", "&")


def is_waiting(page):
    return page.status_code == 200 and 'id="cancel"' in page.text


def until_ready(site, page):
    until(lambda: ask(site.web.port, status_url(page)).json["ready"], what="the result")


@pytest.mark.parametrize("headers", [NAVIGATION, PLAIN], ids=["https", "plain http"])
def test_the_page_stands_under_the_clean_address(site, person, gate, headers):
    """A slow navigation ends at its own address with a page that waits, then with the app's answer."""
    person.headers = headers
    address = f"{site.url}/report?gate={gate}&headers={len(headers)}"
    page = person.get(address)
    assert is_waiting(page)
    assert page.url == address
    assert [hop.status_code for hop in page.history] == [303, 303]
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Refresh"].startswith("1; url=/report?gate=")
    gate.touch()
    until_ready(site, page)
    answer = person.get(site.url + result_url(page))
    assert answer.url == address
    assert "The report" in answer.text
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Cache-Control" not in answer.headers  # as the app has sent it


def test_whoever_comes_back_joins(site, person, gate):
    """F5 and a second tab join what runs; a hard reload, and F5 after the result, run anew."""
    address = f"{site.url}/report?gate={gate}&join"
    pages = [person.get(address), person.get(address, headers=F5), person.get(address)]
    assert all(map(is_waiting, pages))
    assert len({result_url(page) for page in pages}) == 1
    before = len(site.runs("report"))
    assert result_url(person.get(address, headers=HARD)) != result_url(pages[0])
    assert len(site.runs("report")) == before + 1
    gate.touch()
    until_ready(site, pages[0])
    # Each tab asks for its own, also after the other one has got it.
    for _ in range(2):
        assert "The report" in person.get(site.url + result_url(pages[0])).text
    assert len(site.runs("report")) == before + 1
    # The hard reload's result is there too, for whoever comes first.
    for runs in (before + 1, before + 2):
        assert "The report" in person.get(address, headers=F5).text
        assert len(site.runs("report")) == runs


def test_who_closes_the_tab_finds_the_result(site, person, gate):
    """Whoever comes back to the address after the end gets what is there, once."""
    address = f"{site.url}/report?gate={gate}&closed"
    page, before = person.get(address), len(site.runs("report"))
    gate.touch()
    until_ready(site, page)
    assert "The report" in person.get(address).text
    assert len(site.runs("report")) == before
    assert "The report" in person.get(address).text
    assert len(site.runs("report")) == before + 1


def test_without_cookies_the_page_stands_at_the_result_url(site, gate):
    """A browser that refuses cookies waits at the result URL, and gets its answer there; a POST's too."""
    for method, path in (("GET", "report"), ("POST", "form")):
        address = f"{site.url}/{path}?gate={gate}.{method}"
        page = requests.request(
            method, address, data={"n": 7} if path == "form" else None, headers=NAVIGATION
        )
        while page.history:  # requests keeps cookies within a chain
            page = requests.get(site.url + page.history[0].headers["Location"], headers=NAVIGATION)
        assert is_waiting(page)
        assert f"{MARK}call=" in page.url
        gate.with_name(f"{gate.name}.{method}").touch()
        until_ready(site, page)
        answer = requests.get(site.url + result_url(page), headers=NAVIGATION)
        assert ("The report" if path == "report" else "answer 7") in answer.text


def test_a_posts_result_is_not_an_answer_to_get(site, person, gate):
    """A POST's response stands under the address, is stored by nobody, and F5 gets the form."""
    address = f"{site.url}/form?gate={gate}"
    page = person.post(address, data={"n": 5})
    assert is_waiting(page)
    gate.touch()
    until_ready(site, page)
    answer = person.get(site.url + result_url(page))
    assert (answer.url, "answer 5" in answer.text) == (address, True)
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert "<form" in person.get(address, headers=F5).text


def test_two_forms_at_once(site, person, gate):
    """Two tabs that come for their results at the same time each get their own, whoever is first."""
    address = f"{site.url}/form?gate={gate}&two"
    pages = [person.post(address, data={"n": n}) for n in (1, 2)]
    gate.touch()
    for page in pages:
        until_ready(site, page)
    with ThreadPoolExecutor(1) as threads:
        led = person.get(site.url + result_url(pages[0]), allow_redirects=False)
        assert led.headers["Location"] == address.removeprefix(site.url)
        other = threads.submit(person.get, site.url + result_url(pages[1]))
        assert "answer 1" in person.get(address).text
        assert "answer 2" in other.result().text


@pytest.mark.parametrize("headers", [FRAME, FETCH, {"Accept": "image/*"}], ids=["frame", "fetch", "image"])
def test_what_is_no_navigation_keeps_its_redirects(site, person, gate, headers):
    """A frame, a fetch and an image wait as before, though the browser has our cookies."""
    address = f"{site.url}/report?gate={gate}&{len(headers)}"
    person.get(address)
    before = len(site.runs("report"))
    gate.touch()
    answer = requests.get(address, headers=headers, cookies=person.cookies)
    assert "The report" in answer.text
    assert len(site.runs("report")) == before + 1


def test_the_app_never_sees_our_cookies(site, person, gate):
    """Neither a call nor a left-out route gets a cookie of ours; the app's own stay as they are."""
    person.cookies.set("session", "a=b")
    person.get(f"{site.url}/report?gate={gate}&cookies")
    assert any(name.startswith(MARK) for name in person.cookies.keys())  # noqa: SIM118 - cookies, not names
    person.get(f"{site.url}/report?other")
    assert not [line for line in site.runs() if not line.endswith(" -")]


def test_a_cancelled_call_says_so(site, person, gate):
    """The page's button ends the call; its page says so at the address, which then can be opened again."""
    address = f"{site.url}/report?gate={gate}&cancelled"
    page = person.get(address)
    answer = person.post(site.url + status_url(page))
    assert (answer.status_code, answer.url) == (410, address)
    assert "<h1>Cancelled</h1>" in answer.text
    assert f'href="/report?gate={gate}&amp;cancelled"' in answer.text
    gate.touch()
    assert "The report" in person.get(address).text


def test_a_lost_worker_is_told_without_its_words(site, person, gate):
    """A page about a crash has a sentence for people and a reference, under which the log has the rest."""
    page = person.post(f"{site.url}/dies?gate={gate}")
    gate.touch()
    until_ready(site, page)
    answer = person.get(site.url + result_url(page))
    assert answer.status_code == 502
    assert "<h1>This did not finish</h1>" in answer.text
    assert not re.search(r"signal|worker|exit", answer.text.replace(str(gate), ""))
    reference = re.search(r"Reference: ([0-9a-f]{8})", answer.text)[1]
    site.web.wait_for(f"reference {reference}: 502 to GET /dies: its worker died while it ran")


def test_a_download_is_announced(site, person, gate):
    """What a browser saves is announced by a page, which then asks for it."""
    address = f"{site.url}/download?gate={gate}"
    page = person.get(address)
    gate.touch()
    until_ready(site, page)
    said = person.get(site.url + result_url(page))
    assert (said.url, said.headers["Refresh"]) == (address, "1")
    assert "<h1>Your download has started</h1>" in said.text
    saved = person.get(address, headers=F5)
    assert saved.content == bytes(range(256)) * 400
    assert saved.headers["Content-Disposition"] == 'attachment; filename="numbers.bin"'


def test_nobody_waits_for_a_response_that_is_not_wanted(site, gate):
    """With `wait_for_response=False` a person gets 202 and the page, a program its JSON."""
    web = site.start_web(gateway="wait_for_response=False")
    try:
        before = len(site.runs("report"))
        page = requests.get(f"{web.url}/report?gate={gate}&no-wait", headers=NAVIGATION)
        assert (page.status_code, page.history, "Set-Cookie" in page.headers) == (202, [], False)
        assert 'data-keep="1"' in page.text
        assert result_url(page) == page.headers["Location"]
        assert is_waiting(requests.get(web.url + result_url(page), headers=NAVIGATION))
        gate.touch()
        until(lambda: ask(web.port, status_url(page)).json["ready"], what="the result")
        assert "The report" in requests.get(web.url + result_url(page), headers=NAVIGATION).text
        assert len(site.runs("report")) == before + 1
        assert set(ask(web.port, "/report").json) >= {"result_url", "status_url"}
    finally:
        web.stop()


def test_never_leaves_the_chain(site, person, gate):
    """With `waiting_page="never"`, also of one route, a browser is redirected as any client."""
    web = site.start_web(gateway="wait_seconds=0.3, routes={'/report': {'waiting_page': 'never'}}")
    try:
        first = person.get(f"{web.url}/report?gate={gate}", allow_redirects=False)
        assert (first.status_code, "Set-Cookie" in first.headers) == (303, False)
        second = person.get(web.url + first.headers["Location"], allow_redirects=False)
        assert second.headers["Location"].endswith("hop=2")
        assert is_waiting(person.get(f"{web.url}/form?gate={gate}")) is False
    finally:
        web.stop()


def test_an_asset_needs_no_route(site, person, gate):
    """The page's stylesheet and script come from its own path, and may be kept for ever."""
    address = f"{site.url}/report?gate={gate}&asset"
    page = person.get(address)
    for query in re.findall(r'"([?]__wsgi_timeout_asset=[^"]+)"', page.text):
        answer = person.get(f"{site.url}/report{query}")
        assert answer.headers["Content-Type"].split(";")[0] in {"text/css", "text/javascript"}
        assert "immutable" in answer.headers["Cache-Control"]


def navigation(port, path, headers=()):
    """Send a navigation on a connection of its own, and return that."""
    fields = {"Host": "site.example", "Connection": "close", **NAVIGATION, **dict(headers)}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    return sock


def received(sock):
    """Return all that comes on a connection."""
    with sock:
        return b"".join(iter(lambda: sock.recv(65536), b""))


def test_an_impatient_person_runs_once(site, patient, elsewhere, gate):
    """Who reloads before anything was shown joins the call, in any process: five reloads, one run."""
    path, before = f"/report?gate={gate}&impatient", len(site.runs("report"))
    for web in (patient, elsewhere, elsewhere, patient, patient):
        ended = web.output.count(" 499 ")
        sock = navigation(web.port, path, F5)
        until(lambda: len(site.runs("report")) > before, what="the run")
        sock.close()
        until(lambda w=web, n=ended: w.output.count(" 499 ") > n, what="the end of that request")
    last = navigation(elsewhere.port, path, {**F5, "X-Request-Id": "5"})
    gate.touch()
    assert b"The report" in received(last)
    assert len(site.runs("report")) == before + 1


def test_a_page_that_goes_on_waiting_is_noted(site, patient, gate):
    """While a first request waits, others find a note of it; the note goes with its answer."""
    before = set(site.noted())
    waiting = navigation(patient.port, f"/report?gate={gate}&noted")
    until(lambda: set(site.noted()) - before, what="the note")
    (note,) = set(site.noted()) - before
    gate.touch()
    assert b"The report" in received(waiting)
    until(lambda: note not in site.noted(), what="the end of the note")


OTHERS = {
    "hard reload": HARD,
    "person": {"Cookie": "session=bob"},
    # An app may show it, and it may be somebody's own.
    "page": {"Referer": "http://site.example/secret"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_request_joins_nobody(site, patient, elsewhere, gate, other):
    """A hard reload, another cookie, another page that led here: a run of its own, though the first left."""
    path, ended = f"/report?gate={gate}&others", patient.output.count(" 499 ")
    before = len(site.runs("report"))
    left = navigation(patient.port, path, {"Cookie": "session=ada"})
    until(lambda: len(site.runs("report")) == before + 1, what="the first run")
    left.close()
    until(lambda: patient.output.count(" 499 ") > ended, what="the end of the first request")
    stays = navigation(elsewhere.port, path, {"Cookie": "session=ada", **other})
    until(lambda: len(site.runs("report")) == before + 2, what="the second run")
    gate.touch()
    assert b"The report" in received(stays)


def test_nobody_joins_who_is_still_there(site, patient, elsewhere, gate):
    """Two people who ask for the same at the same time, with the same headers, get a run each."""
    path = f"/report?gate={gate}&both"
    before = len(site.runs("report"))
    both = []
    for number, web in enumerate((patient, elsewhere), 1):
        both.append(navigation(web.port, path, F5))
        until(lambda n=number: len(site.runs("report")) == before + n, what="the run")
    gate.touch()
    assert all(b"The report" in received(sock) for sock in both)
