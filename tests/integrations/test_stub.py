"""Stubs: their decorators, their names, and where their web functions are found."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import APPS, Gunicorn, Pool, ask, environment, follow, until

from wsgi_timeout import Stub, asgi_app, web_endpoint, wsgi_app
from wsgi_timeout.errors import ConfigurationError
from wsgi_timeout.http.mounts import Mount, Mounts


def top_level(a=1):
    return a


def another():
    return None


class Holder:
    def method(self):
        return self


class TestDecorators:
    """A decorator that is written wrongly is an error at once, with the right form."""

    @pytest.mark.parametrize(
        ("write", "message"),
        [
            (lambda stub: stub.function(top_level), r"write @stub\.function\(\) with parentheses"),
            (lambda stub: stub.function(600), r"keyword arguments, got 600"),
            (lambda _stub: wsgi_app(top_level), r"write @wsgi_app\(\) with parentheses"),
            (lambda _stub: asgi_app(top_level), r"write @asgi_app\(\) with parentheses"),
            (lambda _stub: web_endpoint(top_level), r'write @web_endpoint\(method="GET"\) with parentheses'),
            (lambda _stub: web_endpoint("POST"), r"keyword arguments, got 'POST'"),
            (
                lambda stub: wsgi_app()(stub.function()(top_level)),
                r"put @stub\.function\(\) above @wsgi_app\(\)",
            ),
            (
                lambda stub: asgi_app()(stub.function()(top_level)),
                r"put @stub\.function\(\) above @asgi_app\(\)",
            ),
            (
                lambda stub: web_endpoint()(stub.function()(top_level)),
                r"put @stub\.function\(\) above @web_endpoint\(\)",
            ),
            (lambda _stub: wsgi_app()(wsgi_app()(top_level)), r"right above `def`"),
            (lambda stub: stub.function()(stub.function()(top_level)), r"@stub\.function\(\) twice"),
            (lambda stub: stub.function()("top_level"), r"stands above a function.*not above 'top_level'"),
            (lambda stub: stub.function()(lambda: 1), r"define it with `def`, at the top level"),
            (lambda stub: stub.function()(Holder.method), r"define it with `def`, at the top level"),
            (lambda stub: stub.function()(Holder()), r"stands above a function"),
            (lambda stub: stub.function(timeout=0.5), r"timeout=0\.5: from 1 s to 24 h"),
            (lambda stub: stub.function(timeout=0), r"timeout=0: from 1 s to 24 h"),
            (lambda stub: stub.function(timeout=86_401), r"timeout=86401: from 1 s to 24 h"),
            (lambda stub: stub.function(timeout="600"), r"timeout='600': from 1 s to 24 h"),
            (lambda stub: stub.function(retries=-1), r"retries=-1: a whole number, 0 or more"),
            (lambda stub: stub.function(retries=1.5), r"retries=1\.5: a whole number"),
            (lambda stub: stub.function(max_attempts=0), r"max_attempts=0: a whole number, 1 or more"),
            (lambda stub: stub.function(queue=""), r"queue='': use letters"),
            (lambda stub: stub.function(queue="a:b"), r"queue='a:b': use letters"),
            (lambda stub: stub.function(retries=1)(wsgi_app()(top_level)), r"retries= is for functions"),
            (lambda _stub: wsgi_app(label="a/b"), r"label 'a/b': use letters"),
            (lambda _stub: web_endpoint(method="BREW"), r"method='BREW'\): use one of DELETE, GET"),
            (lambda _stub: Stub(5), r"Stub\(5\): the name is text"),
        ],
    )
    def test_a_wrong_form_is_an_error(self, write, message):
        """A decorator without parentheses, in the wrong order, or out of bounds says how it is written."""
        with pytest.raises(ConfigurationError, match=message):
            write(Stub("wrong"))

    def test_a_function_within_a_function_is_an_error(self):
        """A function that workers cannot find by its name is refused."""

        def inner():
            return None

        with pytest.raises(ConfigurationError, match="at the top level of the module"):
            Stub("inner").function()(inner)

    def test_two_functions_of_one_name_are_an_error(self):
        """Two functions, or two web functions with one label, cannot be told apart."""
        stub = Stub("twice")
        stub.function()(top_level)
        stub.function()(wsgi_app(label="there")(another))
        with pytest.raises(ConfigurationError, match="two functions named 'top_level'"):
            stub.function()(top_level)
        with pytest.raises(ConfigurationError, match="two web functions with the label 'there'"):
            stub.function()(asgi_app(label="there")(top_level))

    @pytest.mark.parametrize("timeout", [1, 86_400])
    def test_the_bounds_of_a_timeout_are_allowed(self, timeout):
        """A function may run from a second to a day."""
        assert Stub("bounds").function(timeout=timeout)(top_level).local() == 1

    def test_a_marked_function_can_still_be_called(self):
        """A web function's own function stays at hand, for tests of the program."""
        stub = Stub("marked")
        marked = stub.function()(web_endpoint(method="post")(top_level))
        assert (marked.function(3), marked.method, marked.label) == (3, "POST", "top_level")
        assert stub.web == {"top_level": marked}


