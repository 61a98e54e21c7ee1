"""`wsgi-timeout serve`, as a person runs it: from the app's own folder, ended by Ctrl-C."""

import hashlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urljoin

import psutil
import pytest
import requests
from harness import TESTS, Process, environment, until

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.serving.embedded_redis import state_folder

COMMAND = [sys.executable, "-m", "wsgi_timeout.serving.cli", "serve"]

#: An app that knows nothing of us. `/wait` says who runs it, and ends when a file appears.
SHOP = """
import os, time
from pathlib import Path
from flask import Flask, request

app = Flask(__name__)

@app.get("/")
def index():
    return "hello"

@app.get("/pid")
@app.get("/web/pid")
def pid():
    return str(os.getpid())

@app.get("/folder")
def folder():
    return os.getcwd()

@app.get("/wait/<who>")
def wait(who):
    door = Path(request.args["door"])
    door.with_name(f"in-{who}").write_text(str(os.getpid()))
    while not door.exists():
        time.sleep(0.01)
    return f"{who} is through"
"""

BARE = """
def shop(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
    return [b"bare"]
"""


class Serve(Process):
    """`wsgi-timeout serve`, up when it has printed its banner."""

    def __init__(self, folder, *words, env):
        super().__init__([*COMMAND, *words], env=env, cwd=folder)
        try:
            self.url = self.wait_for(r"serving .+ on (http://\S+)/ ", 30.0)[1]
            # The rest of the banner comes in the same moment, but not in the same write.
            self.wait_for("result URL")
        except AssertionError:
            self.stop()
            raise

    @property
    def port(self):
        return int(self.url.rpartition(":")[2])

    def get(self, path="/", **options):
        return requests.get(urljoin(self.url, str(path)), timeout=30, **options)

    def ctrl_c(self):
        """Do as a terminal does: SIGINT to the foreground process group."""
        os.killpg(self.pid, signal.SIGINT)

    def workers(self):
        """Return the ids of the processes that run the app's handlers."""
        pool = [p for p in self.descendants() if p.ppid() == self.pid and "worker" in p.cmdline()]
        return {child.pid for child in pool[0].children()}


@pytest.fixture
def sockets():
    """Return the folder for sockets, empty when all is as it should be. Short: a socket's path is."""
    with tempfile.TemporaryDirectory(prefix="wt-") as folder:
        yield Path(folder)


@pytest.fixture
def env(tmp_path, sockets):
    """Return an environment in which nothing is found that is not in the app's own folder."""
    clean = environment(worker_wait=2)
    del clean["PYTHONPATH"]
    return {**clean, "XDG_STATE_HOME": str(tmp_path / "state"), "TMPDIR": str(sockets)}


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a Flask app, `shop.py`."""
    path = tmp_path / "shop"
    path.mkdir()
    (path / "shop.py").write_text(SHOP)
    return path


@pytest.fixture
def serve(folder, env):
    """Return a function that serves from the app's folder; stopped with the test."""
    started = []

    def start(*words, **more):
        bind = () if "--bind" in words else ("--bind", "127.0.0.1:0")
        started.append(Serve(folder, *words, *bind, env={**env, **more}))
        return started[-1]

    yield start
    for one in started:
        one.stop(signal.SIGINT)
        sys.stdout.write(one.output)  # pytest shows it when the test has failed


@pytest.fixture
def door(serve, tmp_path):
    """Return a file that `/wait` waits for; it exists at the latest before `serve` is stopped."""
    path = tmp_path / "door"
    yield path
    path.touch()


@pytest.fixture
def together():
    """Return a function that runs another in a thread, and returns its future."""
    with ThreadPoolExecutor(8) as threads:
        yield threads.submit


