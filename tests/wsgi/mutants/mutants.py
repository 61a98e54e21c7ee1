"""Changes to the product, each of which breaks a point of `tests/wsgi/README.md`, and a test that sees it."""

from typing import NamedTuple

JOBS, WEB = "jobs/wsgi_timeout_jobs/", "wsgi_timeout/"
CAPTURE = f"{JOBS}attempt/capture.py"
RESPONSE = f"{JOBS}attempt/response.py"
RUN = f"{JOBS}attempt/request.py"
BODY = f"{JOBS}attempt/request_body.py"
ENVIRON = f"{WEB}http/environ.py"
LOCATION = f"{WEB}http/urls.py"
POLICY = f"{WEB}front/policy.py"
REPLAY = f"{WEB}front/replay.py"
UPLOAD = f"{WEB}http/request_body.py"
ACCEPT = f"{WEB}front/accept.py"
DELIVERY = f"{WEB}front/delivery.py"
PENDING = f"{WEB}http/pending.py"
LARGE_BODY = f"{WEB}front/large_body.py"
MESSAGES = f"{WEB}store/messages.py"
STREAMS = f"{WEB}store/streams.py"
SUBMISSION = f"{WEB}front/submit.py"
CLI = f"{WEB}serving/cli.py"
ODD = "tests/wsgi/test_points_served.py::test_an_oddity_is_what_gunicorn_alone_sends"
PURE = "tests/wsgi/test_points_pure.py::"
ENV = "tests/http/test_environ.py::"
CAP = "tests/jobs/test_capture.py::"
HTTP = "tests/front/contract/test_http_contract.py::"
REDIRECTS = "tests/front/contract/test_redirects.py::"
RESULT = "tests/front/contract/test_result_url.py::"
FLASK = "tests/wsgi/test_flask.py::"
THREADS = "tests/jobs/test_threads.py::"
PREFIXES = "tests/integrations/test_prefixes.py::"
BODIES = "tests/wsgi/test_bodies.py::"
PROCESSES = "tests/wsgi/test_processes.py::"


class Mutant(NamedTuple):
    point: str
    file: str
    old: str
    new: str
    test: str


