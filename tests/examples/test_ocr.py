"""The OCR example in a real browser: upload a receipt, watch the progress, read what was found."""

import contextlib
import importlib.util
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
import requests
from chromium import start_chromium
from harness import ROOT, Serve, is_missing, until
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By

EXAMPLES = ROOT / "examples" / "ocr"
FONT = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")
STEPS = ("Waiting", "Straightening", "Reading", "Looking for total and date")

LINES = (
    "CORNER BAKERY",
    "12 Mill Lane",
    "",
    "Date: 2026-03-14",
    "",
    "2 x Bread            7.80",
    "1 x Coffee           2.50",
    "SUBTOTAL            10.30",
    "Tax                  1.04",
    "TOTAL 11.34",
    "",
    "Thank you!",
)


# The first test starts a browser and a server, and Tesseract takes its time.
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module", autouse=True)
def _tools():
    """Skip without the programs that the example and the browser need; on CI they must be there."""
    missing = [name for name in ("PIL", "pytesseract") if not importlib.util.find_spec(name)]
    missing += [name for name in ("tesseract", "chromium", "chromedriver") if not shutil.which(name)]
    missing += [] if FONT.exists() else [str(FONT)]
    if missing:
        is_missing(", ".join(missing))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = start_chromium(tmp_path_factory.mktemp("chromium"), "--window-size=900,1000")
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def site(redis_server, tmp_path_factory):
    env = {"REDIS_URL": redis_server.url}
    server = Serve(
        "ocr.py:stub", "--processes", "1", folder=EXAMPLES, state=tmp_path_factory.mktemp("ocr"), env=env
    )
    until(lambda: len(readers(redis_server)) == 2, 20, "the processes that read")
    yield server
    server.stop(signal.SIGINT)


def readers(redis_server):
    """Return the ids of the processes that run the example's function."""
    workers = redis_server.client.hkeys("wt:leases:ocr:functions")
    pids = [redis_server.client.hget(f"rq:worker:{worker.decode()}", "pid") for worker in workers]
    return [int(pid) for pid in pids if pid]


@contextlib.contextmanager
def held(redis_server):
    """Stop the processes that read receipts, for as long as a page is looked at."""
    pids = readers(redis_server)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def receipt(file, *, degrees, noise=0.02, seed=1):
    """Draw a receipt, put it down askew, and lay noise over it."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("L", (620, 760), 255)
    draw = ImageDraw.Draw(image)
    font = ImageFont.truetype(str(FONT), 28)
    for number, line in enumerate(LINES):
        draw.text((60, 60 + 52 * number), line, fill=0, font=font)
    image = image.rotate(degrees, expand=True, fillcolor=255, resample=Image.Resampling.BICUBIC)
    chance = random.Random(seed)
    for _ in range(int(image.width * image.height * noise)):
        image.putpixel(
            (chance.randrange(image.width), chance.randrange(image.height)), chance.choice((0, 255))
        )
    image.save(file)
    return file


def text_of(browser, element_id):
    """Return the text of an element, empty if the page has none; a page may refresh in between."""
    try:
        return browser.find_element(By.ID, element_id).text
    except WebDriverException:  # not there, not there any more, or of the page before
        return ""


def send(browser, site, file):
    browser.get(site.url)
    browser.find_element(By.ID, "image").send_keys(str(file))
    browser.find_element(By.ID, "send").click()


def found(browser):
    return until(lambda: text_of(browser, "total"), 60, "the total"), text_of(browser, "date")


def test_a_receipt_is_read_in_the_browser(site, browser, redis_server, tmp_path):
    """An uploaded photo shows its progress step by step, then its text, its total and its date."""
    file = receipt(tmp_path / "receipt.png", degrees=6)
    with held(redis_server):
        send(browser, site, file)
        until(lambda: text_of(browser, "step") == "Waiting …", 30, "the page that waits")
        bar = browser.find_element(By.TAG_NAME, "progress")
        assert (bar.get_attribute("value"), bar.get_attribute("max")) == ("0", "3")
        record = "wt:call:" + browser.current_url.rpartition("/")[2]
    until(lambda: redis_server.client.hget(record, "progress"), 30, "the first report")
    with held(redis_server):
        step = until(
            lambda: text_of(browser, "step") not in {"", "Waiting …"} and text_of(browser, "step"), 30
        )
        assert step.removesuffix(" …") in STEPS[1:]
    assert found(browser) == ("11.34", "2026-03-14")
    text = text_of(browser, "text")
    for line in ("CORNER BAKERY", "Date: 2026-03-14", "TOTAL 11.34"):
        assert line in text
    # Its address is its own: it can be opened again.
    browser.refresh()
    assert found(browser) == ("11.34", "2026-03-14")


@pytest.mark.parametrize("degrees", [-9, 13])
def test_a_receipt_may_lie_askew(site, browser, tmp_path, degrees):
    """A receipt that lies askew is straightened before it is read."""
    send(browser, site, receipt(tmp_path / "askew.png", degrees=degrees))
    assert found(browser) == ("11.34", "2026-03-14")


def test_what_is_no_image_is_told(site, browser, tmp_path):
    """A file that is no image gets a page that says so."""
    file = tmp_path / "letter.txt"
    file.write_text("Dear Sir or Madam")
    send(browser, site, file)
    until(lambda: "This image could not be read" in browser.page_source, 30, "the complaint")


def test_an_unknown_receipt_is_a_404(site):
    """An address of a receipt that never was is a 404."""
    answer = requests.get(f"{site.url}/receipts/fc-never-was-there", timeout=30)
    assert (answer.status_code, "no such receipt" in answer.text) == (404, True)
