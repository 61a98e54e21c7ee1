"""The result URL: waited on, delivered, had again, gone."""

import re
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime

import pytest
import requests
from contract_site import SLOW, get
from harness import ask, follow, raw_request, until
from result_urls import MARK, call_in, ready_result, status_url, until_delivered

pytestmark = pytest.mark.usefixtures("nothing_is_left")

# -- the result URL


def test_a_result_url_can_be_reloaded_while_it_runs(site, port, strict, gate, seen):
    """Many clients, in two web processes, wait on one result URL: nothing is started twice, all get it."""
    ports = [port, strict.port] * 4
    location = ask(port, f"/numbers?size=3000000&file={gate}&tag=reload").location
    with ThreadPoolExecutor(len(ports)) as threads:
        waited = list(threads.map(lambda port: ask(port, location), ports))
        assert {call_in(answer.location)[::2] for answer in waited} == {(call_in(location)[0], "2")}
        chains = [threads.submit(follow, port, location) for port in ports]
        gate.touch()
        opened = time.monotonic()
        bodies = [chain.result()[-1].body for chain in chains]
        seen("until eight had 3 MB", [time.monotonic() - opened])
    assert len(site.runs("reload")) == 1
    assert set(bodies) == {array("Q", range(375_000)).tobytes()}


def test_a_result_url_answers_as_soon_as_it_can(site, patient, no_wait, tmp_path):
    """A request that waits on a result URL gets the result when it is there."""
    seconds = []
    with ThreadPoolExecutor(1) as threads:
        for number in range(5):
            gate = tmp_path / str(number)
            location = ask(no_wait.port, f"/gate?file={gate}").location
            answer = threads.submit(ask, patient.port, location)
            record = f"wt:call:{call_in(location)[0]}"
            until(lambda record=record: site.redis.client.hget(record, "inboxes"), what="the waiter")
            gate.touch()
            began = time.monotonic()
            assert answer.result().text == "passed \n"
            seconds.append(time.monotonic() - began)
    # A wake that went astray would cost two seconds.
    assert sorted(seconds)[2] < 1.5


def test_within_the_grace_a_delivered_result_is_had_again(site, port, seen):
    """A result that was delivered comes again, the same, for a while."""
    location = ready_result(port, f"/slow?tag=again&{SLOW}")
    answers, took = [], []
    for _ in range(3):
        began = time.monotonic()
        answers.append(ask(port, location))
        took.append(time.monotonic() - began)
    seen("a result, first and again", took)
    assert {(answer.status, answer.body) for answer in answers} == {(200, b"slow GET again 0\n")}
    until_delivered(port, location)
    assert len(site.runs("again")) == 1


def test_a_post_to_a_delivered_result_goes_to_the_clean_url(site, port):
    """A form that posts to the address it was shown under reaches the app, already within the grace."""
    location = ready_result(port, f"/slow?tag=form&{SLOW}")
    assert ask(port, location).status == 200
    until_delivered(port, location)
    answer = ask(port, location, "POST", body=b"12345")
    assert (answer.status, answer.reason) == (307, "Temporary Redirect")
    assert answer.location == f"/slow?tag=form&{SLOW}"
    again = requests.post(f"{site.url}{location}", data=b"12345", timeout=30)
    assert again.text == "slow POST form 5\n"
    assert len(site.runs("form")) == 2


def test_a_post_to_a_result_that_was_not_delivered_gets_it(site, port):
    """Before its delivery any method on a result URL gets the result, and runs nothing."""
    location = ready_result(port, f"/slow?tag=methods&{SLOW}", "POST", body=b"1")
    for method in ("OPTIONS", "DELETE"):
        # Each of these is a delivery; only the first comes before one.
        answer = ask(port, location, method)
        assert answer.status in {200, 307}
    assert len(site.runs("methods")) == 1


@pytest.fixture(scope="module")
def delivered(site, strict):
    """The result URL of a call that was delivered, and whose grace is over."""
    location = ready_result(site.web.port, f"/slow?a=1&b=%2F<>&tag=delivered&{SLOW}".replace("<>", "%3C%3E"))
    assert ask(strict.port, location).status == 200
    until(lambda: ask(strict.port, location).status == 410, what="the end of the grace")
    return location


def test_after_the_grace_a_result_is_gone(site, port, delivered, seen):
    """A delivered result is 410 after its grace, with when that was and the address without our part."""
    began = time.monotonic()
    answer = ask(port, delivered)
    seen("the 410", [time.monotonic() - began])
    clean = delivered.partition("&__wsgi")[0]
    assert (answer.status, answer.header("Content-Type")) == (410, "application/problem+json")
    assert answer.json["url"] == clean
    date = parsedate_to_datetime(re.search(r"\w{3}, [^.]* GMT", answer.json["detail"])[0])
    assert abs(date.timestamp() - time.time()) < 60
    assert answer.header("Cache-Control") == "no-store"
    assert len(site.runs("delivered")) == 1


def test_after_the_grace_a_browser_gets_a_page_with_a_link(port, delivered):
    """For a browser the 410 is a page with the date and a link that opens the address anew."""
    answer = ask(port, delivered, headers={"Accept": "text/html,*/*;q=0.8"})
    clean = delivered.partition("&__wsgi")[0].replace("&", "&amp;")
    assert (answer.status, answer.header("Content-Type")) == (410, "text/html; charset=utf-8")
    assert f'href="{clean}">Open this address again</a>' in answer.text
    assert re.search(r"delivered on \w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", answer.text)
    assert f"{MARK}call" not in answer.text


def test_after_the_grace_a_post_goes_to_the_clean_url(port, delivered):
    """A POST to a result that is gone is sent on, with its body, to the address without our part."""
    answer = ask(port, delivered, "POST", body=b"12345")
    assert (answer.status, answer.location) == (307, delivered.partition("&__wsgi")[0])


