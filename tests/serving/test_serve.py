"""`wsgi-timeout serve`, as a person runs it: from the app's own folder, ended by Ctrl-C."""

import os
import re
import signal
import socket

import pytest
from harness import Process, until
from serve_command import BARE, COMMAND, SHOP, failing, inside

from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.serving.embedded_redis import state_folder


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
        [data] = (tmp_path / "state" / "wsgi-timeout").glob("shop-app-*")
        assert data.stat().st_mode & 0o777 == 0o700
        assert f"data in {data}\n" in server.output

    def test_both_halves_log_a_line_a_call(self, serve):
        """Where its output is no terminal, each half's log has its line of a call."""
        server = serve("shop:app")
        assert server.get().status_code == 200
        until(lambda: server.output.count(" GET / attempt 1 done") == 2, what="both lines")
        assert " GET / attempt 1 done 200, queued " in server.output

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
        assert server.url + first.headers["Location"] == first.json()["result_url"]
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
        assert "too many requests wait" in refused.json()["detail"]
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
            (["jobs"], {}, r"no app was found in it; name it, as in jobs:NAME"),
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

    @pytest.mark.slow
    def test_an_import_that_goes_on_and_on_is_said(self, folder, env):
        """After some seconds of an import a line says what one waits for; Ctrl-C ends it."""
        (folder / "endless.py").write_text("import signal\nsignal.pause()\n")
        process = Process([*COMMAND, "endless:app", "--bind", "127.0.0.1:0"], env=env, cwd=folder)
        try:
            process.wait_for("no worker has imported the app yet", 20)
        finally:
            assert process.stop(signal.SIGINT) == 0
