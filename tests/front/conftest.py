"""What the tests of pages in a browser share."""

import contextlib

import pytest


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