def alive(processes):
    """Return those that still run; a zombie only waits for its parent."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def inside(door, who):
    """Return the process id of the handler of `/wait/<who>`, once it runs."""
    file = door.with_name(f"in-{who}")
    return int(until(lambda: file.exists() and file.read_text(), 20, f"handler {who}"))


class TestTargets:
    def test_a_flask_app_is_served_from_its_own_folder(self, serve, folder):
        """A Flask app that knows nothing of us is served, in its own folder, by workers."""
        server = serve("shop:app")
        answer = server.get()
        assert (answer.status_code, answer.text) == (200, "hello")
        assert server.get("/folder").text == str(folder)
        assert int(server.get("/pid").text) in server.workers()

    def test_its_data_are_its_owners_alone(self, serve, tmp_path):
        """The data lie in the state folder of the user, by target, and nobody else can read them."""
        server = serve("shop:app")
        [data] = (tmp_path / "state" / "wsgi-timeout").iterdir()
        assert data.name.startswith("shop-app-")
        assert data.stat().st_mode & 0o777 == 0o700
        assert f"data in {data}\n" in server.output

    def test_a_bare_wsgi_callable_is_served(self, serve, folder):
        """Any WSGI callable will do, whatever it is called."""
        (folder / "plain.py").write_text(BARE)
        assert serve("plain:shop").get().text == "bare"

    def test_its_neighbours_do_not_clash_with_ours(self, serve, folder):
        """An app beside a jobs.py, worker.py, wsgi.py and gunicorn.conf.py of its own finds them."""
        (folder / "jobs.py").write_text("WORD = 'its own jobs'\n")
        (folder / "worker.py").write_text("WORD = 'its own worker'\n")
        (folder / "wsgi.py").write_text(
            "import jobs, worker\n" + BARE.replace('b"bare"', "f'{jobs.WORD}, {worker.WORD}'.encode()[:4]")
        )
        (folder / "gunicorn.conf.py").write_text("raise SystemExit('gunicorn.conf.py was read')\n")
        server = serve("wsgi:shop")
        assert server.get().text == "its "
        assert "gunicorn.conf.py is yours and is not read here" in server.output

    def test_an_app_of_the_usual_name_needs_no_name(self, serve):
        """Without an attribute `app` or `application` of the module is served."""
        assert serve("shop").get().text == "hello"

    def test_a_factory_is_called_once_a_process(self, serve, folder):
        """A target may call a factory, with literals as arguments."""
        (folder / "made.py").write_text(
            SHOP + "def create_app(word, *, loud=False):\n"
            "    app.add_url_rule('/word', 'word', lambda: word.upper() if loud else word)\n"
            "    return app\n"
        )
        server = serve("made:create_app('quiet', loud=True)", "--processes", "1")
        assert [server.get("/word").text for _ in range(2)] == ["QUIET", "QUIET"]

    def test_a_file_is_served_with_its_folder_on_the_path(self, serve, folder):
        """A target may be a file in another folder, which imports what lies beside it."""
        (folder / "sub").mkdir()
        (folder / "sub" / "site.py").write_text("import beside\n" + BARE)
        (folder / "sub" / "beside.py").touch()
        (folder / "sub" / "main.py").write_text("import beside\n" + BARE)
        server = serve("sub/main.py:shop")
        assert server.get().text == "bare"
        assert "queue wt:main" in server.output


class TestOptions:
    def test_wait_says_when_a_request_is_redirected(self, serve, door):
        """With --wait 0.3 a longer request is redirected, and its result is behind the redirects."""
        server = serve("shop:app", "--wait", "0.3")
        first = server.get("/wait/ann", params={"door": door}, allow_redirects=False)
        assert first.status_code == 303
        door.touch()
        answer = server.get(first.headers["Location"])
        assert (answer.status_code, answer.text) == (200, "ann is through")
        assert "waits up to 0.3 s" in server.output

    def test_only_leaves_all_else_in_the_web_process(self, serve):
        """With --only the other routes run in the web process."""
        server = serve("shop:app", "--only", "/pid", "--only", "GET /wait/*")
        assert int(server.get("/pid").text) in server.workers()
        assert int(server.get("/web/pid").text) not in server.workers()

    def test_except_leaves_routes_in_the_web_process(self, serve):
        """With --except these routes run in the web process, and the others do not."""
        server = serve("shop:app", "--except", "/web/*")
        assert int(server.get("/pid").text) in server.workers()
        assert int(server.get("/web/pid").text) not in server.workers()

    def test_no_wait_answers_at_once(self, serve, door):
        """With --no-wait the answer is 202 and a result URL, behind which the result comes."""
        server = serve("shop:app", "--no-wait")
        first = server.get("/wait/ann", params={"door": door})
        assert first.status_code == 202
        door.touch()
        assert first.headers["Location"] == first.json()["result_url"]
        assert server.get(first.json()["result_url"]).text == "ann is through"

    def test_threads_are_calls_at_a_time_in_one_process(self, serve, door):
        """With --threads 4 one process runs four calls at a time, and the fifth waits."""
        server = serve("shop:app", "--processes", "1", "--threads", "4", "--no-wait")
        calls = [server.get(f"/wait/{n}", params={"door": door}).json() for n in range(5)]
        assert {inside(door, n) for n in range(4)} == server.workers()
        assert [server.get(call["status_url"]).json()["state"] for call in calls] == ["running"] * 4 + [
            "queued"
        ]
        door.touch()
        assert [server.get(call["result_url"]).text for call in calls] == [
            f"{n} is through" for n in range(5)
        ]

    def test_web_threads_bound_how_many_wait(self, serve, door, together):
        """With --web-threads 4 three requests may wait, and the next is refused at once."""
        server = serve("shop:app", "--web-threads", "4", "--threads", "4")
        answers = [together(server.get, f"/wait/{n}", params={"door": door}) for n in range(3)]
        for n in range(3):
            inside(door, n)
        refused = server.get()
        assert refused.status_code == 503
        assert "3 requests wait" in refused.json()["detail"]
        door.touch()
        assert [answer.result().status_code for answer in answers] == [200] * 3

    def test_reload_follows_edits(self, serve, folder):
        """With --reload an edit is served, also after one that could not be loaded."""
        server = serve("shop:app", "--reload", WSGI_TIMEOUT_WORKER_WAIT="0.1")
        assert server.get().text == "hello"
        shop = folder / "shop.py"
        shop.write_text(SHOP.replace("hello", "hello again"))
        until(lambda: server.get().text == "hello again", 20, "the first edit")
        shop.write_text(SHOP + "def broken(:\n")
        server.wait_for("SyntaxError: invalid syntax\nwsgi-timeout: importing 'shop:app' failed, see above")
        shop.write_text(SHOP.replace("hello", "hello once more"))
        until(lambda: server.get().text == "hello once more", 20, "the edit after a broken one")

    def test_reload_follows_edits_in_the_web_process(self, serve, folder):
        """With --reload routes left in the web process follow edits, also after one that fails."""
        server = serve("shop:app", "--reload", "--except", "/")
        assert server.get().text == "hello"
        shop = folder / "shop.py"
        shop.write_text("1 / 0  # an edit that cannot be loaded\n" + SHOP)
        until(lambda: server.get().status_code == 500, 20, "the broken edit")
        assert "ZeroDivisionError" in server.get().text
        shop.write_text(SHOP.replace("hello", "hello again"))
        until(lambda: server.get().text == "hello again", 20, "the edit after it")

    def test_a_redis_of_ones_own_is_used(self, serve, redis_server):
        """With REDIS_URL set no server is started, and its calls are there."""
        name = f"own-{os.getpid()}"
        server = serve("shop:app", "--name", name, REDIS_URL=redis_server.url)
        assert server.get().text == "hello"
        assert "embedded server, data in" not in server.output
        until(lambda: redis_server.client.scard(f"rq:workers:wt:{name}") == 2, what="both its workers")


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "settings", "message"),
        [
            (["nothing:app"], {}, r"no module named 'nothing'"),
            (["shop:nothing"], {}, r"has no attribute 'nothing'; its callables: .*app"),
            (["shop:__name__"], {}, r"is not a WSGI callable"),
            (["jobs"], {}, r"name the app, as in jobs:app"),
            ([":app"], {}, r"write module:app, module:factory\(\) or file.py:app"),
            (["shop:app)"], {}, r"'app\)' is not a name or a call"),
            (["no/such.py:app"], {}, r"no such file: /.*/no/such.py"),
            (["shop:app", "--bind", "8000"], {}, r"write HOST:PORT"),
            (["shop:app", "--bind", "here"], {}, r"write HOST:PORT, as in 127.0.0.1:8000"),
            (["shop:app", "--bind", "127.0.0.1:http"], {}, r"write HOST:PORT"),
            (["shop:app", "--bind", "127.0.0.1:99999"], {}, r"cannot listen on 127.0.0.1:99999: .*0-65535"),
            (["shop:app", "--bind", "203.0.113.1:80"], {}, r"cannot listen on 203.0.113.1:80: Cannot assign"),
            (["shop:app", "--name", "a b"], {}, r"the name 'a b': use letters, digits"),
            (["shop:app", "--name", "shop:functions"], {}, r"the name 'shop:functions': use letters"),
            (["shop:app"], {"WSGI_TIMEOUT_PUBLIC_URL": "shop"}, r"public_url='shop': must be a scheme"),
            (["shop:app"], {"WSGI_TIMEOUT_PUBLIC_URL": "http://a/b"}, r"public_url='http://a/b': must be"),
            (["shop:app"], {"WSGI_TIMEOUT_TRUSTED_PROXIES": "10.0.0.0/8"}, r"'10.0.0.0/8': must be IP"),
            (["shop:app", "--wait", "0"], {}, r"wait_seconds=0.0: must be at least"),
            (["shop:app", "--only", "reports"], {}, r"route pattern 'reports': write a path"),
            (["shop:app"], {"REDIS_URL": "redis://127.0.0.1:1"}, r"'redis://127.0.0.1:1' cannot be reached"),
            (["shop:app"], {"REDIS_URL": "redis://:p@ss@127.0.0.1:1/2"}, r"redis://:\*\*\*@127.0.0.1:1/2'"),
            (["shop:app"], {"REDIS_URL": "redis://me:pass@h:six"}, r"REDIS_URL='redis://me:\*\*\*@h:six'"),
            (["shop:app"], {"REDIS_URL": "somewhere"}, r"REDIS_URL='somewhere': .*redis://"),
            (["shop:app"], {"REDIS_URL": "redis://127.0.0.1:six/"}, r"REDIS_URL='redis://127.0.0.1:six/'"),
            (["shop:app"], {"WSGI_TIMEOUT_WAIT_SECONDS": "long"}, r"WAIT_SECONDS='long' is not a number"),
            (["shop:app"], {"WSGI_TIMEOUT_WAIT_SECONDS": "-1"}, r"wait_seconds=-1.0: must be at least"),
            (["shop:app"], {"WSGI_TIMEOUT_LOG_LEVEL": "loud"}, r"LOG_LEVEL='loud': use DEBUG"),
        ],
    )
    def test_a_mistake_is_one_line(self, folder, env, words, settings, message):
        """Whatever is wrong is said in one line that names it, without a traceback."""
        (folder / "jobs.py").write_text("QUEUE = None\n")
        code, errors = failing(folder, *words, env={**env, **settings})
        assert code != 0
        assert re.fullmatch(rf"wsgi-timeout: [^\n]*{message}[^\n]*\n", errors), errors

    def test_a_taken_port_is_said(self, folder, env):
        """A port that somebody else listens on is named, with what to do."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            code, errors = failing(folder, "shop:app", "--bind", f"127.0.0.1:{port}", env=env)
        assert code != 0
        assert errors == (
            f"wsgi-timeout: cannot listen on 127.0.0.1:{port}: Address already in use; "
            "choose another with --bind HOST:PORT\n"
        )

    def test_a_state_folder_that_cannot_be_made_is_said(self, folder, env, tmp_path):
        """A place for data that cannot be used is named."""
        (tmp_path / "state").write_text("a file")
        code, errors = failing(folder, "shop:app", env=env)
        assert code != 0
        assert re.fullmatch(r"wsgi-timeout: the data folder \S+ cannot be used: [^\n]+\n", errors), errors

    def test_a_user_without_a_home_needs_a_data_folder(self, monkeypatch):
        """No HOME, and no entry of the user's, as in a container, is said, with what to do."""
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr(os, "getuid", lambda: 2**31 - 12)
        with pytest.raises(ConfigurationError, match="choose one with --data-dir"):
            state_folder("shop:app")

    def test_a_server_that_does_not_start_says_why(self, folder, env, tmp_path, sockets):
        """Data that the embedded server cannot read end in a line with the end of its log."""
        damaged = tmp_path / "data" / "appendonlydir"
        damaged.mkdir(parents=True)
        (damaged / "appendonly.aof.manifest").write_text("nonsense\n")
        code, errors = failing(folder, "shop:app", "--data-dir", str(tmp_path / "data"), env=env)
        assert code != 0
        assert re.fullmatch(r"wsgi-timeout: \S+-server does not start: [^\n]+manifest[^\n]+\n", errors), (
            errors
        )
        assert not list(sockets.iterdir())

    def test_a_data_folder_in_use_is_said(self, serve, folder, env, tmp_path):
        """Two serves cannot share a --data-dir."""
        serve("shop:app", "--data-dir", tmp_path / "data")
        code, errors = failing(folder, "shop:app", "--data-dir", str(tmp_path / "data"), env=env)
        assert code != 0
        assert re.fullmatch(
            r"wsgi-timeout: the data folder \S+/data is in use by another serve[^\n]*\n", errors
        )

    @pytest.mark.parametrize(
        ("source", "cause"),
        [
            ("import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'"),
            ("1 / 0\n", "ZeroDivisionError: division by zero"),
            ("def broken(:\n", "SyntaxError: invalid syntax"),
            ("raise SystemExit('set DATABASE_URL')\n", "SystemExit: set DATABASE_URL"),
        ],
    )
    def test_an_error_of_the_app_is_shown(self, folder, env, source, cause):
        """An app that cannot be imported shows its own traceback, once, and a line that says so."""
        (folder / "faulty.py").write_text(source)
        code, errors = failing(folder, "faulty:app", env=env)
        assert code != 0
        assert errors.count("Traceback (most recent call last)") == 1
        assert f'File "{folder}/faulty.py", line 1' in errors
        assert errors.endswith(f"{cause}\nwsgi-timeout: importing 'faulty:app' failed, see above\n"), errors

    def test_an_import_that_goes_on_and_on_is_said(self, folder, env):
        """After some seconds of an import a line says what one waits for; Ctrl-C ends it."""
        (folder / "endless.py").write_text("import signal\nsignal.pause()\n")
        process = Process([*COMMAND, "endless:app", "--bind", "127.0.0.1:0"], env=env, cwd=folder)
        try:
            process.wait_for("no worker has imported the app yet", 20)
        finally:
            assert process.stop(signal.SIGINT) == 0


