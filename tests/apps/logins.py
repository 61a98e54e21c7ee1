"""An app that asks for credentials as servers do, and tells what it was sent with them."""

import hashlib
import re
import time

from basic import note
from flask import Flask, Response, request

app = Flask(__name__)
OFFERS = {
    "basic": ['Basic realm="r"'],
    "digest": ['Digest realm="r", nonce="n1", qop="auth"'],
    "any": ["Negotiate", 'Digest realm="r", nonce="n1", qop="auth"', 'Basic realm="r"'],
    "negotiate": ["Negotiate"],
}


def md5(text):
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def is_ann(authorization):
    """Return whether these are the credentials of the user ann with the password secret."""
    scheme, _, rest = authorization.partition(" ")
    if scheme != "Digest":
        return authorization in {"Basic YW5uOnNlY3JldA==", "Negotiate ticket"}
    fields = {name: value.strip('"') for name, value in re.findall(r'(\w+)=("[^"]*"|[^,]+)', rest)}
    request_hash = md5(f"{request.method}:{fields['uri']}")
    parts = md5("ann:r:secret"), fields["nonce"], fields["nc"], fields["cnonce"], fields["qop"], request_hash
    return fields["response"] == md5(":".join(parts))


@app.route("/<kind>", methods=["GET", "POST", "PUT"])
def private(kind):
    note(f"-{request.method}")
    body = request.get_data(as_text=True)
    time.sleep(0.4)
    if is_ann(request.headers.get("Authorization", "")):
        return f"{request.method} {body}"
    return Response("who?", 401, [("WWW-Authenticate", offer) for offer in OFFERS[kind]])
