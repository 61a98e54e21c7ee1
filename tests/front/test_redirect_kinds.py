"""What a redirect to a result URL says, and with which status."""

import asyncio
import json

import pytest
from harness import ask, follow, raw_request
from result_urls import MARK, ready_result, status_url

SLOW = "seconds=0.5"


@pytest.fixture(scope="module")
def site(deploy):
    routes = {"POST /list": {"redirect_status": 307}}
    return deploy("addresses:app", pool=("--processes", "1"), gateway=f"{routes=}", wait_seconds=0.05)


@pytest.fixture(scope="module")
def port(site):
    return site.web.port


def test_a_redirect_says_what_it_is_as_json(port):
    """Where JSON is accepted the redirect's body has the state and both URLs, absolute."""
    answer = ask(port, f"/list?{SLOW}", headers={"Accept": "Application/JSON", "Host": "shop.example"})
    assert (answer.status, answer.header("Content-Type")) == (303, "application/json")
    assert answer.json == {
        "state": "running",
        "result_url": f"http://shop.example{answer.location}",
        "status_url": f"http://shop.example{status_url(answer.location)}",
    }
    # Its one worker is busy: another one waits in the queue, and says so until it runs.
    queued = ask(port, f"/list?{SLOW}", headers={"Accept": "application/json"})
    states = [queued.json["state"]]
    while queued.status == 303:
        states.append(queued.json["state"])
        queued = ask(port, queued.location, headers={"Accept": "application/json"})
    assert (states[0], sorted(set(states))) == ("queued", ["queued", "running"])
    assert states == sorted(states)
    found = ask(port, status_url(answer.location), headers={"Host": 'x"y'}).json
    # A host that is none is not repeated.
    assert found["result_url"].startswith(f"http://127.0.0.1:{port}/list?{SLOW}&{MARK}call=")


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [("POST", {}, 307), ("PUT", {}, 303), ("PUT", {"MCP-Protocol-Version": "2025-06-18"}, 307)],
)
def test_a_307_by_route_or_by_protocol(site, port, method, headers, status):
    """With 307 a client sends method and body again on every hop: they are dropped, one run answers."""
    tag = f"kept-{method}-{len(headers)}"
    target, statuses, answer = f"/list?page=1&tag={tag}&{SLOW}", [], None
    while answer is None or answer.status in {303, 307}:
        answer = ask(port, target, method, headers=headers, body=bytes(100_000))
        statuses.append(answer.status)
        target = answer.location
    assert set(statuses[:-1]) == {status}
    assert answer.text == "page 1"
    assert len(site.runs(f"{tag}-{method}")) == 1


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        ("unsafe-url", "strict-origin-when-cross-origin"),
        ("no-referrer, No-Referrer-When-Downgrade", "strict-origin-when-cross-origin"),
        ("same-origin", "same-origin"),
    ],
)
def test_no_other_site_is_sent_a_result_url(port, policy, shown):
    """A page's policy that sends whole URLs to other sites is stricter on a result URL, and only there."""
    result = ready_result(port, f"/policy?policy={policy.replace(' ', '+')}&{SLOW}")
    assert ask(port, result).header("Referrer-Policy") == shown


@pytest.mark.parametrize(
    ("method", "shown"), [("GET", ["public, max-age=60"] * 2), ("PUT", ["private, no-store"])]
)
def test_no_cache_takes_the_answer_to_a_put_for_a_gets(port, method, shown):
    """Behind a redirect a PUT's answer is fetched by a GET: there it may not be stored, a GET's own may."""
    result = ready_result(port, f"/list?cache=public,+max-age=60&{SLOW}", method)
    found = ask(port, result)
    assert [value for name, value in found.headers if name.endswith("Cache-Control")] == shown


def test_a_get_that_announces_a_body_and_sends_none_is_answered(port):
    """`curl -H "Transfer-Encoding: chunked" -d ...` does so after a 303: nobody waits for that body."""
    result = ready_result(port, f"/list?page=5&{SLOW}")
    lines = f"GET {result} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert raw_request(port, lines.encode(), timeout=40).endswith(b"page 5")


def test_a_part_of_the_apps_own_page_does_not_lead_back_to_the_result_url(port):
    """After a POST `Location: #part` means the app's own address, which is asked for by a GET."""
    result = ready_result(port, f"/away?to=%23part&{SLOW}")
    assert ask(port, result).location == f"/away?to=%23part&{SLOW}#part"


@pytest.mark.parametrize("what", ["Decimal(1)", "Number()", "object()", "nan", "10**400", "'\\udce9'"])
def test_progress_never_ends_a_handler(port, what):
    """Whatever is reported, the response comes, and the status is JSON that all clients can read."""
    running = ask(port, f"/progress?what={what}&{SLOW}").location

    def refuse(name):
        raise ValueError(name)

    found = json.loads(ask(port, status_url(running)).body, parse_constant=refuse)
    assert found["progress"]["done"] == {"Decimal(1)": 1, "Number()": 1.5}.get(what)
    assert follow(port, running)[-1].text == "reported"


@pytest.mark.slow
def test_an_mcp_client_gets_the_answer_of_a_slow_tool(deploy):
    """The official client of the Model Context Protocol completes a call of ten times the wait."""
    client = pytest.importorskip("mcp.client.client")
    site = deploy("mcp_server:app", pool=("--processes", "1"), wait_seconds=0.3)

    async def call():
        async with client.Client(f"{site.url}/mcp") as session:
            return await session.call_tool("slow", {"seconds": 3})

    assert asyncio.run(call()).content[0].text == "took 3 s"
    assert len(site.runs("tool")) == 1