def failing(folder, *words, env):
    """Run `serve` until it has failed; return its exit code and its error output."""
    bind = () if "--bind" in words else ("--bind", "127.0.0.1:0")
    done = subprocess.run(
        [*COMMAND, *words, *bind],
        env=env,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert not done.stdout
    return done.returncode, done.stderr


class TestStopping:
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

    @pytest.mark.usefixtures("terminal")
    def test_a_closed_terminal_is_a_stop(self, serve, door, together, sockets):
        """SIGHUP ends all in order as Ctrl-C does; a second one, which a shell may send, does not hurry."""
        server = serve("shop:app")
        waiting = together(server.get, "/wait/ann", params={"door": door}, allow_redirects=False)
        inside(door, "ann")
        family = server.descendants()
        server.popen.send_signal(signal.SIGHUP)
        assert waiting.result().status_code == 303
        server.popen.send_signal(signal.SIGHUP)
        door.touch()
        assert server.popen.wait(20) == 0
        assert not alive(family)
        assert not list(sockets.iterdir())
        assert "away" not in server.output
        assert "GET /wait/ann attempt 1" in server.output

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

    def test_a_killed_serve_leaves_no_process_behind(self, serve):
        """When serve is killed, all that it started ends too."""
        server = serve("shop:app")
        server.get()
        family = server.descendants()
        server.popen.kill()
        server.popen.wait()
        until(lambda: not alive(family), 20, "the end of its children")

    @pytest.mark.parametrize("part", ["gunicorn", "worker", "unixsocket"])
    def test_a_part_that_dies_ends_all(self, serve, part):
        """When a part of it dies, serve says which, stops the rest and fails."""
        server = serve("shop:app")
        family = server.descendants()
        [first] = [p for p in family if p.ppid() == server.pid and part in " ".join(p.cmdline())]
        first.kill()
        assert server.popen.wait(30) == 1
        assert re.search(r"wsgi-timeout: .* ended unexpectedly: stopping all", server.output)
        until(lambda: not alive(family), 20, "the end of its children")


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


@pytest.fixture(scope="module")
def legacy(tmp_path_factory):
    """Serve a copy of the example, in a folder of its own, with a wait of half a second."""
    folder = tmp_path_factory.mktemp("legacy")
    shutil.copy(TESTS.parent / "examples" / "legacy" / "legacy.py", folder)
    env = environment()
    del env["PYTHONPATH"]
    words = ("legacy:app", "--bind", "127.0.0.1:0", "--wait", "0.5")
    server = Serve(folder, *words, env={**env, "XDG_STATE_HOME": str(folder / "state")})
    yield server
    server.stop(signal.SIGINT)


class TestLegacyExample:
    def test_the_first_page_links_to_all_others(self, legacy):
        """Every link of the first page leads to a page of the app."""
        links = re.findall(r'href="([^"]+)"', legacy.get().text)
        assert len(links) >= 6
        assert {legacy.get(link.replace("seconds=8", "seconds=0")).status_code for link in links} == {200}

    def test_a_slow_report_is_redirected_until_it_is_there(self, legacy):
        """A report that takes longer than the wait arrives by redirects, at the client's own pace."""
        answer = legacy.get("/reports/2025", params={"seconds": 1.3})
        assert [hop.status_code for hop in answer.history[:2]] == [303, 303]
        assert answer.status_code == 200
        assert "Report 2025" in answer.text

    def test_an_upload_is_hashed(self, legacy):
        """An uploaded file arrives whole, and its slow answer by redirects."""
        document = os.urandom(300_000)
        answer = requests.post(legacy.url + "/upload", files={"document": ("scan.pdf", document)}, timeout=30)
        assert answer.history
        assert f"scan.pdf: sha256 {hashlib.sha256(document).hexdigest()}" in answer.text

    def test_a_login_sets_its_cookie(self, legacy):
        """A login works through the session cookie, the app's own redirect and its flashed message."""
        with requests.Session() as browser:
            answer = browser.post(legacy.url + "/login", data={"user": "Ada"}, timeout=30)
            # A 303 of ours may come before and after it on a busy machine.
            assert [hop.status_code for hop in answer.history if hop.status_code != 303] == [302]
            assert "Welcome, Ada" in answer.text
            assert "Accounts of Ada" in browser.get(legacy.url, timeout=30).text
        assert "Accounts of Ada" not in legacy.get().text

    def test_rows_are_streamed(self, legacy):
        """A streamed export arrives whole and in order."""
        answer = legacy.get("/export.csv", params={"rows": 8})
        rows = answer.text.splitlines()
        assert answer.headers["Content-Type"].startswith("text/csv")
        assert [row.split(",")[:2] for row in rows] == [[str(n), f"booking {n}"] for n in range(8)]

    def test_a_download_keeps_its_headers(self, legacy):
        """A file arrives byte for byte, under its name."""
        answer = legacy.get("/statement.txt")
        assert answer.headers["Content-Disposition"] == "attachment; filename=statement.txt"
        assert answer.text.splitlines() == [f"{n:06}  a line of the statement" for n in range(20_000)]

    def test_a_slow_form_answers(self, legacy):
        """A slow form's answer arrives by redirects."""
        form = {"amount": "150", "seconds": "0.9"}
        answer = requests.post(legacy.url + "/estimate", data=form, timeout=30)
        assert answer.history[0].status_code == 303
        assert "150 a month are 1800 a year." in answer.text
