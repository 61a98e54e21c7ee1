"""`serve` ends: by Ctrl-C, a closed terminal or a part that dies, with nothing left behind."""

import random
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import requests
from harness import Process, listen, socket_activation, until
from serve_command import COMMAND, alive, inside


def answered(url):
    """Return the answer of a server, None if it is not up yet."""
    with suppress(requests.ConnectionError):
        return requests.get(url, timeout=30)


def quiet_port():
    """Return a free port from below those that the system gives out, so that nobody else takes it."""
    while True:
        port = random.randrange(20_000, 30_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class TestStopping:
    @pytest.mark.slow
    def test_two_of_the_same_app_do_not_meet(self, serve, door, together):
        """Two serves of one app in one folder have data of their own, and each runs its own calls."""
        one, two = serve("shop:app"), serve("shop:app")
        assert one.url != two.url
        data = [re.search(r"data in (\S+)", server.output)[1] for server in (one, two)]
        assert data[1] == data[0] + "-2"
        answers = [
            together(server.get, f"/wait/{name}-{n}", params={"door": door})
            for n in range(2)
            for name, server in (("one", one), ("two", two))
        ]
        assert {inside(door, f"one-{n}") for n in range(2)} == one.workers()
        assert {inside(door, f"two-{n}") for n in range(2)} == two.workers()
        door.touch()
        assert [answer.result().status_code for answer in answers] == [200] * 4

    def test_ctrl_c_leaves_nothing_behind(self, serve, sockets):
        """Ctrl-C ends the web server, the workers and the embedded server, and serve with 0."""
        server = serve("shop:app")
        server.get()
        family = server.descendants()
        assert len(family) >= 6, family
        assert list(sockets.iterdir())
        server.ctrl_c()
        assert server.popen.wait(20) == 0
        assert not alive(family)
        assert not list(sockets.iterdir())
        assert "stopping" in server.output
        assert "Traceback" not in server.output
        assert "away" not in server.output

    def test_ctrl_c_lets_a_waiting_request_go_on_later(self, serve, door, together, tmp_path, sockets):
        """At Ctrl-C a waiting request is redirected, its handler ends, and its result outlives a restart."""
        data = ("--data-dir", tmp_path / "data", "--bind", f"127.0.0.1:{quiet_port()}")
        server = serve("shop:app", *data)
        waiting = together(server.get, "/wait/ann", params={"door": door}, allow_redirects=False)
        inside(door, "ann")
        family = server.descendants()
        server.ctrl_c()
        answer = waiting.result()
        assert answer.status_code == 303
        door.touch()
        assert server.popen.wait(30) == 0
        assert not alive(family)
        assert not list(sockets.iterdir())
        (tmp_path / "in-ann").unlink()
        again = serve("shop:app", *data)
        assert again.get(answer.headers["Location"]).text == "ann is through"
        assert not (tmp_path / "in-ann").exists(), "it ran a second time"

    @pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGTERM])
    def test_a_stop_lets_a_handler_end(self, serve, door, together, sockets, number):
        """QUIT ends all in order as Ctrl-C does: its waiting client is redirected, its handler ends."""
        server = serve("shop:app")
        waiting = together(server.get, "/wait/ann", params={"door": door}, allow_redirects=False)
        inside(door, "ann")
        family = server.descendants()
        server.popen.send_signal(number)
        assert waiting.result().status_code == 303
        door.touch()
        assert server.popen.wait(20) == 0
        assert not alive(family)
        assert not list(sockets.iterdir())
        assert "GET /wait/ann attempt 1" in server.output

    @pytest.mark.usefixtures("terminal")
    def test_hup_loads_the_app_anew(self, serve, door, together, folder):
        """HUP: a request that waits is redirected to its result, and later ones find the edited app."""
        server = serve("shop:app")
        waiting = together(server.get, "/wait/ann", params={"door": door})
        inside(door, "ann")
        source = folder / "shop.py"
        source.write_text(source.read_text().replace('"hello"', '"hello again"'))
        server.popen.send_signal(signal.SIGUSR1)
        server.popen.send_signal(signal.SIGUSR2)
        server.popen.send_signal(signal.SIGHUP)
        until(lambda: server.get().text == "hello again", 30, "the edited app")
        door.touch()
        assert waiting.result().text == "ann is through"
        assert server.popen.poll() is None

    @pytest.mark.slow
    def test_a_pool_that_dies_is_replaced(self, serve):
        """When the pool's parent is killed serve starts another pool, and requests are served again."""
        server = serve("shop:app")
        server.get()
        [pool] = [p for p in server.children() if " worker " in " ".join(p.cmdline())]
        pool.kill()
        server.wait_for("starting it anew", 10)
        until(lambda: server.get().text == "hello", 30, "an answer")

    def test_closed_streams_do_not_matter(self, folder, env):
        """Without stdin, stdout and stderr, as some supervisors start it, it serves, and stops in order."""
        port = quiet_port()
        command = [*COMMAND, "shop:app", "--bind", f"127.0.0.1:{port}"]
        closing = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
        process = Process(closing, env=env, cwd=folder)
        try:
            answer = until(lambda: answered(f"http://127.0.0.1:{port}/"), 30, "an answer")
            assert answer.text == "hello"
            family = process.descendants()
        finally:
            assert process.stop(signal.SIGINT) == 0
        assert not alive(family)

    @pytest.mark.slow
    def test_a_second_ctrl_c_hurries(self, serve, door, together, tmp_path):
        """A second Ctrl-C does not wait for what runs; it runs again after the next start."""
        lease = {"WSGI_TIMEOUT_LEASE_SECONDS": "2"}
        data = ("--data-dir", tmp_path / "data", "--bind", f"127.0.0.1:{quiet_port()}")
        server = serve("shop:app", *data, **lease)
        waiting = together(server.get, "/wait/ann", params={"door": door}, allow_redirects=False)
        inside(door, "ann")
        family = server.descendants()
        server.ctrl_c()
        location = waiting.result().headers["Location"]
        assert server.popen.poll() is None, "it did not wait for the handler"
        server.ctrl_c()
        assert server.popen.wait(20) == 0
        assert not door.exists()
        until(lambda: not alive(family), 10, "the end of its children")
        door.touch()
        assert serve("shop:app", *data, **lease).get(location).text == "ann is through"

    @pytest.mark.slow
    def test_a_result_outlives_a_restart(self, serve, tmp_path):
        """A result of --no-wait can be fetched after a stop and a start with the same data."""
        words = ("--no-wait", "--data-dir", tmp_path / "data", "--bind", f"127.0.0.1:{quiet_port()}")
        server = serve("shop:app", *words)
        accepted = server.get().json()
        until(lambda: server.get(accepted["status_url"]).json()["state"] == "ended", what="its end")
        server.ctrl_c()
        assert server.popen.wait(20) == 0
        again = serve("shop:app", *words)
        assert again.url == server.url
        assert again.get(accepted["result_url"]).text == "hello"

    @pytest.mark.slow
    def test_a_socket_of_systemds_stays_open(self, folder, env):
        """While serve is stopped and started on a socket that systemd has, a request waits in line for it."""
        with listen() as door, ThreadPoolExecutor(1) as thread:
            command = [*socket_activation(door), *COMMAND, "shop:app"]
            url = f"http://127.0.0.1:{door.getsockname()[1]}/"
            server = Process(command, env=env, cwd=folder, pass_fds=(door.fileno(),))
            try:
                server.wait_for(f"serving shop:app on {url}", 30)
                assert requests.get(url, timeout=30).text == "hello"
                assert server.stop(seconds=40) == 0
                waiting = thread.submit(requests.get, url, timeout=60)
                server = Process(command, env=env, cwd=folder, pass_fds=(door.fileno(),))
                assert waiting.result().text == "hello"
            finally:
                server.stop()

    def test_a_killed_serve_leaves_no_process_behind(self, serve):
        """When serve is killed, all that it started ends too."""
        server = serve("shop:app")
        server.get()
        family = server.descendants()
        server.popen.kill()
        server.popen.wait()
        until(lambda: not alive(family), 20, "the end of its children")

    @pytest.mark.parametrize("part", ["gunicorn", "unixsocket"])
    def test_a_part_that_dies_ends_all(self, serve, part):
        """When a part of it dies, serve says which, stops the rest and fails."""
        server = serve("shop:app")
        family = server.descendants()
        [first] = [p for p in family if p.ppid() == server.pid and part in " ".join(p.cmdline())]
        first.kill()
        assert server.popen.wait(30) == 1
        assert re.search(r"wsgi-timeout: .* ended unexpectedly: stopping all", server.output)
        until(lambda: not alive(family), 20, "the end of its children")
