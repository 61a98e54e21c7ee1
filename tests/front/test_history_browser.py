"""A browser's own ways to an address while a call runs, and after it: reloads, history, tabs, bookmarks."""

import contextlib

import pytest
from harness import until

#: Seconds in which a busy machine shows what is there.
SOON = 25.0
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
    return deploy("waiting:app", pool=("--processes", "2"), wait_seconds=20, page_after=0.3)


@pytest.fixture(scope="module")
def patient(site):
    """A web process that shows the page after a time that is never over here."""
    web = site.start_web(gateway="page_after=60, wait_seconds=60")
    yield web
    web.stop()


@pytest.fixture
def tab(browser):
    """The browser, without cookies and in one tab."""
    with contextlib.suppress(Exception):
        browser.execute_cdp_cmd("Network.clearBrowserCookies", {})
    yield browser
    first, *others = browser.window_handles
    for other in others:
        browser.switch_to.window(other)
        browser.close()
    browser.switch_to.window(first)
    browser.get("about:blank")


def addresses(browser):
    """Return every address of the tab's history."""
    history = browser.execute_cdp_cmd("Page.getNavigationHistory", {})
    return [entry["url"] for entry in history["entries"]]


def until_title(browser, text):
    until(lambda: text in browser.title, SOON, f"the title {text!r}, not {browser.title!r}")


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
        until(lambda n=number: patient.output.count(" 499 ") == ended + n, SOON, "the end of the one before")
    gate.touch()
    until_title(tab, "report")
    assert len(site.runs("report")) == before + 1
    assert MARK not in "".join(addresses(tab))
