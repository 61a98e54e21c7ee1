"""A page in Chromium that was led to a result URL, or that fetches from another origin."""

import pytest
from harness import ask, listen, until

#: More than one wait.
SLOW = "seconds=0.4"

FETCH = """
const [url, options, done] = arguments;
const read = async (answer) => done([answer.status, await answer.text()]);
fetch(url, options).then(read, (error) => done([0, String(error)]));
"""


@pytest.fixture(scope="module")
def site(deploy):
    return deploy("addresses:app", pool=("--processes", "1"), wait_seconds=0.1, waiting_page="never")


@pytest.fixture(scope="module")
def sharing(site):
    """A web process that lets pages of `localhost` read what is served at 127.0.0.1."""
    sock = listen()
    port = sock.getsockname()[1]
    web = site.start_web(gateway=f"cors_origins='http://localhost:{port}'", sock=sock)
    yield web
    web.stop()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "GET "),
        ({"credentials": "include", "headers": {"X-More": "1"}}, "GET "),
        ({"method": "POST", "headers": {"Content-Type": "application/json"}, "body": "{}"}, "POST {}"),
    ],
    ids=["simple", "credentials", "preflight"],
)
def test_a_page_of_another_origin_follows_to_the_result(browser, sharing, options, expected):
    """A cross-origin fetch goes through every hop, preflights of ours included, to the app's own answer."""
    browser.get(f"http://localhost:{sharing.port}/list?page=1")
    found = browser.execute_async_script(FETCH, f"{sharing.url}/shared?{SLOW}", options)
    assert found == [200, expected]


def test_who_is_not_listed_gets_no_headers(sharing):
    """Another origin gets none, nor do the app's own answers and preflights get any of ours."""
    for origin, allowed in ((f"http://localhost:{sharing.port}", True), ("http://evil.example", False)):
        headers = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
        first = ask(sharing.port, f"/shared?{SLOW}", headers={"Origin": origin})
        answers = [first, ask(sharing.port, first.location, "OPTIONS", headers=headers)]
        found = [answer.header("Access-Control-Allow-Origin") for answer in answers]
        assert found == [origin if allowed else None] * 2
        assert answers[1].status == 204
        wrong = ask(sharing.port, "/x?__wsgi_timeout_call=none", headers={"Origin": origin})
        assert (wrong.header("Access-Control-Allow-Origin") is not None) == allowed
    own = until(lambda: (a := ask(sharing.port, "/shared", "OPTIONS", headers=headers)).status == 200 and a)
    assert (own.header("Access-Control-Allow-Origin"), own.header("Vary")) == ("http://evil.example", None)


@pytest.mark.slow
def test_after_a_third_origin_a_browser_says_null(site, sharing, browser):
    """A chain that has crossed to a third origin is followed where `*` is allowed, without credentials."""
    everybody = site.start_web(gateway="cors_origins='*'")
    try:
        browser.get(f"http://localhost:{sharing.port}/list?page=1")

        def fetched(first, last, options):
            there = f"{first.url}/away?to={last.url}/shared?{SLOW}"
            return browser.execute_async_script(FETCH, there, options)

        assert fetched(sharing, everybody, {}) == [200, "GET "]
        assert fetched(sharing, everybody, {"credentials": "include"})[0] == 0
        # The page's origin is listed there, but is not what the browser sends.
        assert fetched(everybody, sharing, {})[0] == 0
        found = browser.execute_async_script(
            FETCH, f"{sharing.url}/shared?{SLOW}", {"credentials": "include"}
        )
        assert found == [200, "GET "]
    finally:
        everybody.stop()


def test_a_dashboard_goes_on_after_a_redirect(site, browser):
    """A page with `<meta refresh>` shows new answers of the app, though it stands at a result URL."""
    browser.get(f"{site.url}/list?page=1")
    # Not by `get`, which would wait for a page that never comes to rest.
    browser.execute_script("location.href = arguments[0]", f"/dashboard?tag=dashboard&{SLOW}")
    until(lambda: len(site.runs("dashboard-GET")) >= 3, 30, "three answers of the app")
    browser.get("about:blank")


def test_a_reload_by_a_script_is_a_new_request(site, browser):
    """`location.reload()` on a page that stands at a result URL shows a new answer of the app."""
    browser.get(f"{site.url}/list?page=1&tag=reload&{SLOW}")
    assert "__wsgi_timeout_call=" in browser.current_url
    browser.execute_script("location.reload()")
    until(lambda: len(site.runs("reload-GET")) == 2, 30, "a second run")
    browser.get("about:blank")


def test_an_event_source_goes_on_after_a_redirect(site, browser):
    """An EventSource that reconnects to where it was led gets the event after its last one."""
    browser.get(f"{site.url}/list?page=1")
    script = """
    const [url, done] = arguments, seen = [], source = new EventSource(url);
    source.onmessage = (event) => {
        seen.push(event.data);
        if (seen.length == 3) { source.close(); done(seen); }
    };
    """
    assert browser.execute_async_script(script, f"/events?{SLOW}") == ["1", "2", "3"]


def test_a_page_that_the_browser_has_a_copy_of_shows(site, browser):
    """A fetch that revalidates its copy gets the whole page, with 200, though a redirect comes between."""
    browser.get(f"{site.url}/list?page=1")
    # Chromium keeps the copy of the clean URL, and asks for it to be confirmed.
    browser.execute_async_script(FETCH, "/copy?copied", {})
    for url in ("/copy?copied", f"/copy?{SLOW}", f"/copy?{SLOW}"):
        status, body = browser.execute_async_script(FETCH, url, {"cache": "no-cache"})
        assert (status, len(body)) == (200, 400)
    found = browser.execute_async_script(FETCH, f"/copy?{SLOW}", {"headers": {"If-None-Match": '"v1"'}})
    assert found[0] == 304
