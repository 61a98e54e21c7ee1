"""Clients of streams: one connection's events and comments, and the files that let an app go on."""

import http.client
import re


class Steps:
    """A folder whose files let an app yield its pieces."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def allow(self, *numbers):
        for number in numbers:
            (self.folder / str(number)).touch()


class Connection:
    """One connection to an event stream."""

    def __init__(self, port, target, last_id=None, *, method="GET", body=None, accept="text/event-stream"):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"Accept": accept, **({"Last-Event-ID": last_id} if last_id else {})}
        self.connection.request(method, target, body=body, headers=headers)
        self.response = self.connection.getresponse()
        self.status = self.response.status
        self.comments = 0
        self.ids, self.retries = [], []

    def header(self, name):
        return self.response.getheader(name)

    @property
    def result_url(self):
        return re.search(r'<([^>]*)>; rel="self"', self.header("Link"))[1]

    def event(self):
        """Return the next event as a dict of its fields, with all data; None at a clean end."""
        fields = {}
        while line := self.response.readline():
            name, _, value = line.decode().rstrip("\r\n").partition(": ")
            if line.startswith(b":"):
                self.comments += 1
            elif name == "data":
                fields["data"] = fields.get("data", "") + value
            elif name:
                fields[name] = value
            elif "data" in fields:
                self.ids.append(fields.get("id"))
                self.retries.append(fields.get("retry"))
                return fields
        assert not fields, f"ended within an event: {fields}"
        return None

    def events(self, count):
        """Return the data of so many events."""
        return [self.event()["data"] for _ in range(count)]

    def rest(self):
        """Return the data of all events until a clean end."""
        found = []
        while event := self.event():
            found.append(event["data"])
        return found

    def close(self):
        self.response.close()
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def status(*words, **options):
    """Return the status of a connection that is closed at once."""
    with Connection(*words, **options) as connection:
        return connection.status