def test_whatever_does_not_fit_is_unknown(site, port, delivered, gate, seen):
    """A wrong token, another path, an unknown or malformed id: the same 404 for all, delivered or not."""
    running = ask(port, f"/gate?file={gate}").location
    wrong = []
    for location in (running, delivered):
        call_id, token, _ = call_in(location)
        path, _, query = location.partition("?")
        other = token[:-1] + ("A" if token[-1] != "A" else "B")
        wrong += [
            location.replace(token, other),
            location.replace(token, token[:-1]),
            location.replace(call_id, call_id[:-1]),
            location.replace(f"{call_id}.{token}", call_id),
            location.replace(f"{call_id}.{token}", ""),
            location.replace("__wsgi_timeout_hop=1", f"__wsgi_timeout_call={call_id}.{other}"),
            location.replace("__wsgi_timeout_hop=1", f"__wsgi_timeout_status={call_id}.{token}"),
            f"/fast?{query}",
            f"{path}/?{query}",
            status_url(location).replace(token, other),
            status_url(location).replace(path, "/fast"),
        ]
    wrong.append("/fast?__wsgi_timeout_call=fc-AAAAAAAAAAAAAAAAAAAAAA." + "A" * 32)
    wrong.append("/fast?__wsgi_timeout_call=%00")
    answers, took = set(), []
    for target in wrong:
        began = time.monotonic()
        answer = ask(port, target)
        took.append(time.monotonic() - began)
        answers.add((answer.status, *answer.app_headers, answer.body))
    seen("a 404", took)
    assert len(wrong) == 24
    assert len(answers) == 1
    assert answers.pop()[0] == 404
    assert {ask(port, target, "DELETE").status for target in wrong} == {404}
    assert ask(port, status_url(running)).json["state"] == "running"


def test_head_consumes_nothing(port):
    """HEAD on a result URL shows the headers of the result, which can be had after that."""
    location = ready_result(port, f"/slow?tag=head&{SLOW}")
    head = ask(port, location, "HEAD")
    assert (head.status, head.body, head.header("Content-Length")) == (200, b"", "16")
    assert ask(port, status_url(location)).json["delivered"] is None
    answer = ask(port, location)
    assert (answer.body, answer.app_headers) == (b"slow GET head 0\n", head.app_headers)


def test_a_prefetch_does_not_use_a_result_up(port, seen):
    """A prefetch of a result URL is refused."""
    location = ready_result(port, f"/slow?tag=prefetch&{SLOW}")
    for name, value in (
        ("Sec-Purpose", "prefetch"),
        ("Sec-Purpose", "prefetch;prerender"),
        ("Purpose", "prefetch"),
    ):
        began = time.monotonic()
        answer = ask(port, location, headers={name: value})
        seen("the 503", [time.monotonic() - began])
        assert (answer.status, answer.header("Retry-After")) == (503, "5")
    assert ask(port, status_url(location)).json["delivered"] is None


def test_headers_change_on_result_urls_only(port, patient):
    """On a result URL `Accept-Ranges` is dropped, and a response without `Cache-Control` made private."""
    direct = ask(patient.port, "/file")
    assert (direct.header("Accept-Ranges"), direct.header("Cache-Control")) == ("bytes", None)
    late = ask(port, ready_result(port, f"/file?{SLOW}"))
    assert late.app_headers == [
        *(pair for pair in direct.app_headers if pair[0] != "Accept-Ranges"),
        ("Cache-Control", "private, no-store"),
    ]
    own = ask(port, ready_result(port, f"/file?cache=max-age=60&{SLOW}"))
    assert [value for key, value in own.headers if key == "Cache-Control"] == ["max-age=60"]


@pytest.mark.parametrize("target", ["/breaks", "/raises"])
def test_a_failure_behind_a_redirect_is_the_apps_own(port, plain, seen, target):
    """An exception of the app gets, at the end of a chain too, what gunicorn alone would answer."""
    location = ready_result(port, f"{target}?{SLOW}")
    began = time.monotonic()
    last = ask(port, location)
    seen("the 500 from its result URL", [time.monotonic() - began])
    alone = ask(plain.port, target)
    assert (last.status, last.body) == (alone.status, alone.body) == (500, alone.body)


def test_a_response_that_breaks_breaks_the_connection(port):
    """A response that fails in mid-body never looks complete on a result URL either."""
    for target in ("/breaks?pieces=2", "/breaks?pieces=2&length=1000"):
        answer = raw_request(port, get(ready_result(port, f"{target}&{SLOW}")))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"piece 1\n" in answer
        assert not answer.endswith(b"0\r\n\r\n")


def test_no_log_holds_a_token(site, port):
    """Neither web nor worker processes log a token, not for a handler that raised, not for a bad request."""
    locations = [ready_result(port, f"{target}?{SLOW}") for target in ("/breaks", "/raises", "/slow")]
    locations.append(ready_result(port, f"/breaks?pieces=1&{SLOW}"))
    for location in locations:
        raw_request(port, get(location))
        raw_request(port, get(location, "GET", "Bad Header: x"))
        raw_request(port, f"GET {location} nonsense\r\n\r\n".encode())
        raw_request(port, f"GET {location.replace('=', '%3D')} nonsense\r\n\r\n".encode())
        ask(port, status_url(location))
        ask(port, "/raises", headers={"Referer": f"{site.url}{location}"})
    calls = [call_in(location) for location in locations]
    until(lambda: all(call_id in site.pool.output for call_id, _, _ in calls), what="their lines")
    until(lambda: all(call_id in site.web.output for call_id, _, _ in calls), what="their lines here")
    for _, token, _ in calls:
        assert token not in site.web.output
        assert token not in site.pool.output
