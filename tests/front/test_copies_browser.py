"""What Chromium has a copy of, or asks for in parts or again, though redirects come between."""

import importlib.util
import threading
import time

import pytest
from chromium import SOON, until_title
from harness import is_missing, until

from wsgi_timeout.store import pauses

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(deploy):
    return deploy("copies:app", pool=("--processes", "2"), wait_seconds=0.15, waiting_page="never")


def test_a_stylesheet_of_which_there_is_a_copy_applies(site, tab):
    """A stylesheet whose copy is to be confirmed, and whose request is redirected, applies."""
    colour = "return getComputedStyle(document.body).color"
    for visit in range(2):
        tab.get(f"{site.url}/styled?{visit}")
        until(lambda: tab.execute_script(colour) == "rgb(1, 2, 3)", SOON, "the colour")
    # Fast; redirected, with the condition; and without it, as the copy is nothing that a redirect leads to.
    assert site.runs("style.css") == ["style.css - - -", 'style.css "v1" - -', "style.css - - -"]


def test_it_applies_too_when_the_queue_was_the_wait(site, tab):
    """The same when no worker takes the requests for a while: page and stylesheet wait in the queue."""
    colour = "return getComputedStyle(document.body).color"
    web = site.start_web(gateway="wait_seconds=0.7, waiting_page='never'")
    try:
        tab.get(f"{web.url}/styled?copied")
        until(lambda: tab.execute_script(colour) == "rgb(1, 2, 3)", SOON, "the colour")
        before = len(site.runs("style.css"))
        assert pauses.pause(site.redis.client, site.name)
        time.sleep(1.5)  # pools look every second
        resume = threading.Timer(2, pauses.resume, (site.redis.client, site.name))
        resume.start()
        tab.get(f"{web.url}/styled?queued")
        resume.join()
        assert "__wsgi_timeout_call=" in tab.current_url
        until(lambda: tab.execute_script(colour) == "rgb(1, 2, 3)", SOON, "the colour again")
        assert len(site.runs("style.css")) > before
    finally:
        pauses.resume(site.redis.client, site.name)
        web.stop()


def test_a_video_seeks(site, tab):
    """A player that seeks gets the bytes that it asks for, by a range that the app has seen."""
    tab.get(f"{site.url}/film")
    duration = "return document.querySelector('video').duration"
    until(lambda: tab.execute_script(duration) == 60, SOON, "the film's length")
    tab.execute_script("document.querySelector('video').currentTime = 50")
    there = "const film = document.querySelector('video'); return !film.seeking && film.readyState >= 2"
    until(lambda: tab.execute_script(there), SOON, "the place in the film")
    ranges = [line.split()[2] for line in site.runs("sound.wav")]
    assert "bytes=0-" in ranges
    assert any(int(asked.removeprefix("bytes=").split("-")[0]) > 8_000_000 for asked in ranges)


@pytest.mark.parametrize("page", ["auto", "never"])
def test_a_broken_download_goes_on(site, tab, tmp_path, page):
    """A download that breaks off is resumed by a range, which takes several waits, and has all bytes."""
    web = site.start_web(gateway=f"page_after=0.15, wait_seconds=0.15, waiting_page='{page}'")
    before = len(site.runs("file.bin"))
    try:
        tab.execute_cdp_cmd(
            "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
        )
        tab.get(f"{web.url}/")
        tab.execute_script(f"location.href = '/file.bin?{page}'")
        until((tmp_path / "file.bin").exists, SOON, "the file")
        assert (tmp_path / "file.bin").read_bytes() == bytes(range(256)) * 40_000
        # Chromium follows no redirect here, and the app is asked once.
        assert site.runs("file.bin")[before:] == ["file.bin - - -", "file.bin - bytes=5120000- -"]
    finally:
        web.stop()


@pytest.mark.parametrize("file", ["htmx-2.min.js", "htmx-4.min.js"])
def test_htmx_polls_its_own_address(site, tab, file):
    """`hx-get=""` on a page that redirects have led to a result URL shows new answers of the app."""
    if importlib.util.find_spec("django_htmx") is None:
        is_missing("django-htmx, which has htmx")
    before = len(site.runs("polled"))
    tab.get(f"{site.url}/polled?htmx={file}")
    until_title(tab, "polled")
    assert "__wsgi_timeout_call=" in tab.current_url
    numbers = "return document.getElementById('numbers')?.innerText"

    def shown():
        text = tab.execute_script(numbers) or ""
        return text.isdecimal() and int(text) > before + 3

    until(shown, SOON, "answers of the app")
    assert [line.split()[3] for line in site.runs("polled")[before:]][:3] == ["-", "true", "true"]
    tab.get("about:blank")
