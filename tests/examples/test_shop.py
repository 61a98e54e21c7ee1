"""The legacy shop in `examples/shop`, unchanged, by every way in, beside an rq worker of its own."""

import csv
import io
import re
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests
from harness import FAST, ROOT, Gunicorn, Pool, Process, Serve, environment, until
from PIL import Image
from rq import Queue, Worker
from rq.registry import FailedJobRegistry

SHOP = ROOT / "examples" / "shop"
BIN = Path(sys.executable).parent
PRODUCTS = ["Teapot", "Café crème, 250 g", "Kettle"]

#: Seconds after which a request is redirected; an export of three orders, and an upload, take longer.
SETTINGS = {"wait_seconds": 0.6}
SLOW = {"SHOP_SECONDS_PER_ORDER": "0.4", "SHOP_SECONDS_PER_IMAGE": "1"}

#: Seconds in which the shop's own worker confirms an order; it may have to start for that.
CONFIRMED = 40

#: The prefix of the shop by the way in.
WAYS = {"serve": "", "extension": "", "blueprint": "/shop"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("shop")


@pytest.fixture(scope="module")
def env(redis_server, data):
    """What the shop is configured by, wherever it runs; and its tables."""
    env = {**environment(**{**FAST, **SETTINGS}), **SLOW}
    env.update(PYTHONPATH="", REDIS_URL=redis_server.url, SHOP_DATA=str(data), SECRET_KEY="the shop's")
    setup = Process([BIN / "flask", "--app", "shop", "init-db"], env=env, cwd=SHOP)
    setup.wait_for("Log in as ann or bob")
    assert setup.popen.wait(20) == 0
    setup.stop()
    return env


def own_worker(env):
    """Start the worker of the shop, as its `jobs.py` says."""
    return Process([BIN / "rq", "worker", "--url", env["REDIS_URL"], "shop-mail"], env=env, cwd=SHOP)


@pytest.fixture(scope="module")
def mail_workers():
    """Those that tests started; at most the last one runs."""
    workers = []
    yield workers
    for worker in workers:
        worker.stop()


@pytest.fixture
def mail_worker(env, mail_workers):
    """The shop's own worker, which the test may stop."""
    if not mail_workers or mail_workers[-1].popen.poll() is not None:
        mail_workers.append(own_worker(env))
        mail_workers[-1].wait_for("Listening on shop-mail", CONFIRMED)
    return mail_workers[-1]


@pytest.fixture(scope="module")
def slow_pool(env, redis_server):
    """The workers of the two routes that `with_timeouts.py` names: one process, with threads."""
    options = ("--processes", "1", "--threads", "3")
    pool = Pool("with_timeouts:app", None, redis_server.url, *options, env=env, cwd=SHOP)
    yield pool
    pool.stop()


@pytest.fixture(scope="module")
def served(env, tmp_path_factory):
    """`wsgi-timeout serve`, whose workers serve the blueprint, too."""
    serve = Serve(
        "shop:create_app()",
        *("--wait", "0.6"),
        folder=SHOP,
        state=tmp_path_factory.mktemp("state"),
        env={key: value for key, value in env.items() if key != "PYTHONPATH"},
    )
    yield serve
    assert serve.stop(signal.SIGINT) == 0


@pytest.fixture(scope="module")
def ports(env, redis_server, served, slow_pool):
    webs = {
        "extension": Gunicorn("with_timeouts:app", redis_server.url, env=env, cwd=SHOP),
        "blueprint": Gunicorn("portal:app", redis_server.url, env=env, cwd=SHOP),
    }
    yield {"serve": served.port, **{way: web.port for way, web in webs.items()}}
    for web in webs.values():
        web.stop()


class Client(requests.Session):
    """A browser that fills in forms: it reads the page of a form first, for its CSRF token."""

    def __init__(self, root, prefix):
        super().__init__()
        self.root = root
        self.shop = root + prefix

    def page(self, path, **options):
        return self.get(self.shop + path, timeout=30, **options)

    def fill_in(self, page, action, files=None, **fields):
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.page(page).text)[1]
        data = {"csrf_token": token, **fields}
        return self.post(self.shop + action, data=data, files=files, timeout=30)

    def log_in(self, name="bob", password="secret"):
        return self.fill_in("/login", "/login", name=name, password=password)

    def order(self, *products):
        """Return the number of an order that was placed."""
        for product in products:
            self.fill_in("/", f"/cart/{product}")
        answer = self.fill_in("/", "/orders/")
        return int(re.search(r"Order (\d+) is on its way", answer.text)[1])

    def status(self, order):
        return self.page(f"/orders/{order}/status").json()


