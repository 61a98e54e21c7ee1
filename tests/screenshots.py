"""Draw the pages that people see: four for the documentation, or with `--all` every state to look at.

make screenshots                                        writes docs/images
make screenshots ARGS='--all /tmp/pages'                each state, in two widths and both schemes
"""

import argparse
import base64
import io
import json
import tempfile
import threading
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

from chromium import start_chromium
from PIL import Image

from wsgi_timeout.pages.pages import Pages, Way

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SIZES = {"desktop": (1000, 560), "phone": (390, 700)}
CALL = {
    "what": "/reports/2025",
    "elapsed": 83,
    "status_url": "/?__wsgi_timeout_status=fc-0.0",
    "result_url": "/?__wsgi_timeout_call=fc-0.0",
}
RUNNING = {"state": "running", "progress": {"done": 14, "total": 40, "message": "Page 14 of 40"}}
#: Waiting pages by name: what the status URL tells.
WAITING = {
    "running": RUNNING,
    "unknown": {"state": "running", "progress": None},
    "queued": {"state": "queued", "position": 4, "progress": None},
    "paused": {"state": "queued", "position": 4, "progress": None, "suspended": True},
}
OPEN = (Way("open_again", "/"),)
BACK = Way("back", "/", back=True)
MESSAGES = {
    "no_worker": ((Way("try_again", "/"),), "4f2a91c0"),
    "full": ((Way("try_again", "/"),), "4f2a91c0"),
    "unavailable": ((Way("try_again", "/"),), "4f2a91c0"),
    "error": (OPEN, "4f2a91c0"),
    "timed_out": (OPEN, "4f2a91c0"),
    "lost": (OPEN, "4f2a91c0"),
    "cancelled": (OPEN, ""),
    "gone": (OPEN, ""),
    "not_found": (OPEN, ""),
    "taken": (OPEN, ""),
    "unsupported": ((), "4f2a91c0"),
    "too_large": ((BACK,), "4f2a91c0"),
    "upload_broken": ((BACK,), ""),
    "download": ((BACK, Way("download_again", "/")), ""),
    "done": ((BACK,), ""),
}
#: The four of the documentation: state, language, size, scheme.
SHOWN = (
    ("running", "en", "desktop", "light"),
    ("queued", "en", "phone", "dark"),
    ("download", "en", "phone", "light"),
    ("lost", "en", "desktop", "dark"),
)


class Site:
    """A WSGI app that shows each page at /STATE/LANGUAGE, as the front would."""

    def __init__(self):
        self._pages = Pages()
        self._state = {}

    def __call__(self, environ, start_response):
        query = environ["QUERY_STRING"]
        if asset := self._pages.assets.find(query):
            start_response("200 OK", [("Content-Type", asset.content_type)])
            return [asset.body]
        if "status" in query:
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(self._state).encode()]
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [self._page(*environ["PATH_INFO"].strip("/").split("/"))]

    def _page(self, state, language):
        texts = self._pages.texts(language)
        if state in WAITING:
            self._state = WAITING[state]
            told = self._state["progress"] or {}
            shown = {"part": told.get("done", 0) / told["total"], "message": told["message"]} if told else {}
            position = self._state.get("position")
            shown |= {"state": self._state["state"], "paused": self._state.get("suspended", False)}
            return self._pages.waiting(texts, position=position, **CALL, **shown)
        ways, reference = MESSAGES[state]
        when = "Sat, 28 Nov 2026 09:30:00 GMT"
        return self._pages.message(texts, state, ways=ways, reference=reference, when=when)


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        """Say nothing of requests."""


def show(browser, url, size, scheme):
    """Show one page in the size and colours of a device."""
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1.5, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    # Without motion an indeterminate bar would stand still: it is shown as it moves.
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(url)


def draw(browser, url, size, scheme, file):
    """Write one page as a small PNG of 128 colours."""
    show(browser, url, size, scheme)
    picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    image = Image.open(io.BytesIO(base64.b64decode(picture["data"]))).convert("RGB")
    file.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(128).save(file, optimize=True)
    print(f"{file} {file.stat().st_size // 1024} KiB")  # noqa: T201


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", type=Path, help="write every state into this folder")
    folder = parser.parse_args().all
    server = make_server("127.0.0.1", 0, Site(), handler_class=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    wanted = SHOWN
    if folder:
        states = [(state, "en") for state in (*WAITING, *MESSAGES)]
        states += [("running", language) for language in ("de", "ja", "ar")] + [("lost", "ar")]
        wanted = [
            (*state, size, scheme) for state in states for size in SIZES for scheme in ("light", "dark")
        ]
    with tempfile.TemporaryDirectory() as profile:
        browser = start_chromium(profile)
        try:
            for state, language, size, scheme in wanted:
                name = "-".join((state, *([language] if folder else []), size, scheme))
                url = f"http://127.0.0.1:{server.server_port}/{state}/{language}"
                draw(browser, url, size, scheme, (folder or IMAGES) / f"{name}.png")
        finally:
            browser.quit()
    server.shutdown()


if __name__ == "__main__":
    main()
