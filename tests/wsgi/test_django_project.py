"""A Django project, driven by a client with a session: through jobs it is the same site."""

import hashlib
import os
import re
import subprocess
import sys

import pytest
import requests
from harness import APPS, Deployment, Gunicorn

PREPARE = """
import wsgi_admin
from django.core.management import call_command
from django.contrib.auth.models import User

call_command("migrate", verbosity=0)
User.objects.create_superuser("admin", "admin@example.org", "secret")
"""


@pytest.fixture(params=["alone", "jobs", pytest.param("redirected", marks=pytest.mark.slow)])
def url(request, redis_server, tmp_path, monkeypatch):
    """The project with a database of its own: alone, through workers, and with each answer redirected."""
    monkeypatch.setenv("DJANGO_DATABASE", str(tmp_path / "database"))
    env = {**os.environ, "PYTHONPATH": str(APPS)}
    subprocess.run([sys.executable, "-c", PREPARE], env=env, cwd=APPS, check=True)
    target = "wsgi_admin:application"
    if request.param == "jobs":
        site = Deployment(redis_server, target, pool=("--processes", "2"), wait_seconds=20)
    elif request.param == "redirected":
        monkeypatch.setenv("APP_SLOW", "wsgi_admin")
        site = Deployment(redis_server, "third_slow:app", pool=("--processes", "2"), wait_seconds=0.2)
    else:
        options = ("-k", "gthread", "--threads", "2", "--no-control-socket")
        site = Gunicorn(target, redis_server.url, *options, config=None, env=env, cwd=APPS)
    yield site.url
    site.stop()


def address(page):
    """Return the address of a page without our parameters."""
    return re.sub(r"[?&]__wsgi_timeout.*", "", page.url)


def token_in(page):
    return re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)[1]


def test_admin_csrf_upload_and_stream(url):
    """Login to the admin, a change there, CSRF's refusal, an upload and a stream end the same either way."""
    content = os.urandom(3_000_000)
    with requests.Session() as client:

        def post(path, data, **more):
            headers = {"Referer": url + path}
            return client.post(url + path, data=data, headers=headers, timeout=20, **more)

        login = client.get(f"{url}/admin/", timeout=20)
        assert address(login) == f"{url}/admin/login/?next=/admin/"
        form = {"csrfmiddlewaretoken": token_in(login), "username": "admin", "password": "secret"}
        wrong = post("/admin/login/?next=/admin/", {**form, "password": "wrong"})
        assert "correct username and password" in wrong.text
        page = post("/admin/login/?next=/admin/", {**form, "csrfmiddlewaretoken": token_in(wrong)})
        assert (page.status_code, address(page)) == (200, f"{url}/admin/")
        assert "Site administration" in page.text

        add = client.get(f"{url}/admin/auth/group/add/", timeout=20)
        added = post("/admin/auth/group/add/", {"csrfmiddlewaretoken": token_in(add), "name": "Editors"})
        assert address(added) == f"{url}/admin/auth/group/"
        # The message was kept in the session, or a cookie, from the POST to the page after it.
        assert "was added successfully" in added.text

        assert post("/upload", {"title": "no token"}).status_code == 403
        token = client.get(f"{url}/upload", timeout=20).text
        files = {"file": ("report.bin", content)}
        answer = post("/upload", {"title": "T\xe4tle", "csrfmiddlewaretoken": token}, files=files)
        assert answer.text == f"admin T\xe4tle report.bin {hashlib.sha256(content).hexdigest()}"

        stream = client.get(f"{url}/lines", timeout=20)
        assert stream.text == "".join(f"line {number}\n" for number in range(1_000))
        assert stream.headers["Transfer-Encoding"] == "chunked"
