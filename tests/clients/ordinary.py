"""An ordinary WSGI app under gunicorn alone, which knows nothing of calls."""


def app(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/moved":
        start_response("302 Found", [("Location", "/here?moved"), ("Content-Length", "0")])
        return [b""]
    if path == "/missing":
        start_response("404 Not Found", [("Content-Length", "4")])
        return [b"none"]
    if path == "/busy":
        start_response("503 Service Unavailable", [("Content-Length", "4")])
        return [b"busy"]
    if path == "/events":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        last = int(environ.get("HTTP_LAST_EVENT_ID") or 0)
        return [b"id: %d\ndata: %d\n\n" % (n, n) for n in range(last + 1, 6)]
    body = environ["wsgi.input"].read()
    text = f"{environ['REQUEST_METHOD']} {path} {query} {body.decode()} {environ.get('HTTP_X_TEST')}".encode()
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text]
