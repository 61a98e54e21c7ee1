"""Chromium, driven by Selenium."""

import shutil

from harness import is_missing, until
from selenium import webdriver

#: Seconds in which a busy machine shows what is there.
SOON = 25.0
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def start_chromium(folder, *options):
    """Return a driver of a new Chromium with its profile in `folder`; the test is skipped without one."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        is_missing("chromium or chromedriver")
    chosen = webdriver.ChromeOptions()
    chosen.binary_location = chromium
    for option in (*OPTIONS, f"--user-data-dir={folder}", *options):
        chosen.add_argument(option)
    browser = webdriver.Chrome(chosen, webdriver.ChromeService(driver))
    browser.set_page_load_timeout(40)
    return browser


def addresses(browser):
    """Return every address of the tab's history."""
    history = browser.execute_cdp_cmd("Page.getNavigationHistory", {})
    return [entry["url"] for entry in history["entries"]]


def until_title(browser, text):
    until(lambda: text in browser.title, SOON, f"the title {text!r}, not {browser.title!r}")
