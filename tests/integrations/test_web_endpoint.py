"""Web endpoints: parameters by type hints, and what a function may return."""

import io
import json

import pytest
import requests
from harness import ask

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def site(deploy):
    return deploy("endpoints:stub", pool=("--processes", "2"), wait_seconds=20, worker_wait=10)


@pytest.fixture(scope="module")
def port(site):
    return site.web.port


def send_json(port, target, value, method="POST"):
    return ask(port, target, method, headers=JSON, body=json.dumps(value))


class TestParameters:
    def test_a_parameter_comes_from_the_query(self, port):
        """A parameter of a GET endpoint is read from the query string, by its type hint."""
        answer = ask(port, "/square?x=12&unknown=1")
        assert (answer.status, answer.json) == (200, {"square": 144})
        assert answer.header("Content-Type") == "application/json"

    @pytest.mark.parametrize(
        ("headers", "body"),
        [(FORM, "x=5"), (JSON, '{"x": 5}'), (JSON, '{"x": "5"}')],
        ids=["form", "json", "text"],
    )
    def test_a_parameter_comes_from_the_body(self, port, headers, body):
        """A parameter of a POST endpoint is read from a form or a JSON object, before the query."""
        answer = ask(port, "/square-post?x=9", "POST", headers=headers, body=body)
        assert (answer.status, answer.json) == (200, {"square": 25})

    def test_a_post_reads_the_query_too(self, port):
        """What is not in the body of a POST is read from the query string."""
        assert ask(port, "/square-post?x=9", "POST").json == {"square": 81}

    @pytest.mark.parametrize(
        ("query", "values"),
        [("", (1, "two", None)), ("?a=5&b=&c=7", (5, "", 7)), ("?c=3&c=4", (1, "two", 4))],
    )
    def test_defaults_and_optionals(self, port, query, values):
        """What has a default need not be given, an optional may be None; the last of several counts."""
        assert tuple(ask(port, f"/defaults{query}").json.values()) == values

    def test_lists_come_from_repeated_names(self, port):
        """A list, a set and an optional list take all values of their name, from a form as from JSON."""
        form = ask(
            port, "/lists?tags=q", "POST", headers=FORM, body="numbers=1&numbers=2&words=a&tags=t&tags=t"
        )
        assert form.json == {"numbers": [1, 2], "words": ["a"], "tags": ["t"]}
        values = {"numbers": ["3"], "words": ["b", "c"]}
        assert send_json(port, "/lists", values).json == {"numbers": [3], "words": ["b", "c"], "tags": []}

    def test_a_single_value_is_no_list_in_json(self, port):
        """In JSON a list is a list."""
        assert send_json(port, "/lists", {"numbers": 3}).status == 422

    def test_many_kinds_of_hints(self, port):
        """Booleans, enums by value, dates and bounded numbers are read from text, and checked."""
        good = {"flag": "on", "colour": "red", "day": "2026-02-03", "ratio": "0.25"}
        answer = requests.post(f"http://127.0.0.1:{port}/kinds", data=good, timeout=20)
        assert answer.json() == {"flag": True, "colour": "RED", "year": 2026, "ratio": 0.25}
        bad = {"flag": "maybe", "colour": "green", "day": "soon", "ratio": "2"}
        answer = requests.post(f"http://127.0.0.1:{port}/kinds", data=bad, timeout=20)
        assert answer.status_code == 422
        assert [item["loc"] for item in answer.json()["detail"]] == [["flag"], ["colour"], ["day"], ["ratio"]]

    @pytest.mark.parametrize("flag", ["1", "true", "yes", "on", "0", "false", "no", "off"])
    def test_words_for_booleans(self, port, flag):
        """The usual words for true and false are understood."""
        answer = ask(port, f"/kinds?flag={flag}&colour=blue&day=2026-01-01", "POST")
        assert answer.json["flag"] is (flag in {"1", "true", "yes", "on"})

    def test_a_default_may_hold_bounds(self, port):
        """A pydantic `Field` as default gives a default and its bounds."""
        assert [ask(port, f"/limits{query}").status for query in ("", "?limit=1", "?limit=0")] == [
            200,
            200,
            422,
        ]
        assert ask(port, "/limits").json == {"limit": 3}
        assert ask(port, "/limits?limit=0").json["detail"][0]["loc"] == ["limit"]

    def test_models_and_mappings_come_from_json(self, port):
        """A pydantic model and a dict are read from JSON, and an error names the place within."""
        body = {"size": {"width": 3, "height": 4}, "names": {"a": 1}}
        assert send_json(port, "/sized", body).json == {"area": 12, "names": {"a": 1}}
        answer = send_json(port, "/sized", {"size": {"width": "wide"}, "names": {}})
        assert (answer.status, answer.json["detail"][0]["loc"]) == (422, ["size", "width"])

    @pytest.mark.parametrize("body", [{"x": 2}, {"item": {"x": 2}}])
    def test_an_only_mapping_takes_the_whole_object(self, port, body):
        """A JSON object is the argument of a function with one parameter, for objects, named in it or not."""
        assert send_json(port, "/whole", body).json == {"x": 2}

    def test_an_only_model_takes_the_whole_object(self, port):
        """The same for a model; an error names the parameter and the place within."""
        assert send_json(port, "/whole-size", {"width": 3, "height": 2}).json == {"area": 6}
        assert send_json(port, "/whole-size", {"size": {"width": 3}}).json == {"area": 3}
        assert ask(port, "/whole-size", "POST").json == {"area": 0}
        answer = send_json(port, "/whole-size", {"width": "wide"})
        assert (answer.status, answer.json["detail"][0]["loc"]) == (422, ["size", "width"])

    def test_a_file_is_uploaded(self, port):
        """A parameter of type `FileStorage` takes an uploaded file, beside the fields of the form."""
        files = {"file": ("note.txt", io.BytesIO(b"x" * 100_000))}
        answer = requests.post(
            f"http://127.0.0.1:{port}/upload", files=files, data={"title": "T"}, timeout=20
        )
        assert answer.json() == {"name": "note.txt", "bytes": 100_000, "title": "T"}

    def test_several_files_are_uploaded(self, port):
        """A list of `FileStorage` takes all files of its name."""
        files = [("files", (name, io.BytesIO(b"x"))) for name in ("a", "b", "c")]
        answer = requests.post(f"http://127.0.0.1:{port}/upload-several", files=files, timeout=20)
        assert answer.json() == ["a", "b", "c"]

    def test_text_is_no_file(self, port):
        """A text where a file is wanted is a 422 that names the field."""
        answer = ask(port, "/upload", "POST", headers=FORM, body="file=text")
        assert (answer.status, answer.json["detail"][0]["loc"]) == (422, ["file"])

    def test_without_hints_anything_goes(self, port):
        """A parameter without a type hint takes what comes."""
        answer = send_json(port, "/untyped", {"anything": [1, {"a": None}]}, "PUT")
        assert answer.json == {"anything": [1, {"a": None}], "other": "default"}

    def test_any_name_will_do(self, site, port):
        """A parameter may be called as it likes, `json` or `copy` too, without a warning."""
        answer = ask(port, "/shadows?json=1&copy=c&schema=s&model_name=m&_private=p")
        assert answer.json == {"json": 1, "copy": "c", "schema": "s", "model_name": "m", "_private": "p"}
        assert "Warning" not in site.pool.output


