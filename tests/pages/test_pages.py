"""The pages as they are rendered: languages, templates of the user's, assets; without a server."""

import json
import re
from importlib.resources import files

import pytest

from wsgi_timeout.pages.pages import Pages, Way, folders
from wsgi_timeout.pages.texts import Catalogue

#: What is told of a call that runs.
RUNNING = {
    "what": "/reports/<b>2025</b>",
    "state": "running",
    "elapsed": 3725,
    "status_url": "/reports/2025?__wsgi_timeout_status=fc-x.y",
    "result_url": "/reports/2025?__wsgi_timeout_call=fc-x.y&__wsgi_timeout_hop=2",
    "part": 0.4,
    "message": "page 4 of 10",
}
LANGUAGES = sorted(file.name[:2] for file in (files("wsgi_timeout.pages") / "texts").iterdir())


@pytest.fixture
def pages():
    return Pages()


def own(folder, name, text):
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return folder


def waiting(pages, language="en", **changes):
    return pages.waiting(pages.texts(language), **{**RUNNING, **changes}).decode()


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("en;q=0.2, fr;q=0.9", "fr"),
        ("nl, pt-BR;q=0.5", "pt"),
        ("zh-Hant-TW", "zh"),
        ("JA", "ja"),
        ("es;q=0, ar;q=0.1", "ar"),
        ("xx;q=abc, *;q=0.1, ;;", "en"),
    ],
)
def test_the_language_is_the_readers(header, language):
    """The best language that we have is taken, by its quality and then its place; else English."""
    assert Catalogue().choose(header).lang == language


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_everything(language):
    """Each language has the texts that English has, with the same placeholders."""
    texts = [
        json.loads((files("wsgi_timeout.pages") / "texts" / f"{name}.json").read_text("utf-8"))
        for name in ("en", language)
    ]
    shapes = [
        {key: (type(value), re.findall(r"{\w+}", str(value))) for key, value in one.items()} for one in texts
    ]
    assert shapes[0] == shapes[1]
    assert texts[1]["lang"] == language


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_waiting_page_says_what_runs(pages, language):
    """Title, heading, message, time and a cancel button are there before any script runs, escaped."""
    page = waiting(pages, language)
    assert f'<html lang="{language}"' in page
    assert "<title>40 % · /reports/&lt;b&gt;2025&lt;/b&gt;</title>" in page
    assert "page 4 of 10" in page
    assert "1:02:05" in page
    assert 'value="0.4"' in page
    assert '<form class="ways" id="cancel" method="post" action="/reports/2025?__wsgi' in page
    assert ('dir="rtl"' in page) == (language == "ar")


def test_the_place_in_the_queue_is_told(pages):
    """A queued call has a place, and no part of it is done."""
    page = waiting(pages, state="queued", position=4, part=None, message="")
    assert "Place 4 in the queue" in page
    assert "<title>Waiting for its turn · " in page
    assert "value=" not in page


def test_a_page_is_small_and_asks_nobody_else(pages):
    """A page with its stylesheet and script is under 15 KB, names no other host, and has nothing inline."""
    names = re.findall(r"[?]__wsgi_timeout_asset=[\w.-]+", page := waiting(pages))
    assets = [pages.assets.find(name[1:]).body for name in names]
    assert len(assets) == 2
    assert len(page) + sum(map(len, assets)) < 15_000
    everything = page + b"".join(assets).decode()
    assert not re.search(r"https?://|<style|<script(?! src=)|\son\w+=|\sstyle=", everything)


def test_an_asset_is_kept_only_as_what_was_asked_for(pages, tmp_path):
    """A URL with the digest of another version gets today's file, which is then not to be kept."""
    query = pages.assets.url("page.css")[1:]
    assert pages.assets.find(query).current
    themed = Pages([own(tmp_path, "theme.css", ":root { --accent: #c00 }")])
    other = themed.assets.find(query)
    assert not other.current
    assert other.body.endswith(b"#c00 }")
    for wrong in ("", "a=1", "__wsgi_timeout_asset=", "__wsgi_timeout_asset=../texts.py-1"):
        assert pages.assets.find(wrong) is None


def test_a_template_of_the_users_is_taken(tmp_path):
    """A folder's template stands for ours, and may extend our base."""
    own(
        tmp_path,
        "waiting.html",
        "{% extends 'base.html' %}{% block body %}<p>mine {{ page.message }}</p>{% endblock %}",
    )
    pages = Pages([tmp_path])
    assert "<p>mine page 4 of 10</p>" in waiting(pages)
    assert "Gone" not in pages.message(pages.texts("en"), "gone", when="now").decode()


@pytest.mark.parametrize(
    "text", ["{{ page.nothing.at_all }}", "{% if %}", "{{ 1 / 0 }}", "{% extends 'none' %}"]
)
def test_a_template_that_raises_costs_nothing(tmp_path, text, caplog):
    """Where a template of the user's fails, ours is shown, and the log says why."""
    pages = Pages([own(tmp_path, "waiting.html", text)])
    assert "page 4 of 10" in waiting(pages)
    assert "waiting.html" in caplog.text


def test_texts_of_the_users_are_taken(tmp_path, caplog):
    """A folder's texts replace ours one by one, and may add a language; a broken file is told of."""
    own(tmp_path, "texts/en.json", '{"running": "Cooking"}')
    own(tmp_path, "texts/nl.json", '{"running": "Bezig"}')
    own(tmp_path, "texts/fr.json", "{")
    pages = Pages([tmp_path])
    assert '<h1 id="title">Cooking</h1>' in waiting(pages)
    assert '<h1 id="title">Bezig</h1>' in waiting(pages, "nl")
    assert "Traitement en cours" in waiting(pages, "fr")
    assert "fr.json cannot be read" in caplog.text


def test_folders_of_templates(tmp_path, caplog):
    """The setting's folder comes first, then `wsgi_timeout` in the app's own; what is not there is told."""
    mine, app = tmp_path / "mine", tmp_path / "templates"
    (app / "wsgi_timeout").mkdir(parents=True)
    assert folders("", app, None, tmp_path / "none") == [app / "wsgi_timeout"]
    assert folders(str(mine), app) == [app / "wsgi_timeout"]
    assert "there is no such folder" in caplog.text
    mine.mkdir()
    assert folders(str(mine), app) == [mine, app / "wsgi_timeout"]


def test_a_message_offers_a_way(pages):
    """A page that is no waiting page says what happened, where to go on, and what to quote."""
    ways = [Way("try_again", "/a?b=1&c=2"), Way("back", "/", back=True)]
    page = pages.message(pages.texts("de"), "no_worker", ways=ways, reference="0a1b2c3d").decode()
    assert '<a class="first" href="/a?b=1&amp;c=2">Erneut versuchen</a>' in page
    assert '<a data-back href="/">Zurück</a>' in page
    assert "Kennung: 0a1b2c3d" in page
    assert "asset=back.js-" in page
