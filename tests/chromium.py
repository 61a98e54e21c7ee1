"""Chromium, driven by Selenium."""

import shutil

from harness import is_missing
from selenium import webdriver

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
