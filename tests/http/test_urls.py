"""Our query parameters and the URLs that carry them."""

from urllib.parse import urldefrag, urljoin, urlsplit

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from wsgi_timeout.http import parameters, urls
from wsgi_timeout.http.printable import without_token
from wsgi_timeout.store.record import new_id, new_token

ID = "fc-AbC_-123456"
TOKEN = "t0ken_t0ken-t0ken"
OURS = f"{parameters.CALL}={ID}.{TOKEN}&{parameters.HOP}=3"

derandomized = settings(derandomize=True, max_examples=200, deadline=None)
latin1 = st.text(st.characters(max_codepoint=255))
pairs = st.lists(
    st.text(st.characters(max_codepoint=255, exclude_characters="&")).filter(
        lambda pair: not pair.startswith(parameters.MARK)
    )
)


# -- references


@pytest.mark.parametrize(
    "query",
    [
        "",
        "a=1",
        "a&b=&=c&&",
        "a=__wsgi_timeout_call",
        "x__wsgi_timeout_call=1",
        f"{parameters.HOP}=3",
        "__wsgi_timeout_other=1",
        f"__WSGI_TIMEOUT_CALL={ID}.{TOKEN}",
    ],
)
def test_other_queries_are_not_ours(query):
    """A query without our call or status parameter is the app's."""
    assert urls.reference(query) is None


@pytest.mark.parametrize("query", [OURS, f"a=1&{OURS}", f"{OURS}&a=1", f"&&{OURS}&=&"])
def test_a_result_url_is_read(query):
    """Our parameters are found wherever they stand in the query."""
    assert urls.reference(query) == urls.Reference("call", ID, TOKEN, 3)


def test_a_status_url_is_read():
    """A status parameter refers to the status, without a hop."""
    found = urls.reference(f"a=1&{parameters.STATUS}={ID}.{TOKEN}")
    assert found == urls.Reference("status", ID, TOKEN, 0)


@pytest.mark.parametrize(
    "value",
    [
        "",
        ID,
        f"{ID}.",
        f".{TOKEN}",
        f"{ID}{TOKEN}",
        f"{ID}.{TOKEN}.more",
        f"{ID}.{TOKEN}%20",
        f"{ID}.{TOKEN}\n",
        f"{ID}.short",
        f"fc-1.{TOKEN}",
        f"job-123456789.{TOKEN}",
        f"fc-{'a' * 65}.{TOKEN}",
        f"{ID}.{'a' * 129}",
        f"../../{ID}.{TOKEN}",
        f"fc-*23456789.{TOKEN}",
        f"fc-\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668.{TOKEN}",
    ],
)
def test_nonsense_refers_to_no_call(value):
    """A malformed parameter is still ours, and names no call: it never reaches the app, nor Redis."""
    found = urls.reference(f"{parameters.CALL}={value}")
    assert (found.call_id, found.token) == ("", "")


@pytest.mark.parametrize(
    "query",
    [
        f"{OURS}&{parameters.CALL}={ID}.{TOKEN[::-1]}",
        f"{OURS}&{parameters.STATUS}={ID}.{TOKEN}",
        f"{OURS}&{parameters.CALL}",
    ],
)
def test_two_references_refer_to_no_call(query):
    """More than one reference in one query is nobody's URL of ours."""
    assert urls.reference(query).call_id == ""


def test_the_same_reference_twice_is_one():
    """A client that merges the parameters of two URLs names the same call twice."""
    assert urls.reference(f"{OURS}&a=1&{OURS}") == urls.Reference("call", ID, TOKEN, 3)


@pytest.mark.parametrize(
    ("text", "hop"), [("0", 0), ("20", 20), ("9999", 9999), ("", 0), ("-1", 0), ("10000", 0), ("x", 0)]
)
def test_a_hop_is_a_small_number(text, hop):
    """A hop that makes no sense counts as none, and does not hide the call."""
    found = urls.reference(f"{parameters.CALL}={ID}.{TOKEN}&{parameters.HOP}={text}")
    assert (found.call_id, found.hop) == (ID, hop)


def test_a_hop_of_other_digits_counts_as_none():
    """Digits of other scripts are no hop."""
    found = urls.reference(f"{parameters.CALL}={ID}.{TOKEN}&{parameters.HOP}=\xb2\xb3")
    assert found.hop == 0


def test_new_ids_and_tokens_are_read():
    """What the package makes itself is always read back."""
    for _ in range(50):
        call_id, token = new_id(), new_token()
        found = urls.reference(urlsplit(urls.result_url("/x?a", call_id, token, 7)).query)
        assert found == urls.Reference("call", call_id, token, 7)