class TestNames:
    def test_a_stub_is_named_by_itself_its_module_or_the_deployment(self, monkeypatch):
        """A stub's name is the deployment's, else its own, else that of the module in which it stands."""
        monkeypatch.delenv("WSGI_TIMEOUT_NAME", raising=False)
        assert (Stub("own").name, Stub().name) == ("own", __name__)
        monkeypatch.setenv("WSGI_TIMEOUT_NAME", "deployed")
        assert (Stub("own").name, Stub().name) == ("deployed", "deployed")

    def test_a_stub_of_a_script_is_named_after_it(self, tmp_path):
        """In a script that is run a stub has the name that workers give to the file."""
        script = tmp_path / "night_shift.py"
        script.write_text("from wsgi_timeout import Stub\nprint(Stub().name)\n")
        run = subprocess.run(
            [sys.executable, script], env=environment(), capture_output=True, text=True, check=True
        )
        assert run.stdout == "night_shift\n"


@pytest.fixture(scope="module")
def site(deploy):
    """Workers which can import the app behind the stub, and a gateway which cannot."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONLY_IN_WORKERS", "yes")
        return deploy("several:stub", pool=("--processes", "2"), worker_wait=10, wait_seconds=20)


@pytest.fixture(scope="module")
def port(site):
    return site.web.port


class TestMounts:
    @pytest.mark.parametrize("path", ["/site/a/b", "/site/"])
    def test_several_web_functions_stand_under_their_labels(self, port, path):
        """Each of several web functions is an app of its own under its label, which is its `SCRIPT_NAME`."""
        answer = ask(port, f"{path}?x=1")
        assert answer.status == 200
        assert answer.json["root"] == "/site"
        assert answer.json["path"] == path.removeprefix("/site").lstrip("/")

    def test_an_app_answers_below_its_label(self, port):
        """What an app says of its own addresses holds below its label: Flask adds a missing slash."""
        answer = ask(port, "/site?x=1")
        assert (answer.status, answer.location) == (308, f"http://127.0.0.1:{port}/site/?x=1")

    def test_a_label_may_be_given(self, port):
        """`label=` names the place, and not the function."""
        assert ask(port, "/v1.api/anything").text == "from the API"
        assert ask(port, "/api/anything").status == 404

    @pytest.mark.parametrize("path", ["/", "/nothing", "/sit", "/site2", "//site", "/SITE"])
    def test_elsewhere_there_is_nothing(self, port, path):
        """A path under no label is a 404 that names it, and no worker is asked."""
        answer = ask(port, path)
        assert (answer.status, answer.header("Content-Type")) == (404, "application/problem+json")
        assert path in answer.json["detail"]

    def test_a_web_function_may_answer_202(self, port):
        """With `wait_for_response=False` a web function's requests get 202 and a result URL at once."""
        for target in ("/slow-site/a?x=1", "/later?x=1"):
            answer = ask(port, target)
            assert answer.status == 202
            result = follow(port, answer.json["result_url"])[-1]
            assert result.status == 200
        assert result.json == {"later": 1}
        assert ask(port, "/site/").status == 200

    def test_one_alone_stands_at_the_root(self, deploy):
        """The only web function of a stub has all paths, whatever its label."""
        site = deploy("lonely:stub", pool=("--processes", "1"), worker_wait=10, wait_seconds=20)
        assert [ask(site.web.port, path).text for path in ("/", "/x/y")] == ["lonely at /", "lonely at /x/y"]

    def test_a_deployment_sets_what_the_code_does_not(self, site):
        """Where a web function names no timeout the deployment's setting holds."""
        web = site.start_web(gateway="timeout=0.5")
        try:
            assert follow(web.port, "/site/hold")[-1].status == 504
        finally:
            web.stop()


