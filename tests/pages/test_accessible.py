"""Every page of ours in Chromium: axe-core finds nothing, on a desktop and a phone, light and dark."""

import re
import threading
from wsgiref.simple_server import make_server

import pytest
from accessible import faults
from screenshots import MESSAGES, SIZES, WAITING, Quiet, Site, show

from wsgi_timeout.front import error_pages
from wsgi_timeout.pages.texts import Catalogue


@pytest.fixture(scope="module")
def url():
    server = make_server("127.0.0.1", 0, Site(), handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_page_is_looked_at():
    """Each page of the catalogue is drawn by `make screenshots`, goes to axe-core, has words for people."""
    texts = vars(Catalogue().languages["en"])["_texts"]
    pages = {kind: " ".join(text) for kind, text in texts.items() if isinstance(text, list)}
    assert set(MESSAGES) == set(pages)
    assert {kind for kind in error_pages.KINDS.values() if kind not in pages} == set()
    operators = "worker|redis|setting|signal|host|process|command"
    assert not re.search(operators, " ".join(pages.values()), re.IGNORECASE)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing(browser, url, size, scheme):
    """No page has a fault that axe-core knows of, in English or from right to left."""
    found = {}
    try:
        for language, states in (("en", (*WAITING, *MESSAGES)), ("ar", (*WAITING, "lost", "download"))):
            for state in states:
                show(browser, f"{url}/{state}/{language}", size, scheme)
                found[state, language] = faults(browser)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert {page: broken for page, broken in found.items() if broken} == {}
