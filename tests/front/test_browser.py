"""A real browser, which follows 19 redirects of one navigation and no more."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import until
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

#: Seconds of one wait, so that 19 redirects take fifteen.
WAIT = 0.8


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(pool=("--processes", "1"), wait_seconds=WAIT, waiting_page="never")


@pytest.mark.slow
def test_a_navigation_ends_after_19_redirects(site, browser, gate):
    """A page that takes as long as a browser follows redirects is shown, and its handler ran once."""
    with ThreadPoolExecutor(1) as threads:
        shown = threads.submit(browser.get, f"{site.url}/gate?tag=page&file={gate}")
        until(lambda: site.web.output.count('"GET /gate HTTP/1.1" 303') >= 18, 40, "18 redirects")
        gate.touch()
        shown.result()
    assert "passed page" in browser.page_source
    followed = browser.execute_script("return performance.getEntriesByType('navigation')[0].redirectCount")
    # The gate opens during the 19th wait, or the 20th, after which Chromium would give up.
    assert followed in {18, 19}
    assert f"__wsgi_timeout_hop={followed}" in browser.current_url
    assert len(site.runs("page")) == 1


def test_a_slow_form_works_again_and_again(site, browser):
    """A form that posts to its own address works from under a result URL, as often as it is sent."""
    browser.get(f"{site.url}/form?tag=form")
    for number in (1, 2, 3):
        field = browser.find_element(By.ID, "n")
        field.clear()
        field.send_keys(str(number))
        browser.find_element(By.ID, "send").click()
        WebDriverWait(browser, 20).until(lambda browser, n=number: f"answer {n}<" in browser.page_source)
        assert "__wsgi_timeout_call=" in browser.current_url
        posts = [line for line in site.runs("form") if " POST " in line]
        assert len(posts) == number
