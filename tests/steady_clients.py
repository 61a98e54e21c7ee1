"""Clients that send one request after the other, and hold on to their result URLs.

    python steady_clients.py URL FOLDER

Every request that has ended is a line of FOLDER/history, as JSON; they end when FOLDER/stop is there.
"""

import http.client
import json
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

CLIENTS = 6
#: Seconds that a handler runs, and that a client waits for a word: longer than a wait here.
RUN_SECONDS = 1.5
PATIENCE_SECONDS = 4
#: Seconds within which a result must come once its URL was told.
RESULT_SECONDS = 60
#: What a result URL may say of a call that has not ended.
AGAIN = {0, 303, 503}


def ask(host, method, target):
    """Return status, Location and body; status 0: no answer, or one of the proxy's own."""
    connection = http.client.HTTPConnection(host, timeout=PATIENCE_SECONDS)
    try:
        connection.request(method, target, headers={"Connection": "close"})
        response = connection.getresponse()
        by_proxy = response.status > 500 and "json" not in response.getheader("Content-Type", "")
        status, location = 0 if by_proxy else response.status, response.getheader("Location")
        return status, location, response.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, None, ""
    finally:
        connection.close()


def request(host, method, tag):
    """Send a request, then ask its result URL until it ends; return what was seen."""
    began = time.time()
    status, url, body = ask(host, method, f"/slow?seconds={RUN_SECONDS}&tag={tag}")
    told = url is not None
    deadline = time.monotonic() + RESULT_SECONDS
    while told and status in AGAIN and time.monotonic() < deadline:
        if status != http.client.SEE_OTHER:
            time.sleep(0.2)
        status, location, body = ask(host, "GET", url)
        url = location or url
    return {
        "tag": tag,
        "method": method,
        "told": told,
        "status": status,
        "body": body,
        "began": began,
        "ended": time.time(),
    }


def keep_asking(host, number, folder, lock):
    """Be one client: POST or GET, as its number is odd or even."""
    count = 0
    while not (folder / "stop").exists():
        count += 1
        found = request(host, "POST" if number % 2 else "GET", f"{folder.name}-{number}-{count}")
        with lock, (folder / "history").open("a") as history:
            history.write(json.dumps(found) + "\n")
        if not found["told"]:
            time.sleep(0.2)


def main():
    """Run the clients until they are told to stop."""
    host, folder, lock = urlsplit(sys.argv[1]).netloc, Path(sys.argv[2]), threading.Lock()
    clients = [
        threading.Thread(target=keep_asking, args=(host, number, folder, lock)) for number in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()


if __name__ == "__main__":
    main()