@pytest.fixture(params=WAYS)
def shop(request, ports):
    """A new client of the shop by one way in."""
    with Client(f"http://127.0.0.1:{ports[request.param]}", WAYS[request.param]) as client:
        yield client


def rows(answer):
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert re.fullmatch(r"attachment; filename=orders-[\d-]+\.csv", answer.headers["Content-Disposition"])
    return list(csv.DictReader(io.StringIO(answer.content.decode())))


def image():
    file = io.BytesIO()
    Image.new("RGB", (400, 300), "teal").save(file, "PNG")
    return file.getvalue()


def test_a_login_lasts(shop):
    """Sessions and CSRF tokens work: a wrong password is told, a right one leads where one wanted to go."""
    refused = shop.page("/orders/")
    assert refused.url.startswith(f"{shop.shop}/login?next=")
    assert "do not fit" in shop.log_in(password="wrong").text
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', refused.text)[1]
    fields = {"csrf_token": token, "name": "bob", "password": "secret", "remember": "y"}
    welcome = shop.post(refused.url, data=fields, timeout=30)
    assert welcome.url == f"{shop.shop}/orders/"
    assert "Orders of bob" in welcome.text
    # The session is lost with the browser, the login is not.
    del shop.cookies["session"]
    assert "Orders of bob" in shop.page("/").text
    shop.fill_in("/", "/logout")
    assert "/login?next=" in shop.page("/orders/").url


def test_a_form_without_its_token(shop):
    """The shop's CSRF protection refuses what does not come from its forms."""
    answer = shop.post(f"{shop.shop}/cart/1", timeout=30)
    assert answer.status_code == 400
    assert "The CSRF token is missing" in answer.text


def test_an_order_is_confirmed_by_the_shops_own_worker(shop, mail_worker, data):
    """A handler puts a job into the shop's own queue, and its own rq worker runs it."""
    shop.log_in("ann")
    order = shop.order(1, 2, 2)
    done = until(lambda: (told := shop.status(order))["confirmed"] and told, CONFIRMED, "the confirmation")
    until(lambda: shop.status(order)["job"] == "finished", CONFIRMED, "the end of the job")
    assert done["order"] == order
    assert (data / f"mail-{order}.txt").read_text() == "Dear ann, your order of 59.80 euro ...\n"
    assert re.search(rf"Order {order}, 59\.80 €\s+confirmed", shop.page("/orders/").text)


def test_a_slow_export(shop):
    """Bob's three orders take longer than a wait: redirects, and at their end the whole file."""
    shop.log_in()
    answer = shop.page("/orders/export.csv")
    assert [hop.status_code for hop in answer.history] == [303] * len(answer.history)
    assert answer.history
    assert answer.history[0].headers["Location"].startswith(answer.history[0].request.path_url)
    table = rows(answer)
    assert [row["product"] for row in table] == PRODUCTS * 3
    assert {row["count"] for row in table} == {"1", "2", "3"}
    assert answer.headers["Cache-Control"] == "private, no-store"


def test_an_export_needs_a_login(shop):
    """The shop's `login_required` guards what runs as a call, as ever."""
    answer = shop.page("/orders/export.csv")
    assert answer.url.startswith(f"{shop.shop}/login?next=")
    assert "text/html" in answer.headers["Content-Type"]


def test_a_slow_upload(shop):
    """A form with a file ends on the page to which the shop redirects, with its message from the session."""
    shop.log_in()
    answer = shop.fill_in("/products/3", "/products/3/image", files={"image": ("kettle.png", image())})
    assert [hop.status_code for hop in answer.history][-1] == 302
    assert answer.history[0].status_code == 303
    assert answer.url == f"{shop.shop}/products/3"
    assert "The image is 200 x 150 now." in answer.text
    picture = shop.page("/products/3/image.png")
    assert Image.open(io.BytesIO(picture.content)).size == (200, 150)
    fresh = shop.page("/products/3/image.png", headers={"If-None-Match": picture.headers["ETag"]})
    assert (fresh.status_code, fresh.content) == (304, b"")


