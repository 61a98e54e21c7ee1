"""A Django project in one file."""

import time
from pathlib import Path

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.urls import path, reverse

settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="only for tests",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    USE_TZ=True,
)


def where(request, rest=""):
    return JsonResponse(
        {
            "rest": rest,
            "path": request.path,
            "path_info": request.path_info,
            "url": request.build_absolute_uri(),
            "reverse": reverse("where", args=["x y"]),
        }
    )


def wait(request):
    while not Path(request.GET["file"]).exists():
        time.sleep(0.01)
    return HttpResponse("django is through\n")


def count(request):
    """Count visits in the session, a signed cookie that differs from run to run."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(f"{request.session['visits']} visits\n")


def lines(request):
    return StreamingHttpResponse(iter(["one\n", "two\n"]), content_type="text/plain")


urlpatterns = [
    path("where/<path:rest>", where, name="where"),
    path("wait", wait),
    path("count", count),
    path("lines", lines),
    path("away", lambda _request: redirect("where", "there")),
    path("slash/", where),
    path("raises", lambda _request: 1 / 0),
]

application = get_wsgi_application()
