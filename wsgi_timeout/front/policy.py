"""The few headers of the app's answer that are changed, and only on a URL with our parameter."""

from __future__ import annotations

#: Policies under which browsers send a page's whole URL to other sites (Referrer Policy, W3C), and their
#: default, under which they send scheme and host.
_SENDING = frozenset({"unsafe-url", "no-referrer-when-downgrade"})
_STRICTER = "strict-origin-when-cross-origin"


def _sends_urls(policy: str) -> bool:
    # Of several policies a browser follows the last one that it knows.
    return any(item.strip().lower() in _SENDING for item in policy.split(","))


def _lets_store(name: str) -> bool:
    # Also those for CDNs (RFC 9213), as in `CDN-Cache-Control`.
    return name.endswith("cache-control") or name in {"expires", "surrogate-control"}


def _changed(name: str, value: str, clean_url: str) -> str:
    if name == "referrer-policy" and _sends_urls(value):
        return _STRICTER
    return clean_url + value if name == "location" and value.startswith("#") else value


def on_result_url(
    headers: list[tuple[str, str]], clean_url: str, *, storable: bool = True
) -> list[tuple[str, str]]:
    """Return the headers for a result URL.

    Without `Accept-Ranges`: a range request would be answered from another request's response. Not to be
    stored: a shared cache that ignores queries would show one user's result to another (RFC 9111 section
    5.2.2). With a referrer policy that does not send whole URLs to other sites: they contain the token.
    With a `Location` that does not lead back here: `#part` means the app's own URL (RFC 3986 section 5.2.2).

    Args:
        headers: the app's own.
        clean_url: the request's own URL.
        storable: False for the answer to a POST that a GET fetches: no cache may take it for a GET's
            (RFC 9110 section 9.3.3), whatever the app has said of its POST.
    """
    kept = [
        (name, _changed(name.lower(), value, clean_url))
        for name, value in headers
        if name.lower() != "accept-ranges" and (storable or not _lets_store(name.lower()))
    ]
    if not any(name.lower() == "cache-control" for name, _ in kept):
        kept.append(("Cache-Control", "private, no-store"))
    return kept