def test_a_bad_upload(shop):
    """What the form refuses is told on the page, at once."""
    shop.log_in()
    answer = shop.fill_in("/products/1", "/products/1/image", files={"image": ("notes.txt", b"text")})
    assert "File does not have an approved extension" in answer.text


def test_all_ways_at_a_time(ports, mail_worker, redis_server):
    """Orders come in by all ways at once: each is placed once, and confirmed once."""

    def place(way):
        with Client(f"http://127.0.0.1:{ports[way]}", WAYS[way]) as client:
            client.log_in("ann")
            order = client.order(1)
            until(lambda: client.status(order)["confirmed"], CONFIRMED, "the confirmation")
            return order

    before = len(jobs_done(redis_server))
    with ThreadPoolExecutor(3) as threads:
        orders = list(threads.map(place, WAYS))
    assert len(set(orders)) == 3
    until(lambda: len(jobs_done(redis_server)) == before + 3, CONFIRMED, "the end of the jobs")


def jobs_done(server):
    return Queue("shop-mail", connection=server.client).finished_job_registry.get_job_ids()


def test_the_queues_do_not_meet(env, ports, mail_worker, redis_server):
    """Each worker serves its own queue: the shop's has run no call, ours no job, and nothing has failed."""
    with Client(f"http://127.0.0.1:{ports['serve']}", "") as client:
        client.log_in("ann")
        order = client.order(1)
        until(lambda: client.status(order)["confirmed"], CONFIRMED, "the confirmation")
    connection = redis_server.client
    queues = {queue.name for queue in Queue.all(connection=connection)}
    assert {"shop-mail", "wt:shop", "wt:shop-slow"} <= queues
    workers = {worker.name: worker.queue_names() for worker in Worker.all(connection=connection)}
    assert ["shop-mail"] in workers.values()
    assert [names for names in workers.values() if "shop-mail" in names] == [["shop-mail"]]
    for name in ("shop-mail", "wt:shop", "wt:shop-slow"):
        assert FailedJobRegistry(name, connection=connection).count == 0
    info = Process([BIN / "rq", "info", "--url", redis_server.url], env=env)
    for name in ("shop-mail", "wt:shop", "wt:shop-slow"):
        info.wait_for(rf"(?m)^{name} +\|?.* 0, ")
    info.stop()
    assert "wt:" not in re.sub(r"wt-test-\S+", "", mail_worker.output)


def test_its_jobs_module_is_its_own(env):
    """`import jobs` in a process that has loaded all of ours, and then the shop, is the shop's file."""
    code = (
        "import wsgi_timeout_jobs.pool.pool; from wsgi_timeout import target; target.load('wsgi:app');"
        "import jobs, tasks; print(jobs.__file__, tasks.__file__)"
    )
    process = Process([sys.executable, "-P", "-c", code], env=env, cwd=SHOP)
    found = process.wait_for(r"(\S+) (\S+)").groups()
    process.stop()
    assert found == (str(SHOP / "jobs.py"), str(SHOP / "tasks.py"))


def test_the_shops_worker_may_be_away(served, env, mail_worker, mail_workers):
    """Without its own worker the shop takes orders, which wait; the next one confirms them."""
    with Client(served.url, "") as client:
        client.log_in("ann")
        mail_worker.stop()
        order = client.order(2)
        assert client.status(order) == {"order": order, "job": "queued", "confirmed": False}
        mail_workers.append(own_worker(env))
        until(lambda: client.status(order)["confirmed"], CONFIRMED, "the confirmation")


def test_a_dead_worker_takes_no_connection_with_it(served, ports):
    """Each worker process has database connections of its own: one that is killed spoils no other."""
    with Client(served.url, "") as client:
        client.log_in()
        first = client.page("/orders/export.csv", allow_redirects=False)
        assert first.status_code == 303
        for process in database_users(served):
            process.send_signal(signal.SIGKILL)
        answer = client.get(served.url + first.headers["Location"], timeout=30)
        assert [row["product"] for row in rows(answer)] == PRODUCTS * 3


def database_users(process):
    """Return the descendants of a process that have the shop's database open."""

    def has_it(child):
        try:
            return any(file.path.endswith("shop.db") for file in child.open_files())
        except psutil.Error:
            return False

    return until(lambda: [child for child in process.descendants() if has_it(child)], what="a connection")
