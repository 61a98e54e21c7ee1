"""The chat example in a browser whose network is cut: each word once, in order."""

import pytest
from chromium import start_chromium
from harness import ROOT, Serve, until
from selenium.webdriver.common.by import By

CHAT = ROOT / "examples" / "chat"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_an_answer_survives_lost_connections(tmp_path, monkeypatch):
    """The answer goes on over polite ends and a network that is away, and no word is missing or doubled."""
    monkeypatch.syspath_prepend(CHAT)
    import chat

    monkeypatch.setattr(chat.time, "sleep", lambda _seconds: None)
    expected = "".join(chat.tokens("Hello"))
    monkeypatch.undo()
    served = Serve("chat:app", "--wait", "3", folder=CHAT, state=tmp_path, event_streams="resumable")
    browser = start_chromium(tmp_path / "chromium")
    try:
        browser.get(served.url)
        field = browser.find_element(By.ID, "prompt")
        field.clear()
        field.send_keys("Hello")
        browser.find_element(By.ID, "ask").click()
        answer = browser.find_element(By.ID, "answer")
        for words in (5, 20, 35):
            until(lambda words=words: len(answer.text.split()) > 12 + words, 30, "words")
            browser.set_network_conditions(offline=True, latency=0, throughput=0)
            until(lambda: "coming back" in browser.find_element(By.ID, "state").text, 20, "a lost connection")
            browser.delete_network_conditions()
        until(lambda: "Done" in browser.find_element(By.ID, "state").text, 110, "the end")
        assert answer.text.strip() == expected.strip()
        assert served.output.count('"GET /answer') > 4
    finally:
        browser.quit()
        served.stop()