class TestErrors:
    @pytest.mark.parametrize(
        ("target", "kind"),
        [("/square", "missing"), ("/square?x=", "int_parsing"), ("/square?x=two", "int_parsing")],
    )
    def test_a_bad_parameter_is_a_422_that_names_it(self, port, target, kind):
        """A parameter that is missing or wrong is a 422 with its name and what is wrong."""
        answer = ask(port, target)
        assert answer.status == 422
        (detail,) = answer.json["detail"]
        assert (detail["loc"], detail["type"]) == (["x"], kind)
        assert detail["msg"]

    @pytest.mark.parametrize(("body", "status"), [('{"x":', 400), ("", 400), ("[1, 2]", 422), ("null", 422)])
    def test_a_body_that_is_no_json_object(self, port, body, status):
        """Malformed JSON is a 400; JSON that is no object holds no parameters."""
        assert ask(port, "/square-post", "POST", headers=JSON, body=body).status == status

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
    def test_another_method_is_a_405(self, port, method):
        """An endpoint answers its own method only, and says which that is."""
        answer = ask(port, "/square?x=1", method)
        assert answer.status == 405
        assert "GET" in answer.header("Allow")

    def test_head_is_as_get(self, port):
        """HEAD on a GET endpoint is answered without a body."""
        answer = ask(port, "/square?x=3", "HEAD")
        assert (answer.status, answer.body, answer.header("Content-Length")) == (200, b"", "13")

    def test_a_path_below_an_endpoint_is_a_404(self, port):
        """An endpoint is one address: with or without a slash at its end, and nothing below."""
        assert [ask(port, f"/square{rest}?x=1").status for rest in ("", "/", "/more")] == [200, 200, 404]

    def test_an_exception_is_a_500(self, site, port):
        """An endpoint that raises is a 500, its traceback in the worker's log."""
        assert ask(port, "/raises").status == 500
        assert "ValueError: as intended" in site.pool.output


class TestAnswers:
    @pytest.mark.parametrize(
        ("what", "status", "mimetype", "body"),
        [
            ("dict", 200, "application/json", b'{"a":1}\n'),
            ("list", 200, "application/json", b"[1,2]\n"),
            ("str", 200, "text/html; charset=utf-8", b"text"),
            ("bytes", 200, "text/html; charset=utf-8", b"\x00bytes"),
            ("tuple", 201, "application/json", b'{"made":true}\n'),
            ("response", 418, "text/x-tea; charset=utf-8", b"teapot"),
            ("int", 200, "application/json", b"42\n"),
            ("float", 200, "application/json", b"1.5\n"),
            ("bool", 200, "application/json", b"true\n"),
            ("none", 200, "application/json", b"null\n"),
            ("model", 200, "application/json", b'{"height":1,"width":2}\n'),
            (
                "kinds",
                200,
                "application/json",
                b'{"colour":"red","day":"2026-11-23","sizes":[{"height":1,"width":3}]}\n',
            ),
        ],
    )
    def test_what_a_function_may_return(self, port, what, status, mimetype, body):
        """An endpoint returns what a Flask view may, and numbers, booleans and None as JSON."""
        answer = ask(port, f"/returns?what={what}")
        assert (answer.status, answer.header("Content-Type"), answer.body) == (status, mimetype, body)
        assert answer.header("X-Made") == ("yes" if what == "tuple" else None)

    def test_the_request_is_at_hand(self, port):
        """Within an endpoint `flask.request` is the request."""
        answer = ask(port, "/header", headers={"User-Agent": "tests"})
        assert answer.json == {"agent": "tests", "path": "/", "root": "/header"}

    def test_an_endpoint_may_be_a_coroutine(self, port):
        """An `async def` endpoint is awaited, `flask.request` at hand."""
        assert ask(port, "/awaited?x=4").json == {"x": 4, "path": "/"}