MUTANTS = [
    Mutant(
        "1",
        ENVIRON,
        "environ: WSGIEnvironment = dict(captured)",
        'environ: WSGIEnvironment = type("Odd", (dict,), {})(captured)',
        f"{ENV}test_what_an_app_sees_is_valid",
    ),
    Mutant(
        "2",
        ENVIRON,
        "if isinstance(value, str) and (key in _REQUEST_KEYS or key.startswith(_REQUEST_PREFIXES))",
        "if isinstance(value, str)",
        f"{ENV}test_what_belongs_to_a_process_is_left_behind",
    ),
    Mutant(
        "3",
        MESSAGES,
        'msgpack.packb(values, unicode_errors="surrogatepass")',
        'msgpack.packb(values, unicode_errors="ignore")',
        "tests/store/test_messages.py::test_a_request_survives",
    ),
    Mutant("4", ENVIRON, "(1, 0),", "[1, 0],", f"{ENV}test_the_process_describes_itself"),
    Mutant("5", ENVIRON, '        "wsgi.url_scheme",\n', "", f"{ENV}test_facts_of_the_request_are_kept"),
    Mutant(
        "6",
        ENVIRON,
        '"wsgi.multithread": multithread',
        '"wsgi.multithread": True',
        f"{ENV}test_the_process_describes_itself",
    ),
    Mutant(
        "7",
        ENVIRON,
        '"wsgi.input_terminated": True',
        '"wsgi.input_terminated": False',
        f"{ENV}test_a_chunked_body_has_an_end_of_its_own",
    ),
    Mutant(
        "8",
        ENVIRON,
        '"wsgi.errors": log,',
        '"wsgi.errors": __import__("io").StringIO(),',
        f"{ENV}test_the_process_describes_itself",
    ),
    Mutant(
        "9",
        ENVIRON,
        '            "wsgi.file_wrapper": FileWrapper,\n',
        "",
        f"{ODD}[GET-file-wrapper]",
    ),
    Mutant(
        "10, 11",
        ENVIRON,
        "environ: WSGIEnvironment = dict(captured)",
        'environ = dict(captured); environ.pop("HTTP_TRANSFER_ENCODING", None)',
        f"{ENV}test_a_chunked_body_has_an_end_of_its_own",
    ),
    Mutant(
        "13",
        ENVIRON,
        'captured.setdefault("QUERY_STRING", "")',
        "pass",
        f"{ENV}test_there_is_always_a_query",
    ),
    Mutant(
        "14",
        ENVIRON,
        'frozenset({"QUERY_STRING", "RAW_URI", "REQUEST_URI"})',
        'frozenset({"QUERY_STRING", "REQUEST_URI"})',
        f"{ENV}test_our_parameters_are_not_shown",
    ),
    Mutant(
        "15",
        LOCATION,
        'uri = environ.get("RAW_URI") or environ.get("REQUEST_URI")',
        'uri = ""',
        "tests/http/test_urls.py::test_the_raw_path_is_kept",
    ),
    Mutant("16", ENVIRON, '        "SCRIPT_NAME",\n', "", f"{ENV}test_a_mount_point_is_kept"),
    Mutant(
        "17",
        ENVIRON,
        'captured.setdefault("QUERY_STRING", "")',
        'captured.setdefault("QUERY_STRING", ""); environ.pop("PATH_INFO")',
        f"{ENV}test_the_environ_given_is_not_changed",
    ),
    Mutant("18", ENVIRON, '        "REMOTE_USER",\n', "", f"{ENV}test_optional_facts_are_kept"),
    Mutant("19", ENVIRON, '("HTTP_", "SSL_"', '("HTTP_C", "SSL_"', f"{ENV}test_optional_facts_are_kept"),
    Mutant("20", ENVIRON, '        "SERVER_PROTOCOL",\n', "", f"{ENV}test_facts_of_the_request_are_kept"),
    Mutant(
        "21",
        ENVIRON,
        "environ: WSGIEnvironment = dict(captured)",
        'environ = dict(captured); __import__("os").environ.update(HTTP_PROXY=captured["HTTP_PROXY"])',
        f"{ENV}test_no_header_is_taken_for_an_environment_variable",
    ),
    Mutant("22", ENVIRON, "= dict(captured)", "= captured", f"{ENV}test_the_environ_given_is_not_changed"),
    Mutant(
        "23",
        BODY,
        "    __slots__ = ()\n",
        "    def readline(self, size=-1):\n        return self.read(size)\n",
        "tests/wsgi/test_points_served.py::test_a_body_is_read_as_under_gunicorn_alone[reads-length]",
    ),
    Mutant(
        "24",
        UPLOAD,
        'raise UploadBroken(f"the request body ended after {self._count} of {self._length} bytes")',
        'return b""',
        "tests/faults/test_broken_uploads.py::test_a_small_upload_that_is_cut_short_starts_nothing",
    ),
    Mutant(
        "24 (a stream)",
        BODY,
        'raise UploadBroken("the client broke its upload off")',
        'return b""',
        "tests/faults/test_broken_uploads.py::test_an_upload_that_is_cut_short_never_looks_complete",
    ),
    Mutant(
        "25, 26",
        CAPTURE,
        "        returned: object = app(environ, self.start_response)\n",
        "        returned: object = app(environ, self.start_response); environ['wsgi.input'].read()\n",
        "tests/wsgi/test_points_served.py::test_a_body_is_read_as_under_gunicorn_alone[reads-late-length]",
    ),
    Mutant("27", BODY, "    def seek(", "    def turn(", f"{PURE}test_a_small_body_cannot_be_turned_back"),
    Mutant(
        "30",
        CAPTURE,
        '        self._iterable = cast("Iterable[bytes]", returned)\n',
        '        self._iterable = cast("Iterable[bytes]", returned)\n        self._begin()\n',
        f"{CAP}test_a_lazy_generator",
    ),
    Mutant(
        "31",
        CAPTURE,
        "        if self._head is None:\n",
        '        self._head = self._head or ResponseHead("200 OK", [])\n        if self._head is None:\n',
        f"{CAP}test_a_body_without_start_response",
    ),
    Mutant(
        "32",
        CAPTURE,
        "        if chunk:\n",
        "        if chunk is not None:\n",
        f"{CAP}test_empty_chunks_send_nothing",
    ),
    Mutant(
        "33", CAPTURE, "elif self._head is not None:", "elif False:", f"{CAP}test_a_second_start_response"
    ),
    Mutant(
        "33 (exc_info)",
        CAPTURE,
        "                if self._sent:\n",
        "                if False:\n",
        f"{CAP}test_exc_info_after_the_head_was_sent",
    ),
    Mutant(
        "34",
        CAPTURE,
        "exc_info = None  # PEP 3333",
        "pass  # PEP 3333",
        f"{PURE}test_no_reference_cycle_holds_an_exception",
    ),
    Mutant(
        "35",
        CAPTURE,
        "        self._pass_on(chunk, last=False)\n",
        "        pass\n",
        f"{CAP}test_write_comes_before_the_body",
    ),
    Mutant("36", CAPTURE, "[2-9][0-9]{2}(", "[2-9][0-9]+(", f"{CAP}test_a_bad_status"),
    Mutant(
        "37",
        CAPTURE,
        "if not _NAME.fullmatch(name):",
        "if not _NAME.match(name):",
        f"{CAP}test_a_header_name_is_a_token",
    ),
    Mutant(
        "37 (value)",
        CAPTURE,
        "if _CONTROL.search(value):",
        "if False:",
        f"{CAP}test_a_header_value_holds_no_line_break",
    ),
    Mutant(
        "37 (list)",
        CAPTURE,
        "headers = list(headers)  #",
        "headers = headers  #",
        f"{PURE}test_headers_may_come_once",
    ),
    Mutant(
        "38",
        CAPTURE,
        "ResponseHead(status, headers)",
        "ResponseHead(status, list(dict(headers).items()))",
        f"{CAP}test_order_case_and_duplicates_of_headers",
    ),
    Mutant(
        "39",
        CAPTURE,
        "headers = list(headers)  #",
        "headers = headers  #",
        f"{CAP}test_headers_are_copied",
    ),
    Mutant("41", CAPTURE, "[2-9][0-9]{2}(", "[1-9][0-9]{2}(", f"{CAP}test_a_bad_status"),
    Mutant("42", ACCEPT, '== "websocket"', '== "never"', f"{HTTP}test_a_websocket_is_refused"),
    Mutant(
        "43",
        RESPONSE,
        "            self._finish()\n            return\n        if self._length",
        "            return\n        if self._length",
        f"{ODD}[HEAD-raises-in-the-middle]",
    ),
    Mutant(
        "44",
        CAPTURE,
        "isinstance(returned, str | bytes) or returned is None",
        "returned is None",
        f"{CAP}test_what_is_no_iterable_of_bytes",
    ),
    Mutant("45", CAPTURE, "last=number == known", "last=False", f"{CAP}test_a_list"),
    Mutant(
        "46",
        RESPONSE,
        "self._length is None or self._count >= self._length or not self._has_body()",
        "self._count >= 0",
        "tests/wsgi/test_points_served.py::test_a_short_body_breaks_off",
    ),
    Mutant(
        "47, 54",
        RESPONSE,
        "        elif not last:\n",
        "        elif not last and len(self._held) > 1:\n",
        "tests/wsgi/test_points_served.py::test_events_reach_the_client_before_the_next_is_made",
    ),
    Mutant(
        "48",
        RUN,
        "                self._close(attempt.call_id, capture)\n",
        "",
        "tests/wsgi/test_points_served.py::test_close_is_called_once",
    ),
    Mutant(
        "49",
        RUN,
        "            capture.close()\n        except CallInterrupted:\n",
        "            pass\n        except CallInterrupted:\n",
        "tests/wsgi/test_points_served.py::test_close_is_called_once",
    ),
    Mutant(
        "51",
        RUN,
        "response.fail(Outcome.RAISED,",
        "response.fail(Outcome.LOST,",
        f"{ODD}[GET-raises]",
    ),
    Mutant(
        "51 (after the head)",
        REPLAY,
        'raise BrokenOff("the response broke off in the worker")',
        "return",
        f"{ODD}[GET-raises-in-the-middle]",
    ),
    Mutant(
        "52",
        REPLAY,
        "        self._sent: Sent | None = Sent.PART\n",
        "        self._sent: Sent | None = Sent.WHOLE\n",
        "tests/wsgi/test_bodies.py::test_a_download_that_was_broken_off_is_fetched_again",
    ),
    Mutant(
        "53",
        STREAMS,
        "range(0, len(data), CHUNK)",
        "range(0, 1)",
        "tests/store/test_streams.py::test_chunks_come_in_order",
    ),
    Mutant(
        "56",
        ENVIRON,
        '("HTTP_", "SSL_"',
        '("HTTP_X", "HTTP_C", "SSL_"',
        f"{ENV}test_facts_of_the_request_are_kept",
    ),
    Mutant(
        "57",
        POLICY,
        'if name.lower() != "accept-ranges"',
        "if name",
        f"{RESULT}test_headers_change_on_result_urls_only",
    ),
    Mutant(
        "58, 59",
        DELIVERY,
        'elif over and self.method != "HEAD":',
        "elif whole:",
        f"{RESULT}test_head_consumes_nothing",
    ),
    Mutant("61", PENDING, "self.hop + 1)", "self.hop)", f"{REDIRECTS}test_hops_count_up_on_one_call"),
    Mutant(
        "51 (fork)",
        f"{JOBS}process/forks.py",
        "    if not in_fork():\n",
        "    if True:\n",
        f"{PROCESSES}test_a_handler_uses_its_process",
    ),
    Mutant(
        "51 (fork, function)",
        f"{JOBS}attempt/function.py",
        "            forks.end_here(error)\n",
        "",
        f"{PROCESSES}test_a_function_forks",
    ),
    Mutant(
        "51 (signals)",
        f"{JOBS}process/forks.py",
        "        signal.signal(number, signal.SIG_DFL)\n",
        "        pass\n",
        f"{PROCESSES}test_a_handler_uses_its_process",
    ),
    Mutant(
        "51 (SIGINT)",
        f"{JOBS}worker/start.py",
        "signal.signal(signal.SIGINT, ignore)",
        "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        f"{PROCESSES}test_a_handler_uses_its_process",
    ),
    Mutant(
        "6 (threads)",
        RUN,
        "multithread = self.board.slots > 1",
        "multithread = False",
        f"{THREADS}test_multithread_is_told_as_it_is",
    ),
    Mutant(
        "8 (logging)",
        CLI,
        'ours = logging.getLogger("wsgi_timeout")',
        "ours = logging.getLogger()",
        "tests/wsgi/test_points_served.py::test_an_app_sets_up_its_own_logging",
    ),
    Mutant(
        "9 (closed)",
        ENVIRON,
        '            "wsgi.file_wrapper": FileWrapper,\n',
        '            "wsgi.file_wrapper": lambda file, size=8192: iter(lambda: file.read(size), b""),\n',
        f"{FLASK}test_a_file_that_fails_is_closed",
    ),
    Mutant(
        "15 (prefix)",
        LOCATION,
        "path = prefix(environ, trusted_proxies) + local_path(environ)",
        "path = local_path(environ)",
        f"{PREFIXES}test_curl_comes_back_through_nginx",
    ),
    Mutant(
        "16 (mount)",
        LOCATION,
        'uri = environ.get("RAW_URI") or environ.get("REQUEST_URI")',
        'uri = environ.get("PATH_INFO")',
        f"{PREFIXES}test_a_redirect_leads_back",
    ),
    Mutant(
        "22 (threads)",
        ENVIRON,
        "environ: WSGIEnvironment = dict(captured)",
        'environ: WSGIEnvironment = globals().setdefault("shared", {}); environ.update(captured)',
        f"{THREADS}test_eight_handlers_run_at_once_each_with_its_own",
    ),
    Mutant(
        "48 (once)",
        RUN,
        "                self._close(attempt.call_id, capture)\n",
        "                self._close(attempt.call_id, capture); self._close(call_id, capture)\n",
        f"{FLASK}test_what_a_client_leaves_behind_is_closed_once",
    ),
    Mutant(
        "50 (throttle)",
        RESPONSE,
        "limits = Limits(request.buffer, ahead, request.resume_window)",
        "limits = Limits(1 << 40, 1 << 40)",
        f"{BODIES}test_a_reader_of_ten_kilobytes_a_second_holds_its_handler_up",
    ),
    Mutant(
        "50 (throttle, up)",
        LARGE_BODY,
        "limits = Limits(seals.sealed_size(settings.buffer), seals.sealed_size(before))",
        "limits = Limits(1 << 40, 1 << 40)",
        f"{BODIES}test_a_handler_that_reads_slowly_holds_its_client_up",
    ),
    Mutant(
        "55 (g)",
        RUN,
        "                capture.run(app, environ)\n",
        '                globals().setdefault("g", app.app_context()).push(); capture.run(app, environ)\n',
        f"{FLASK}test_a_session_goes_on_and_g_does_not",
    ),
]
