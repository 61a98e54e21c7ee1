"""A browser that ends, and opens its last session again, as after a restart of the machine."""

import contextlib

import pytest
from chromium import SOON, start_chromium, until_title
from harness import until
from selenium.common.exceptions import WebDriverException

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def chromium(tmp_path):
    """Return a function that starts a browser with the one profile, and ends what ran before as people do."""
    running = []

    def end():
        for browser in running:
            with contextlib.suppress(WebDriverException):
                browser.execute_cdp_cmd("Browser.close", {})
            with contextlib.suppress(WebDriverException):
                browser.quit()
        running.clear()

    def start(*options):
        end()
        running.append(start_chromium(tmp_path / "profile", *options))
        return running[0]

    yield start
    end()


def open_and_restart(chromium, address, title):
    """Show an address until its title is there, end the browser, and return it with its session restored."""
    browser = chromium()
    browser.get(address)
    until_title(browser, title)
    # What is written of it is on the disk when the browser has ended in order.
    return chromium("--restore-last-session")


def test_a_page_that_waits_goes_on_after_a_restart(deploy, chromium, gate):
    """The waiting page comes back at its address, joins its call, and ends with the result: one run."""
    site = deploy("waiting:app", pool=("--processes", "1"), wait_seconds=20, page_after=0.3, worker_wait=10)
    address = f"{site.url}/report?gate={gate}"
    browser = open_and_restart(chromium, address, "· /report")
    until_title(browser, "· /report")
    gate.touch()
    until(lambda: browser.title == "report", SOON, "the report")
    assert (browser.current_url, len(site.runs("report"))) == (address, 1)


def test_a_page_at_a_result_url_is_asked_for_anew(deploy, chromium):
    """A page that redirects have led to a result URL, and that was delivered, is the app's own new answer."""
    options = {"wait_seconds": 0.15, "waiting_page": "never", "delivery_grace": 1}
    site = deploy("copies:app", pool=("--processes", "1"), **options)
    browser = open_and_restart(chromium, f"{site.url}/polled?htmx=none", "polled")
    until_title(browser, "polled")
    assert "__wsgi_timeout_call=" in browser.current_url
    assert len(site.runs("polled")) == 2
