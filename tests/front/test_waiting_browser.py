"""What a browser shows of calls of every kind, and its own ways to an address: reloads, history, tabs."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from chromium import SOON, addresses, until_title
from harness import ask, until
from selenium.webdriver.common.by import By

MARK = "__wsgi_timeout_"
#: Goes to the address again each time that a file is there; the page's script lives on until an answer comes.
IMPATIENT = """
const [gate, times, again] = arguments;
(async () => {
    for (let n = 0; n < times; n++) {
        await fetch(`/nothing?gate=${gate}.${n}`);
        again === "reload" ? location.reload() : location.assign(again);
    }
})();
"""


@pytest.fixture(scope="module")
def site(deploy):
    return deploy("waiting:app", pool=("--processes", "2"), wait_seconds=20, page_after=0.3, worker_wait=10)


@pytest.fixture(scope="module")
def patient(site):
    """Two web processes that show the page after a time that is never over here."""
    web = site.start_web("--workers", "2", gateway="page_after=60, wait_seconds=60")
    yield web
    web.stop()


@pytest.mark.parametrize("way", ["reload", "link"])
def test_five_reloads_are_one_run(site, patient, tab, gate, way):
    """Five reloads, or five more clicks on a link, before anything was shown are one run."""
    address = f"{patient.url}/report?gate={gate}&{way}"
    if way == "reload":
        gate.touch()
        tab.get(address)
        gate.unlink()
    else:
        tab.get(f"{patient.url}/")
    before, ended = len(site.runs("report")), patient.output.count(" 499 ")
    tab.execute_script(IMPATIENT, str(gate), 6, "reload" if way == "reload" else address)
    for number in range(6):
        gate.with_name(f"{gate.name}.{number}").touch()
        until(lambda: len(site.runs("report")) > before, SOON, "the run")
        until(site.noted, SOON, "the note of a request that waits")
        until(lambda n=number: patient.output.count(" 499 ") == ended + n, SOON, "the end of the one before")
    gate.touch()
    until_title(tab, "report")
    assert len(site.runs("report")) == before + 1
    assert MARK not in "".join(addresses(tab))


def send(browser, number):
    """Send the form that a tab shows, and return the status URL of the waiting page."""
    field = browser.find_element(By.ID, "n")
    field.clear()
    field.send_keys(str(number))
    browser.find_element(By.ID, "send").click()
    until_title(browser, "· /form")
    return status_of(browser)


def show(browser, number):
    """Show a tab: what is hidden looks less often."""
    browser.switch_to.window(browser.window_handles[number])
    browser.execute_cdp_cmd("Page.bringToFront", {})


def status_of(browser):
    # By one command: the page may be on its way to another one.
    return browser.execute_script("return document.querySelector('main')?.dataset.status")


def test_two_forms_of_one_address(site, tab, gate):
    """Two tabs that sent one form with other values each get their own answer, also the one that reloads."""
    address = f"{site.url}/form?gate={gate}"
    tab.get(address)
    tab.switch_to.new_window("tab")
    tab.get(address)
    second = send(tab, 2)
    show(tab, 0)
    first = send(tab, 1)
    assert first != second
    show(tab, 1)
    tab.refresh()
    until(lambda: status_of(tab) == second, SOON, "the call of that tab")
    show(tab, 0)
    tab.refresh()
    until(lambda: status_of(tab) == first, SOON, "the call of this tab")
    gate.touch()
    for number in (1, 2):
        show(tab, number - 1)
        until_title(tab, "answer")
        assert f"answer {number}<" in tab.page_source
        assert tab.current_url == address
        assert MARK not in "".join(addresses(tab))


def test_back_and_forward(site, tab, gate):
    """Back leaves a page that waits, Forward finds it again; after the result they lead as without us."""
    address = f"{site.url}/report?gate={gate}&history"
    before = len(site.runs("report"))
    tab.get(f"{site.url}/")
    tab.get(address)
    until_title(tab, "· /report")
    tab.back()
    until_title(tab, "index")
    tab.forward()
    until_title(tab, "· /report")
    gate.touch()
    until(lambda: tab.title == "report", SOON, "the report")
    assert len(site.runs("report")) == before + 1
    tab.back()
    until_title(tab, "index")
    tab.forward()
    until(lambda: tab.title == "report", SOON, "the report again")
    assert [url.partition("&")[0] for url in addresses(tab)[-2:]] == [
        f"{site.url}/",
        address.partition("&")[0],
    ]
    assert MARK not in "".join(addresses(tab))


def test_the_address_opened_elsewhere(site, tab, gate):
    """A duplicate of the tab, a bookmark, and a tab that is opened again after all closed: one run."""
    address = f"{site.url}/report?gate={gate}&elsewhere"
    before = len(site.runs("report"))
    tab.get(f"{site.url}/")
    home = tab.current_window_handle
    tab.switch_to.new_window("tab")
    tab.get(address)
    until_title(tab, "· /report")
    # Opened by its own script a tab has the session storage of the first one, as a duplicate has.
    tab.execute_script("window.open(location.href)")
    tab.switch_to.window(tab.window_handles[-1])
    until_title(tab, "· /report")
    for window in tab.window_handles:
        if window != home:
            tab.switch_to.window(window)
            tab.close()
    tab.switch_to.window(home)
    tab.get(address)
    until_title(tab, "· /report")
    assert len(site.runs("report")) == before + 1
    gate.touch()
    until(lambda: tab.title == "report", SOON, "the report")
    assert len(site.runs("report")) == before + 1
    assert tab.current_url == address


def text_of(browser):
    return browser.execute_script("return document.querySelector('main')?.innerText") or ""


@pytest.mark.slow
def test_a_call_of_sixty_waits(site, tab, gate):
    """A call that takes sixty times as long as one request may wait is shown when it is there."""
    wait, before = 0.03, len(site.runs("report"))
    web = site.start_web(gateway=f"wait_seconds={wait}, page_after={wait}")
    try:
        address = f"{web.url}/report?gate={gate}&sixty&done=1&total=60&message=still"
        tab.get(address)
        until_title(tab, "1 % · /report")
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 60 * wait, what="sixty waits")
        assert "still" in text_of(tab)
        gate.touch()
        until(lambda: tab.title == "report", SOON, "the report")
        assert tab.current_url == address
        assert len(site.runs("report")) == before + 1
    finally:
        web.stop()


def test_a_queued_call_has_a_place(site, tab, gate):
    """While others run the page says which place in the queue it has, then that it runs."""
    first = gate.with_name("first")
    with ThreadPoolExecutor(2) as threads:
        before = len(site.runs("report"))
        others = [threads.submit(ask, site.web.port, f"/report?gate={first}&n={n}") for n in (1, 2)]
        until(lambda: len(site.runs("report")) == before + 2, SOON, "both at work")
        tab.get(f"{site.url}/report?gate={gate}&queued")
        until_title(tab, "Waiting for its turn · /report")
        assert "Place 1 in the queue" in text_of(tab)
        assert len(site.runs("report")) == before + 2
        first.touch()
        assert [other.result().status for other in others] == [200, 200]
    until_title(tab, "Working on it · /report")
    assert "Place" not in text_of(tab)
    gate.touch()
    until(lambda: tab.title == "report", SOON, "the report")


@pytest.mark.parametrize(("path", "says"), [("raises", "Internal Server Error"), ("dies", "did not finish")])
def test_a_call_that_fails(site, tab, gate, path, says):
    """A handler that raises, or dies, ends the page with what that is without us, or ours, at the address."""
    address = f"{site.url}/{path}?gate={gate}"
    tab.get(address)
    until_title(tab, f"· /{path}")
    gate.touch()
    until(lambda: says in tab.page_source, SOON, "the failure")
    assert tab.current_url == address
    assert MARK not in "".join(addresses(tab))
    assert ("Reference" in text_of(tab)) == (path == "dies")


def test_a_call_that_is_cancelled_elsewhere(site, tab, gate):
    """A page whose call somebody else cancels says so, and leads on."""
    tab.get(f"{site.url}/report?gate={gate}&elsewhere-cancelled")
    until_title(tab, "· /report")
    assert ask(site.web.port, status_of(tab), "DELETE").status == 202
    until_title(tab, "Cancelled")
    assert "Open this address again" in text_of(tab)
    gate.touch()


@pytest.mark.slow
def test_at_once_and_never(site, tab, gate):
    """`at-once` shows the page before anything was waited for, `never` leaves a browser its redirects."""
    web = site.start_web(
        gateway="page_after=60, wait_seconds=60, waiting_page='at-once',"
        "routes={'/form': {'waiting_page': 'never', 'wait_seconds': 0.5}}"
    )
    try:
        address = f"{web.url}/report?gate={gate}&at-once"
        tab.get(address)
        until_title(tab, "· /report")
        tab.get(f"{web.url}/form?gate={gate}")
        before = len(site.runs("form"))
        with ThreadPoolExecutor(1) as threads:
            sent = threads.submit(tab.find_element(By.ID, "send").click)
            until(lambda: len(site.runs("form")) > before, SOON, "the form")
            until(lambda: web.output.count('"GET /form HTTP/1.1" 303') >= 2, SOON, "two redirects")
            gate.touch()
            sent.result()
        until_title(tab, "answer")
        assert f"{MARK}call=" in tab.current_url
    finally:
        web.stop()