# -- stripping


@derandomized
@given(pairs, st.integers(0, 20))
@example(["a", "b=", "=c", "", ""], 2)
def test_the_rest_of_a_query_stays_byte_for_byte(others, place):
    """Order, case, escapes, duplicates and empty pairs of the client's own query are kept."""
    ours = OURS.split("&")
    mixed = [*others[:place], *ours, *others[place:]]
    assert parameters.strip_query("&".join(mixed)) == "&".join(others)


@pytest.mark.parametrize(
    ("query", "others"),
    [
        (f"{OURS}?page=2", "page=2"),
        (f"x=1&{OURS}?page=2&y=3", "x=1?page=2&y=3"),
        (f"x=1&{OURS}?", "x=1?"),
        (f"{OURS}?{OURS}", ""),
    ],
)
def test_a_query_behind_ours_is_the_clients(query, others):
    """A client that puts `?` and a query behind any URL asks for what it would have without us."""
    assert parameters.strip_query(query) == others
    assert urls.reference(query).hop == 3


@pytest.mark.parametrize(
    ("uri", "stripped"),
    [
        ("/a", "/a"),
        ("/a?b=1", "/a?b=1"),
        ("/a?", "/a?"),
        (f"/a?{OURS}", "/a"),
        (f"/a?b=1&{OURS}", "/a?b=1"),
        (f"/a?{OURS}&b=1#top", "/a?b=1#top"),
        (f"/a?{OURS}#top", "/a#top"),
        (f"https://host/a?b&{OURS}", "https://host/a?b"),
        (f"/{parameters.CALL}/x", f"/{parameters.CALL}/x"),
        (f"/a?{parameters.STATUS}={ID}.{TOKEN}", "/a"),
        # Headers with a query alone.
        (OURS, ""),
        (f"{OURS}&b=1", "b=1"),
        (f'{{"search": "{OURS}"}}', '{"search": ""}'),
    ],
)
def test_a_uri_is_stripped(uri, stripped):
    """Our parameters go from a URI's query, and a `?` that only they needed."""
    assert parameters.strip(uri) == stripped


# -- our own URLs


@pytest.mark.parametrize(
    ("clean", "url"),
    [
        ("/a", f"/a?{parameters.CALL}={ID}.{TOKEN}&{parameters.HOP}=1"),
        ("/a?b=1", f"/a?b=1&{parameters.CALL}={ID}.{TOKEN}&{parameters.HOP}=1"),
    ],
)
def test_a_result_url(clean, url):
    """A result URL is the request's own, with our parameters at the end."""
    assert urls.result_url(clean, ID, TOKEN, 1) == url


def test_every_hop_has_another_url():
    """No two URLs of a chain are the same: some clients call that a loop."""
    found = {urls.result_url("/a", ID, TOKEN, hop) for hop in range(60)}
    assert len(found) == 60


def follow(url):
    """Return the environ of a client that follows a Location from http://host."""
    parts = urlsplit(urldefrag(urljoin("http://host/old?q", url)).url)
    assert parts.netloc == "host"
    target = parts.path + ("?" + parts.query if parts.query else "")
    return {"RAW_URI": target, "QUERY_STRING": parts.query}


@derandomized
@given(latin1, latin1)
@example("//evil.com/x", "")
@example("/\\evil.com", "")
@example("\\\\evil.com", "")
@example("/\t/evil.com", "")
@example("http:///evil.com", "")
@example("https://evil.com//also.evil", "")
@example("/a#b", "c#d")
@example("/a\r\nSet-Cookie: x", "a\r\nb")
@example("*", "")
def test_a_location_stays_on_its_host_and_path(path, query):
    """Whatever a client sends, its Location is a plain path of this host, and leads to its own call."""
    # Python's `urljoin` drops the `;` of an empty parameter.
    path = path.replace("?", "").rstrip(";")
    environ = {"RAW_URI": f"{path}?{query}", "QUERY_STRING": parameters.strip_query(query)}
    clean = urls.clean_url(environ, "*")
    # What clients follow, as what they ask, has no such segments.
    assume(not {".", ".."} & set(clean.partition("?")[0].split("/")))
    assert clean.startswith("/")
    assert not clean.startswith(("//", "/\\"))
    assert all("!" <= char <= "~" for char in clean)
    url = urls.result_url(clean, ID, TOKEN, 1)
    following = follow(url)
    assert urls.reference(following["QUERY_STRING"]).call_id == ID
    assert urls.local_path(following) == urls.local_path(environ)
    assert urls.clean_url(following, "*") == clean


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/a%2Fb/%00?x", "/a%2Fb/%00"),
        ("/a%2fb", "/a%2fb"),
        ("//evil.com/x", "/evil.com/x"),
        ("///evil.com", "/evil.com"),
        ("/\\evil.com", "/evil.com"),
        ("\\/evil.com", "/evil.com"),
        ("http://evil.com/x?y", "/x"),
        ("http://evil.com", "/"),
        ("http://evil.com//also.evil", "/also.evil"),
        ("/a//b/../c", "/a//b/../c"),
        ("/a b\x7f\xe9", "/a%20b%7F%E9"),
        ('/"<>', "/%22%3C%3E"),
        ("/a\r\nX: y", "/a%0D%0AX:%20y"),
        ("/;a=1,@:!$'()*+&~", "/;a=1,@:!$'()*+&~"),
    ],
)
def test_the_raw_path_is_kept(raw, path):
    """A path stays as the client wrote it, but for what would lead elsewhere or not fit a header."""
    assert urls.local_path({"RAW_URI": raw, "PATH_INFO": "/decoded"}) == path


