"""An app that keeps its sessions in the memory of its process, as legacy apps do."""

import os
import uuid
from http.cookies import SimpleCookie

SESSIONS = {}


def app(environ, start_response):
    """Answer `/` with a session; `/renewed` sets an id that is new each time."""
    if environ["PATH_INFO"] == "/renewed":
        renewed = ("Set-Cookie", f"RENEWED_ID={uuid.uuid4().hex}; Path=/")
        start_response("200 OK", [("Content-Type", "text/html"), renewed])
        return [b"renewed"]
    cookie = SimpleCookie(environ.get("HTTP_COOKIE", "")).get("SESSION_ID")
    headers = [("Content-Type", "text/html")]
    if cookie is None or cookie.value not in SESSIONS:
        made = uuid.uuid4().hex
        SESSIONS[made] = {}
        headers.append(("Set-Cookie", f"SESSION_ID={made}; Path=/; HttpOnly"))
    start_response("200 OK", headers)
    return [str(os.getpid()).encode()]
