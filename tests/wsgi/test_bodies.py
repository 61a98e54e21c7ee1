"""Bodies of any size with bounded memory, and downloads that break off."""

import hashlib
import itertools
import os
import socket
import struct
import sys
import threading
import time
from array import array

import psutil
import pytest
from harness import ask, follow, listen, until
from wire import exchange, parse, request

MIB = 1024 * 1024
#: Bytes that fit the buffer of the site of this module, and that do not.
BUFFER, FITS, TOO_LARGE = 16 * MIB, 15_000_000, 60_000_000
#: Where downloads are broken off: within the head, and at places of the body so early that the rest is
#: in no socket's buffer; and so late that the server has sent all, and takes it for delivered.
EARLY, LATE = (0, 1, 1_000, 65_536, 1_500_000), (13_000_000, FITS - 1)


@pytest.fixture(scope="module")
def site(deploy):
    return deploy(
        pool=("--processes", "1"), wait_seconds=0.3, buffer=BUFFER, delivery_grace=0.3, max_result=256 * MIB
    )


def numbers(size):
    return array("Q", range(size // 8 + 1)).tobytes()[:size]


def opened(port, target, size):
    """Return a connection on which `size` bytes of an answer were read."""
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.sendall(request(target.encode()))
    got = 0
    while got < size:
        piece = client.recv(min(65_536, size - got))
        assert piece, f"the answer ended after {got} bytes"
        got += len(piece)
    return client


def reset(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def state(port, location):
    target = location.replace("__wsgi_timeout_call", "__wsgi_timeout_status").partition(
        "&__wsgi_timeout_hop"
    )[0]
    return ask(port, target)


def results(site, gate, size, count):
    """Return the result URLs of so many downloads, which begin when the gate opens."""
    urls = [ask(site.web.port, f"/numbers?size={size}&file={gate}&n={n}").location for n in range(count)]
    assert all(urls)
    return urls


def broken_off(site, gate, port, cuts):
    """Return the result URLs of downloads that were broken off, and of one that was not."""
    *urls, whole = results(site, gate, FITS, len(cuts) + 1)
    gate.touch()
    for url in (*urls, whole):
        until(lambda url=url: state(port, url).json["state"] == "ended", what="the end of the call")
    for url, cut in zip(urls, cuts, strict=True):
        reset(opened(port, url, cut))
    assert ask(port, whole).body == numbers(FITS)
    return urls, whole


def test_a_download_that_was_broken_off_is_fetched_again(site, gate):
    """A body within the buffer is had whole from its result URL, wherever a first try broke off."""
    port = site.web.port
    urls, whole = broken_off(site, gate, port, EARLY)
    # One that was delivered is gone by now, and with it would be those that were taken for delivered.
    until(lambda: state(port, whole).status == 410, what="the end of the grace")
    for url in urls:
        answer = ask(port, url)
        assert (answer.status, answer.body == numbers(FITS)) == (200, True)


def test_within_the_grace_the_end_of_a_download_does_not_matter(site, gate):
    """A download that broke after the server had sent all is fetched again within `delivery_grace`."""
    web = site.start_web(gateway="delivery_grace=60")
    try:
        urls, _ = broken_off(site, gate, web.port, LATE)
        for url in urls:
            answer = ask(web.port, url)
            assert (answer.status, answer.body == numbers(FITS)) == (200, True)
    finally:
        web.stop()


def test_a_download_over_the_buffer_cannot_begin_again(site, gate):
    """A body that was trimmed while it was read is told to be gone, and never comes short."""
    port = site.web.port
    (url,) = results(site, gate, TOO_LARGE, 1)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(request(url.encode()))
        gate.touch()
        got = 0
        while got < 2 * BUFFER:
            got += len(client.recv(65_536))
        second = parse(exchange(port, request(url.encode())))
        assert second.status == b"HTTP/1.1 409 Conflict"
        assert b"application/problem+json" in second.header(b"content-type")
        reset(client)
    assert parse(exchange(port, request(url.encode()))).status == b"HTTP/1.1 409 Conflict"


def test_a_slow_reader_holds_its_handler_up(site):
    """While a client reads 10 KB a tenth of a second, no more than the buffer lies in Redis."""
    patient = site.start_web(gateway=f"wait_seconds=20, max_result={MIB}")
    others = streams(site)
    try:
        client = opened(patient.port, f"/numbers?size={TOO_LARGE}&tag=slow", 10_000)
        keys = streams(site) - others
        kept = []
        for _ in range(20):
            client.recv(10_000)
            kept += [int(site.redis.client.hget(key, "kept") or 0) for key in keys]
            time.sleep(0.02)
        assert 0 < max(kept) <= BUFFER + MIB
        reset(client)
    finally:
        patient.stop()


def cut_short(port, data, how):
    """Send a part of a request, and end the connection; returns what was answered, if anything."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(data)
        if how == "RST":
            reset(client)
            return b""
        client.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while piece := client.recv(65_536):
                answer += piece
        except ConnectionResetError:
            pass
        return answer


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("kind", ["length", "chunked", "large"])
def test_an_upload_cut_short_anywhere_is_never_whole(site, kind, how):
    """Wherever a body is cut, at every byte of a small one, no handler reads it to its end."""
    small, tag = bytes(range(60)), f"cut-{kind}-{how}"
    if kind == "chunked":
        chunks = b"".join(b"%x\r\n%b\r\n" % (20, small[start : start + 20]) for start in (0, 20, 40))
        fields, body = (b"Transfer-Encoding: chunked",), chunks + b"0\r\n\r\n"
    else:
        body = small if kind == "length" else small * 10_000
        fields = (b"Content-Length: %d" % len(body),)
    whole = request(b"/hash?tag=" + tag.encode(), b"POST", fields, body)
    head = len(whole) - len(body)
    for cut in range(0, len(body), 30_000 if kind == "large" else 1):
        answer = cut_short(site.web.port, whole[: head + cut], how)
        assert b" 200 " not in answer.partition(b"\r\n")[0], (cut, answer)
    # There is one worker, which takes calls in their order.
    assert follow(site.web.port, f"/fast?tag={tag}-after")[-1].status == 200
    assert not site.runs(f"{tag}-whole")
    assert b" 200 " in exchange(site.web.port, whole)
    assert len(site.runs(f"{tag}-whole")) == 1


class Peak:
    """The most memory that the processes of a site took together, in bytes, while it was watched."""

    def __init__(self, site):
        self._site = site
        self._stop = threading.Event()
        self.idle = self.peak = self._now()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    @property
    def growth(self):
        return self.peak - self.idle

    def _now(self):
        parents = (self._site.web, self._site.pool)
        processes = [psutil.Process(parent.pid) for parent in parents]
        processes += [child for parent in parents for child in parent.descendants()]
        memory = sum(process.memory_info().rss for process in processes)
        return memory + self._site.redis.client.info("memory")["used_memory"]

    def _watch(self):
        while not self._stop.wait(0.05):
            self.peak = max(self.peak, self._now())


#: MiB of the large body.
LARGE = int(os.environ.get("WSGI_TIMEOUT_TEST_BODY_MIB", "512"))


@pytest.mark.slow
@pytest.mark.timeout(100 + LARGE)
def test_half_a_gibibyte_up_and_down(deploy, capsys):
    """512 MiB, or as many as are asked for, pass whole either way; all together grow by less than 40 MB."""
    site = deploy(pool=("--processes", "1"), wait_seconds=90 + LARGE)
    size = LARGE * MIB
    piece = numbers(MIB)
    for _ in range(3):  # what is loaded with the first requests is no part of a body
        ask(site.web.port, "/hash", "POST", body=numbers(3 * MIB))
        ask(site.web.port, f"/numbers?size={3 * MIB}")
    with Peak(site) as up:
        body = itertools.repeat(piece, LARGE)
        headers = {"Content-Length": str(size)}
        answer = ask(site.web.port, "/hash", "POST", headers=headers, body=body, timeout=90 + LARGE)
    expected = hashlib.sha256()
    for _ in range(LARGE):
        expected.update(piece)
    assert answer.json == {"length": size, "sha256": expected.hexdigest()}

    got, expected = hashlib.sha256(), hashlib.sha256()
    for start in range(0, size, MIB):
        expected.update(array("Q", range(start // 8, (start + MIB) // 8)).tobytes())
    client = opened(site.web.port, f"/numbers?size={size}", 0)
    with Peak(site) as down, client, client.makefile("rb") as stream:
        while stream.readline().strip():
            pass
        while length := int(stream.readline(), 16):
            got.update(stream.read(length))
            stream.readline()
    assert got.hexdigest() == expected.hexdigest()
    with capsys.disabled():
        sys.stdout.write(
            f"\n{LARGE} MiB: {up.growth / 1e6:.1f} MB more up, {down.growth / 1e6:.1f} MB down\n"
        )
    assert max(up.growth, down.growth) < 40e6, (up.growth, down.growth)


# -- slow readers, at both ends

#: Bytes of a socket's buffer, which would else grow to tens of MiB; what may be under way beside `buffer`.
SOCKET, UNDER_WAY = 256 * 1024, 4 * MIB
#: Bytes of a body that a slow reader takes a second, and for how long.
PACE, SECONDS = 10_000, 10


def small(sock):
    """Bound a socket's buffers; a listening one hands that on to its connections."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, SOCKET)
    return sock


def streams(site):
    return set(site.redis.client.scan_iter(match="wt:out:*", count=1000))


def connected(site):
    client = small(socket.socket())
    client.settimeout(30)
    client.connect(("127.0.0.1", site.web.port))
    return client


@pytest.fixture(scope="module")
def paced(deploy, tmp_path_factory):
    site = deploy("wsgi_paced:app", pool=("--processes", "1"), wait_seconds=120, buffer=MIB, max_result=MIB)
    site.web.stop()
    site.web = site.start_web(sock=small(listen()))
    count = tmp_path_factory.mktemp("paced") / "count"
    for _ in range(3):  # what is loaded with the first requests is no part of a body
        ask(site.web.port, f"/writes?size={3 * MIB}&count={count}")
        ask(site.web.port, f"/reads?count={count}&file={count}", "POST", body=numbers(3 * MIB))
    return site


@pytest.mark.slow
def test_a_reader_of_ten_kilobytes_a_second_holds_its_handler_up(paced, tmp_path, capsys):
    """While a client reads 10 KB/s the handler's yields wait, memory is bounded, and no byte is lost."""
    size, count = 60_000_000, tmp_path / "count"
    written, raw, others = [], b"", streams(paced)
    with connected(paced) as client, Peak(paced) as peak:
        client.sendall(request(f"/writes?size={size}&count={count}".encode()))
        began = time.monotonic()
        for second in range(1, SECONDS + 1):
            while len(raw) < second * PACE:
                raw += client.recv(second * PACE - len(raw))
            time.sleep(max(0, began + second - time.monotonic()))  # the pace of this client
            written.append(int(count.read_text("utf-8")))
        (key,) = streams(paced) - others
        kept = int(paced.redis.client.hget(key, "kept"))
        pieces = [raw]
        while piece := client.recv(MIB):
            pieces.append(piece)
    with capsys.disabled():
        ahead = [(there - PACE * second) // 1000 for second, there in enumerate(written, 1)]
        sys.stdout.write(f"\nahead of 10 KB/s: {ahead} KB; {peak.growth / 1e6:.1f} MB more memory\n")
    assert max(written) < SECONDS * PACE + MIB + UNDER_WAY
    assert written[-1] - written[1] < SECONDS * PACE + MIB // 2
    assert kept <= MIB + 100_000
    assert peak.growth < 40e6
    answer = parse(b"".join(pieces))
    assert (answer.complete, answer.body == numbers(size)) == (True, True)
    assert count.read_text("utf-8") == "end"


@pytest.mark.slow
def test_a_handler_that_reads_slowly_holds_its_client_up(paced, tmp_path, gate, capsys):
    """While a handler reads little the client can send little more, and its upload arrives whole after it."""
    data, count = numbers(60_000_000), tmp_path / "count"
    sent, ahead, answer = [0], [], []
    with connected(paced) as client:

        def send():
            fields = (b"Content-Length: %d" % len(data),)
            client.sendall(request(f"/reads?count={count}&file={gate}".encode(), b"POST", fields))
            for start in range(0, len(data), 50_000):
                client.sendall(data[start : start + 50_000])
                sent[0] = start + 50_000

        sender = threading.Thread(target=send)
        with Peak(paced) as peak:
            sender.start()
            until(count.exists, what="the handler's first piece")
            began = time.monotonic()
            for tick in range(1, 21):
                time.sleep(
                    max(0, began + tick * 0.2 - time.monotonic())
                )  # what it is now, five times a second
                ahead.append(sent[0] - int(count.read_text("utf-8")))
            assert sender.is_alive()
            gate.touch()
            sender.join(30)
        while piece := client.recv(65_536):
            answer.append(piece)
    with capsys.disabled():
        sys.stdout.write(
            f"\nahead of the handler: {max(ahead) / 1e6:.1f} MB; {peak.growth / 1e6:.1f} MB more memory\n"
        )
    assert max(ahead) < MIB + UNDER_WAY
    assert ahead[-1] < ahead[5] + MIB // 2
    assert peak.growth < 40e6
    expected = f"{len(data)} {hashlib.sha256(data).hexdigest()}".encode()
    assert parse(b"".join(answer)).body == expected
