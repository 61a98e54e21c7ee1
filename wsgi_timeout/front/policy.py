"""The few headers of the app's answer that are changed, and only on a URL with our parameter."""

from __future__ import annotations

#: Policies under which other sites are sent a page's whole URL (Referrer Policy, W3C), and the one that
#: browsers have by themselves, under which they are sent scheme and host.
_SENDING = frozenset({"unsafe-url", "no-referrer-when-downgrade"})
_STRICTER = "strict-origin-when-cross-origin"


def _sends_urls(policy: str) -> bool:
    # Of a list the last one that a browser knows counts.
    return any(item.strip().lower() in _SENDING for item in policy.split(","))


def on_result_url(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers for a result URL.

    A Range request there would be answered from another request's response, and a shared cache that
    ignores queries would show one user's result to another (RFC 9111 section 5.2.2). And a referrer
    policy that sends whole URLs to other sites would send them the token.
    """
    kept = [
        (name, _STRICTER if name.lower() == "referrer-policy" and _sends_urls(value) else value)
        for name, value in headers
        if name.lower() != "accept-ranges"
    ]
    if not any(name.lower() == "cache-control" for name, _ in kept):
        kept.append(("Cache-Control", "private, no-store"))
    return kept
