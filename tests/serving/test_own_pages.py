"""Pages of the app's own: templates in its own folder, for an app that nobody edits."""

import requests

#: A browser that goes to a page.
NAVIGATION = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
OWN = "{% extends 'base.html' %}{% block body %}<main>ours: {{ page.what }}</main>{% endblock %}"


def test_templates_in_the_apps_folder(serve, folder, door):
    """`templates/wsgi_timeout/` of the app's folder has the waiting page; one that raises costs no result."""
    template = folder / "templates" / "wsgi_timeout" / "waiting.html"
    template.parent.mkdir(parents=True)
    template.write_text(OWN, encoding="utf-8")
    server = serve("shop:app", WSGI_TIMEOUT_PAGE_AFTER="0.2")
    with requests.Session() as person:
        person.headers = NAVIGATION
        page = person.get(f"{server.url}/wait/1", params={"door": door}, timeout=60)
        assert (page.status_code, "<main>ours: /wait/1</main>" in page.text) == (200, True)
        template.write_text("{{ 1 / 0 }}", encoding="utf-8")
        page = person.get(page.url, timeout=60)
        assert (page.status_code, 'id="cancel"' in page.text) == (200, True)
        server.wait_for("template waiting.html failed")
        door.touch()
        answers = (person.get(page.url, timeout=60).text for _ in range(100))
        assert next(answer for answer in answers if 'id="cancel"' not in answer) == "1 is through"