class TestDeployments:
    def test_a_gateway_imports_nothing_of_the_stub(self, site):
        """`gateway("several:stub")` learns the web functions from the workers."""
        modules = (
            "import sys, wsgi_timeout; wsgi_timeout.gateway('several:stub'); print('several' in sys.modules)"
        )
        run = subprocess.run(
            [sys.executable, "-c", modules],
            env={**site.env, "REDIS_URL": site.redis.url},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout == "False\n"

    def test_the_stub_itself_serves_without_its_apps(self, site):
        """gunicorn serves the stub itself; its web functions' apps are imported in workers only."""
        env = {key: value for key, value in site.env.items() if key != "ONLY_IN_WORKERS"}
        web = Gunicorn("several:stub", site.redis.url, env={**env, "WSGI_TIMEOUT_NAME": site.name}, cwd=APPS)
        try:
            answer = ask(web.port, "/site/through-the-stub")
            assert (answer.status, answer.json["path"]) == (200, "through-the-stub")
            assert answer.json["pid"] in {process.pid for process in site.pool.workers()}
            assert ask(web.port, "/elsewhere").status == 404
        finally:
            web.stop()

    def test_a_newer_web_half_says_which_label_is_missing(self, site):
        """A web function that no live worker has is a 502 at once, which names it."""
        env = {**site.env, "WSGI_TIMEOUT_NAME": site.name, "WSGI_TIMEOUT_WAIT_SECONDS": "30"}
        web = Gunicorn("several_newer:stub", site.redis.url, env=env, cwd=APPS)
        try:
            answer = ask(web.port, "/brand_new", timeout=10)
            assert answer.status == 502
            web.wait_for(f"reference {answer.json['reference']}: .*'brand_new'")
            assert ask(web.port, "/site/").status == 200
        finally:
            web.stop()

    @pytest.mark.parametrize("app", ["wsgi_timeout:gateway('several:stub', name={name!r})", "several:stub"])
    def test_a_request_may_come_before_the_first_worker(self, site, redis_server, app):
        """A request that came before the first worker is run by the right web function."""
        name = f"{site.name}-early-{len(app)}"
        env = {
            **site.env,
            "WSGI_TIMEOUT_NAME": name,
            "WSGI_TIMEOUT_WORKER_WAIT": "20",
            "WSGI_TIMEOUT_WAIT_SECONDS": "20",
        }
        web = Gunicorn(app.format(name=name), redis_server.url, env=env, cwd=APPS)
        pools = []
        try:
            with ThreadPoolExecutor(2) as threads:
                targets = ("/later?x=3", "/nothing") if "gateway" in app else ("/later?x=3",)
                asked = [threads.submit(ask, web.port, target) for target in targets]
                until(web.workers, what="a web worker")
                pools.append(Pool("several:stub", name, redis_server.url, env=env, cwd=APPS))
                answers = [future.result(30) for future in asked]
                result = follow(web.port, answers[0].location)[-1] if answers[0].location else answers[0]
                assert result.json == {"later": 3}
                assert [answer.status for answer in answers[1:]] == [404] * len(answers[1:])
        finally:
            web.stop()
            for pool in pools:
                pool.stop()

    def test_a_worker_that_lacks_a_web_function_says_so(self, site, redis_server):
        """In the midst of a deploy a call that comes to an older worker ends in a 502 that names it."""
        name = f"{site.name}-mixed"
        env = {**site.env, "WSGI_TIMEOUT_NAME": name, "WSGI_TIMEOUT_WAIT_SECONDS": "20"}
        pool = Pool("several:stub", name, redis_server.url, "--processes", "1", env=env, cwd=APPS)
        # As a newer worker beside it would have told.
        told = Mounts({"brand_new": Mount(wait_for_response=True, timeout=None, max_attempts=None)}).dumps()
        (worker,) = redis_server.client.hkeys(f"wt:leases:{name}")
        redis_server.client.hset(f"wt:worker:{worker.decode()}", "mounts", told)
        web = Gunicorn("several_newer:stub", redis_server.url, env=env, cwd=APPS)
        try:
            answer = ask(web.port, "/brand_new")
            assert answer.status == 502
            web.wait_for(
                f"reference {answer.json['reference']}: .*its worker serves no web function 'brand_new'"
            )
        finally:
            web.stop()
            pool.stop()

    def test_a_stub_without_web_functions_has_no_address(self, deploy):
        """A stub of functions only answers 404 everywhere."""
        site = deploy("webless:stub", pool=("--processes", "1"), secret="any", worker_wait=10)
        assert ask(site.web.port, "/").status == 404

    def test_functions_need_a_secret(self, redis_server):
        """A worker of a stub with functions does not start without a secret, and names its variable."""
        pool = Pool("webless:stub", "webless", redis_server.url, env=environment(), cwd=APPS, wait=False)
        assert pool.popen.wait(20) == 1
        complaint = pool.output
        pool.stop()
        assert "wsgi-timeout: WSGI_TIMEOUT_SECRET is not set: set one long random string" in complaint
        assert "openssl rand -hex 32" in complaint
        assert "Traceback" not in complaint
