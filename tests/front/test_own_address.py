"""A client that was led to a result URL lives there: what it asks for next reaches the app."""

import json

import pytest
from harness import ask, follow
from result_urls import MARK, ready_result, until_delivered

#: More than one wait, by what a busy machine may be late.
SLOW = "seconds=0.5"
NAVIGATION = {"Accept": "text/html,*/*;q=0.8", "Upgrade-Insecure-Requests": "1"}


@pytest.fixture(scope="module")
def site(deploy):
    return deploy("addresses:app", pool=("--processes", "2"), gateway="except_=['/seen']", wait_seconds=0.05)


@pytest.fixture(scope="module")
def port(site):
    return site.web.port


def ended(port, target, **options):
    """Follow 303s and 307s to their end; the answer has the target it came from."""
    answer = ask(port, target, **options)
    while answer.status in {303, 307}:
        target = answer.location
        answer = ask(port, target, **options)
    return target, answer


@pytest.mark.parametrize("change", ["&page=2", "&export=csv", "&sort=a%26b", "?view=2"])
def test_another_query_is_another_request(site, port, change):
    """A result URL with another query leads to that query's own answer, while it runs and after."""
    tag = f"query{change[1:4]}"
    running = ask(port, f"/list?page=1&tag={tag}&{SLOW}").location
    answer = ask(port, running + change)
    assert (answer.status, answer.location) == (303, f"/list?page=1&tag={tag}&{SLOW}{change}")
    assert ended(port, running)[1].text == "page 1"
    assert len(site.runs(f"{tag}-GET")) == 1
    answer = ask(port, (running + change), "POST", body=b"1")
    assert (answer.status, answer.location) == (307, f"/list?page=1&tag={tag}&{SLOW}{change}")


def test_a_url_that_is_spelt_anew_is_the_same(site, port):
    """Other escapes, another order of the names, `;` for `&`: the result, and no second run."""
    result = ready_result(port, f"/list?page=%7E1&tag=spelt&{SLOW}")
    ours = result[result.index(MARK) :].replace("wsgi_timeout_call", "wsgi%5Ftimeout%5fcall")
    for target in (
        f"/list?{SLOW}&tag=spelt&page=~1&{ours}",
        f"/./%6Cist?{ours}&page=%7e1&tag=spelt&{SLOW}",
        f"/x/../list?page=%7e1&tag=spelt&{SLOW};{ours.replace('&', ';')}",
    ):
        assert (ask(port, target).status, ask(port, target).text) == (200, "page ~1")
    assert len(site.runs("spelt-GET")) == 1


@pytest.mark.parametrize(
    "condition",
    [{"If-None-Match": '"v1"'}, {"Range": "bytes=0-3"}, {"Range": "bytes=900-"}, {"If-Match": '"other"'}],
)
def test_an_answer_to_a_condition_fits_requests_with_that_condition(port, condition):
    """Sent with the first URL only it gets the whole page; sent on every hop, the app's answer."""
    first = ask(port, f"/copy?{SLOW}", headers=condition)
    target, answer = ended(port, first.location)
    assert (answer.status, len(answer.body)) == (200, 400)
    # As a cache would, were it led to the URL of which it has a copy.
    assert not target.endswith(SLOW)
    expected = ask(port, "/copy", headers=condition)
    assert expected.status in {206, 304, 412, 416}
    _, answer = ended(port, f"/copy?{SLOW}", headers=condition)
    assert (answer.status, answer.body) == (expected.status, expected.body)


def test_a_range_of_a_delivered_result_is_the_apps(port):
    """A player that seeks, or a download that goes on, gets the bytes that it asks for."""
    whole, answer = ended(port, f"/copy?{SLOW}", headers={"Range": "bytes=0-"})
    assert answer.status == 206
    until_delivered(port, whole)
    _, answer = ended(port, whole, headers={"Range": "bytes=395-"})
    assert (answer.status, answer.body) == (206, b"56789")


def test_a_get_of_a_heads_result_url_gets_the_page(site, port):
    """A call that ran as a HEAD has no body: a GET reaches the app; the reverse needs no second run."""
    result = ready_result(port, f"/list?page=1&tag=head&{SLOW}", "HEAD")
    assert ask(port, result, "HEAD").status == 200
    assert ended(port, result)[1].text == "page 1"
    assert [len(site.runs(f"head-{method}")) for method in ("HEAD", "GET")] == [1, 1]