def test_the_raw_path_of_other_servers():
    """REQUEST_URI serves where there is no RAW_URI, and the decoded path where there is neither."""
    assert urls.local_path({"REQUEST_URI": "/a%2Fb?x"}) == "/a%2Fb"
    decoded = {"SCRIPT_NAME": "/mount", "PATH_INFO": "/a b/\xc3\xa9?%"}
    assert urls.local_path(decoded) == "/mount/a%20b/%C3%A9%3F%25"
    assert urls.local_path({}) == "/"


def test_the_query_of_a_clean_url():
    """The client's query is kept as it came; only what no header may carry is escaped."""
    environ = {"RAW_URI": "/a", "QUERY_STRING": f"b=%20+&c=<\xe9 \n&{OURS}&&d"}
    assert urls.clean_url(environ, "") == "/a?b=%20+&c=<%E9%20%0A&&d"


# -- prefixes


@pytest.mark.parametrize(
    ("peer", "trusted", "prefix"),
    [
        ("127.0.0.1", "127.0.0.1,::1", "/app"),
        ("::1", "127.0.0.1, ::1", "/app"),
        ("", "127.0.0.1", "/app"),
        ("10.0.0.1", "127.0.0.1,::1", ""),
        ("10.0.0.1", "*", "/app"),
        ("10.0.0.1", "", ""),
        ("127.0.0.11", "127.0.0.1", ""),
    ],
)
def test_a_prefix_is_believed_from_trusted_peers(peer, trusted, prefix):
    """`X-Forwarded-Prefix` counts from a trusted address or a unix socket only."""
    environ = {"HTTP_X_FORWARDED_PREFIX": "/app/", "REMOTE_ADDR": peer, "RAW_URI": "/x"}
    assert urls.prefix(environ, trusted) == prefix
    assert urls.clean_url(environ, trusted) == prefix + "/x"


@pytest.mark.parametrize(
    ("value", "prefix"),
    [
        ("", ""),
        ("/", ""),
        ("app", "/app"),
        ("/a/b", "/a/b"),
        ("//evil.com", "/evil.com"),
        ("/\\evil.com", "/evil.com"),
        ("/one, /two", "/one"),
        ("/a b", "/a%20b"),
        ("/a?b#c", "/a%3Fb%23c"),
    ],
)
def test_a_prefix_leads_nowhere_else(value, prefix):
    """A prefix is made a plain path; of several proxies' the first counts."""
    assert urls.prefix({"HTTP_X_FORWARDED_PREFIX": value, "REMOTE_ADDR": "::1"}, "::1") == prefix


# -- logs


@pytest.mark.parametrize(
    "line",
    [
        f"GET /a?b=1&{OURS} HTTP/1.1",
        f'Referer: "http://host/a?{parameters.STATUS}={ID}.{TOKEN}"',
        f"next=%2Fa%3F{parameters.CALL}%3D{ID}.{TOKEN}",
        f"<a href='/x?{parameters.CALL}={ID}.{TOKEN}'>",
        f"%5f%5fwsgi_timeout%5f%63all={ID}.{TOKEN}&a=1",
        f"u=%252Fa%253F{parameters.CALL}%253D{ID}.{TOKEN}%2526",
        f"Last-Event-ID: {ID}.{TOKEN}.1024",
    ],
)
def test_a_token_can_be_taken_out_of_a_line(line):
    """For logs the token is removed, in whatever it is, and the id and all else stay."""
    redacted = without_token(line)
    assert redacted == line.replace(TOKEN, "-")
    assert ID in redacted
