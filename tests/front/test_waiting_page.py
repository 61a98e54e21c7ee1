"""The waiting page in a real browser: a person who waits for a report, with JavaScript and without."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from accessible import faults
from chromium import SOON, addresses, until_title
from harness import APPS, Gunicorn, until
from selenium.webdriver.common.by import By

MARK = "__wsgi_timeout_"


@pytest.fixture(scope="module")
def site(deploy):
    return deploy("waiting:app", pool=("--processes", "2"), wait_seconds=20, page_after=0.3)


def text_of(browser, selector="main"):
    return browser.find_element(By.CSS_SELECTOR, selector).text


def test_a_person_waits_for_a_report(site, tab, gate):
    """The page says what runs and how far it is, F5 joins, and the result opens under the clean address."""
    address = f"{site.url}/report?gate={gate}&done=3&total=10&message=page+3"
    tab.get(f"{site.url}/")
    tab.get(address)
    until_title(tab, "30 % · /report")
    assert "page 3" in text_of(tab)
    assert tab.current_url == address
    tab.refresh()
    until_title(tab, "30 % · /report")
    assert len(site.runs("report")) == 1
    assert faults(tab) == []
    gate.touch()
    until(lambda: tab.title == "report", SOON, "the report")
    assert tab.current_url == address
    assert tab.execute_script("return query").startswith("?gate=")
    assert MARK not in "".join(addresses(tab))
    assert [url.partition("?")[0] for url in addresses(tab)[-2:]] == [f"{site.url}/", f"{site.url}/report"]
    tab.refresh()
    assert len(site.runs("report")) == 2
    tab.back()
    until_title(tab, "index")


def test_without_javascript(site, tab, gate):
    """The page comes anew by itself, says how far it is, and turns into the result; Cancel works."""
    tab.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        address = f"{site.url}/report?gate={gate}&plain"
        tab.get(f"{site.url}/")
        tab.get(address)
        until_title(tab, "· /report")
        gate.touch()
        until(lambda: tab.title == "report", SOON, "the report")
        assert tab.current_url == address
        assert MARK not in "".join(addresses(tab))
        tab.get(f"{address}&gate={gate}.no&cancel".replace(f"gate={gate}&", ""))
        until_title(tab, "· /report")
        tab.find_element(By.TAG_NAME, "button").click()
        until_title(tab, "Cancelled")
        assert MARK not in tab.current_url
    finally:
        tab.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("kind", ["form", "multipart"])
def test_a_form_is_sent(site, tab, gate, kind):
    """A form's POST waits under its own address, and its answer stands there; F5 then gets the form."""
    address = f"{site.url}/form?gate={gate}"
    tab.get(address)
    if kind == "form":
        tab.find_element(By.ID, "send").click()
    else:
        document = gate.with_name("document")
        document.write_text("content", encoding="utf-8")
        tab.find_element(By.ID, "document").send_keys(str(document))
        tab.find_element(By.ID, "upload").click()
    until_title(tab, "· /form")
    gate.touch()
    until(lambda: tab.title == "answer", SOON, "the answer")
    assert text_of(tab, "#answer") == ("answer 1" if kind == "form" else "answer content")
    assert tab.current_url == address
    tab.refresh()
    assert tab.title == "form"
    assert MARK not in "".join(addresses(tab))


def test_two_tabs_get_one_run(site, tab, gate):
    """A second tab of the address joins the first, and each gets the result."""
    address = f"{site.url}/report?gate={gate}&tabs"
    before = len(site.runs("report"))
    tab.get(address)
    until_title(tab, "· /report")
    tab.switch_to.new_window("tab")
    tab.get(address)
    until_title(tab, "· /report")
    gate.touch()
    for window in tab.window_handles:
        tab.switch_to.window(window)
        until(lambda: tab.title == "report", SOON, "the report in this tab")
        assert tab.current_url == address
    assert len(site.runs("report")) == before + 1


def test_a_hard_reload_runs_anew(site, tab, gate):
    """A hard reload asks the app anew, once, and waits for that."""
    tab.get(f"{site.url}/report?gate={gate}&hard")
    until_title(tab, "· /report")
    before = len(site.runs("report"))
    tab.execute_cdp_cmd("Page.reload", {"ignoreCache": True})
    until(lambda: len(site.runs("report")) > before, SOON, "the second run")
    gate.touch()
    until(lambda: tab.title == "report", SOON, "the report")
    assert len(site.runs("report")) == before + 1


def test_cancel_says_what_happened(site, tab, gate):
    """The button ends the call; the page says so, and leads on."""
    tab.get(f"{site.url}/report?gate={gate}&cancel")
    until_title(tab, "· /report")
    tab.find_element(By.TAG_NAME, "button").click()
    until_title(tab, "Cancelled")
    assert faults(tab) == []
    gate.touch()
    tab.find_element(By.LINK_TEXT, "Open this address again").click()
    until(lambda: tab.title == "report", SOON, "the report")
    assert MARK not in "".join(addresses(tab))


def test_a_download_says_that_it_has_started(site, tab, gate, tmp_path):
    """A page stays that says so and leads back; the file is whole, and has its name."""
    tab.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    tab.get(f"{site.url}/")
    tab.get(f"{site.url}/download?gate={gate}")
    until_title(tab, "· /download")
    gate.touch()
    until_title(tab, "Your download has started")
    saved = tmp_path / "numbers.bin"
    until(saved.exists, SOON, "the file")
    assert saved.read_bytes() == bytes(range(256)) * 400
    assert faults(tab) == []
    assert MARK not in "".join(addresses(tab))
    tab.find_element(By.LINK_TEXT, "Back").click()
    until_title(tab, "index")


def test_a_frame_is_as_without_us(site, tab, gate):
    """A page in a frame waits by redirects, without our page."""
    before = len(site.runs("report"))
    with ThreadPoolExecutor(1) as threads:
        shown = threads.submit(tab.get, f"{site.url}/frame?gate={gate}")
        until(lambda: len(site.runs("report")) > before, SOON, "the request of the frame")
        gate.touch()
        shown.result()
    tab.switch_to.frame("inner")
    until(lambda: "The report" in tab.page_source, SOON, "the report in the frame")
    tab.switch_to.default_content()


def test_a_strict_policy_of_a_proxy_is_kept(site, tab, gate):
    """Under `default-src 'self'`, set by a proxy, the page has its style and its script, and goes on."""
    env = {**site.env, "NAME": site.name}
    web = Gunicorn("strict_policy:app", site.redis.url, env=env, cwd=APPS)
    try:
        tab.get(f"{web.url}/report?gate={gate}&policy&done=1&total=2")
        until_title(tab, "50 % · /report")
        width = tab.execute_script("return getComputedStyle(document.querySelector('main')).maxWidth")
        assert width == "480px"
        gate.touch()
        until(lambda: tab.title == "report", SOON, "the report")
    finally:
        web.stop()