@pytest.mark.parametrize(
    "headers",
    [
        NAVIGATION,
        {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {"Accept": "text/event-stream"},
        {"HX-Request": "true"},
        {"Referer": "itself"},
    ],
    ids=["navigation", "frame", "event-stream", "htmx", "referer"],
)
def test_a_client_that_comes_back_reaches_the_app(site, port, headers, request):
    """A reload, an EventSource, a page's own script ask the app anew once the result was delivered."""
    tag = request.node.callspec.id
    result = ready_result(port, f"/list?page=1&tag={tag}&{SLOW}")
    headers = {name: f"http://x{result}" if value == "itself" else value for name, value in headers.items()}
    assert ask(port, result, headers=headers).status == 200
    until_delivered(port, result)
    # A program that asks again has the same once more.
    assert ask(port, result).text == "page 1"
    answer = ask(port, result, headers=headers)
    assert (answer.status, answer.location) == (303, f"/list?page=1&tag={tag}&{SLOW}")
    assert len(site.runs(f"{tag}-GET")) == 1


def test_nothing_comes_back_to_a_call_that_nobody_waited_for(site):
    """A reload of a kept result URL starts nothing: the result within the grace, then 410."""
    web = site.start_web(gateway="wait_for_response=False, delivery_grace=0.5")
    try:
        result = ask(web.port, "/copy?tag=kept", headers={"If-None-Match": '"v1"'}).location
        _, answer = ended(web.port, result)
        assert (answer.status, len(answer.body)) == (200, 400)
        until_delivered(web.port, result)
        statuses = set()
        while 410 not in statuses:
            statuses |= {
                ask(web.port, result, method, headers=NAVIGATION).status for method in ("GET", "POST")
            }
        # 404: its record went between two looks at it.
        assert statuses <= {200, 404, 410}
        assert len(site.runs("kept-GET")) == 1
    finally:
        web.stop()


def test_an_event_stream_goes_on_where_it_was(port):
    """An EventSource that comes back to where it was led is served by the app, from its last event on."""
    headers = {"Accept": "text/event-stream"}
    target, events = f"/feed?{SLOW}", []
    for last in ("1", "2"):
        target, answer = ended(port, target, headers=headers)
        events += [line for line in answer.text.splitlines() if line.startswith("id")]
        headers["Last-Event-ID"] = last
    assert events == ["id: 1", "id: 2"]


def test_a_challenge_behind_a_redirect_can_be_answered(site, port):
    """Credentials that answer a 401 on its result URL reach the app; wrong ones end, and do not go round."""
    target, answer = ended(port, f"/private?tag=login&{SLOW}")
    assert (answer.status, answer.header("WWW-Authenticate")) == (401, "Bearer")
    assert ended(port, target, headers={"Authorization": "Bearer good"})[1].text == "welcome"
    assert ended(port, target, headers={"Authorization": "Bearer bad"})[1].status == 401
    assert len(site.runs("login-GET")) == 3
    assert (
        follow(port, f"/private?tag=all&{SLOW}", headers={"Authorization": "Bearer good"})[-1].status == 200
    )
    assert len(site.runs("all-GET")) == 1


def test_a_left_out_route_does_not_see_our_parameters(port):
    """Nor in the query, nor in any header, however they are spelt."""
    ours = f"{MARK}call=fc-AbC_-123456.t0ken_t0ken-t0ken"
    escaped = "http%3A%2F%2Fx%2Fa%3Fb%3D1%26" + ours.replace("=", "%3D")
    headers = {
        "Referer": f"http://x/a?{ours}&b=1",
        "HX-Current-URL": escaped,
        "X-Page": f'{{"u": "/a?{ours}"}}',
    }
    found = ask(port, f"/seen?x=1&{MARK}hop=3", headers=headers).json
    assert MARK not in json.dumps(found)
    assert (found["HTTP_REFERER"], found["QUERY_STRING"]) == ("http://x/a?b=1", "x=1")
    assert (found["HTTP_HX_CURRENT_URL"], found["HTTP_X_PAGE"]) == (
        "http%3A%2F%2Fx%2Fa%3Fb%3D1",
        '{"u": "/a"}',
    )
