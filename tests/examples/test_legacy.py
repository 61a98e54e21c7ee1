"""The legacy example, as `make run` serves it."""

import hashlib
import os
import re
import shutil
import signal

import pytest
import requests
from harness import ROOT, environment
from serve_command import Serve


@pytest.fixture(scope="module")
def legacy(tmp_path_factory):
    """Serve a copy of the example, in a folder of its own, with a wait of half a second."""
    folder = tmp_path_factory.mktemp("legacy")
    shutil.copy(ROOT / "examples" / "legacy" / "legacy.py", folder)
    env = environment()
    del env["PYTHONPATH"]
    words = ("legacy:app", "--bind", "127.0.0.1:0", "--wait", "0.5")
    server = Serve(folder, *words, env={**env, "XDG_STATE_HOME": str(folder / "state")})
    yield server
    server.stop(signal.SIGINT)


class TestLegacyExample:
    def test_the_first_page_links_to_all_others(self, legacy):
        """Every link of the first page leads to a page of the app."""
        links = re.findall(r'href="([^"]+)"', legacy.get().text)
        assert len(links) >= 6
        assert {legacy.get(link.replace("seconds=8", "seconds=0")).status_code for link in links} == {200}

    def test_a_slow_report_is_redirected_until_it_is_there(self, legacy):
        """A report that takes longer than the wait arrives by redirects, at the client's own pace."""
        answer = legacy.get("/reports/2025", params={"seconds": 1.3})
        assert [hop.status_code for hop in answer.history[:2]] == [303, 303]
        assert answer.status_code == 200
        assert "Report 2025" in answer.text

    def test_an_upload_is_hashed(self, legacy):
        """An uploaded file arrives whole, and its slow answer by redirects."""
        document = os.urandom(300_000)
        answer = requests.post(legacy.url + "/upload", files={"document": ("scan.pdf", document)}, timeout=30)
        assert answer.history
        assert f"scan.pdf: sha256 {hashlib.sha256(document).hexdigest()}" in answer.text

    def test_a_login_sets_its_cookie(self, legacy):
        """A login works through the session cookie, the app's own redirect and its flashed message."""
        with requests.Session() as browser:
            answer = browser.post(legacy.url + "/login", data={"user": "Ada"}, timeout=30)
            # A 303 of ours may come before and after it on a busy machine.
            assert [hop.status_code for hop in answer.history if hop.status_code != 303] == [302]
            assert "Welcome, Ada" in answer.text
            assert "Accounts of Ada" in browser.get(legacy.url, timeout=30).text
        assert "Accounts of Ada" not in legacy.get().text

    def test_rows_are_streamed(self, legacy):
        """A streamed export arrives whole and in order."""
        answer = legacy.get("/export.csv", params={"rows": 8})
        rows = answer.text.splitlines()
        assert answer.headers["Content-Type"].startswith("text/csv")
        assert [row.split(",")[:2] for row in rows] == [[str(n), f"booking {n}"] for n in range(8)]

    def test_a_download_keeps_its_headers(self, legacy):
        """A file arrives byte for byte, under its name."""
        answer = legacy.get("/statement.txt")
        assert answer.headers["Content-Disposition"] == "attachment; filename=statement.txt"
        assert answer.text.splitlines() == [f"{n:06}  a line of the statement" for n in range(20_000)]

    def test_a_slow_form_answers(self, legacy):
        """A slow form's answer arrives by redirects."""
        form = {"amount": "150", "seconds": "0.9"}
        answer = requests.post(legacy.url + "/estimate", data=form, timeout=30)
        assert answer.history[0].status_code == 303
        assert "150 a month are 1800 a year." in answer.text
