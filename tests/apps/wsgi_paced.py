"""Handlers that tell, in the file that the query names as `count`, how far they are in a long body."""

import hashlib
import time
from array import array
from pathlib import Path
from urllib.parse import parse_qs

PIECE = 10_000


def app(environ, start_response):
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    handler = {"/writes": writes, "/reads": reads}[environ["PATH_INFO"]]
    return handler(query, Path(query["count"]), environ["wsgi.input"])


def tell(count, text):
    """Write as one: who reads the file sees the text before, or this one."""
    made = count.with_suffix(".made")
    made.write_text(text, "utf-8")
    made.replace(count)


def writes(query, count, _body):
    """Yield `size` bytes, as numbers, in pieces of 10 KB, as fast as they are taken."""
    for start in range(0, int(query["size"]), PIECE):
        tell(count, str(start))
        yield array("Q", range(start // 8, (start + PIECE) // 8)).tobytes()
    tell(count, "end")


def reads(query, count, body):
    """Read 10 KB a twentieth of a second until `file` exists, then all; tell length and hash."""
    file, length, sha = Path(query["file"]), 0, hashlib.sha256()
    while piece := body.read(PIECE):
        length += len(piece)
        sha.update(piece)
        if not file.exists():
            tell(count, str(length))
            time.sleep(0.05)
    yield f"{length} {sha.hexdigest()}".encode()
