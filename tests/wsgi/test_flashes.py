"""A Flask app with sessions and flash messages in a real browser: through jobs it is the same app."""

import pytest
from harness import APPS, Deployment, Gunicorn
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait


@pytest.fixture(params=["alone", "jobs"])
def url(request, redis_server):
    if request.param == "jobs":
        site = Deployment(redis_server, "wsgi_flashes:app", pool=("--processes", "2"), wait_seconds=0.3)
    else:
        options = ("-k", "gthread", "--threads", "2", "--no-control-socket")
        site = Gunicorn("wsgi_flashes:app", redis_server.url, *options, config=None, cwd=APPS)
    yield site.url
    site.stop()


def texts(browser, selector):
    return [element.text for element in browser.find_elements(By.CSS_SELECTOR, selector)]


def test_a_session_and_its_messages(url, browser):
    """What was added stays in the session, each message is shown once, also when it took several waits."""
    browser.delete_all_cookies()
    browser.get(f"{url}/")
    added = []
    for item, seconds in (("one", "0"), ("two", "1"), ("three", "0")):
        browser.find_element(By.ID, "item").send_keys(item)
        field = browser.find_element(By.ID, "seconds")
        field.clear()
        field.send_keys(seconds)
        browser.find_element(By.ID, "add").click()
        added.append(item)
        WebDriverWait(browser, 20).until(
            lambda browser, item=item: f"{item} was added" in browser.page_source
        )
        assert (texts(browser, "li"), texts(browser, ".flash")) == (added, [f"{item} was added"])
        assert browser.current_url == f"{url}/"
    browser.refresh()
    assert (texts(browser, "li"), texts(browser, ".flash")) == (added, [])
