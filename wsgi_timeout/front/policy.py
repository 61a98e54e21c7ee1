"""The few headers of the app's answer that are changed, and only on a URL with our parameter."""

from __future__ import annotations


def on_result_url(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers for a result URL.

    A Range request there would be answered from another request's response, and a shared cache that
    ignores queries would show one user's result to another (RFC 9111 section 5.2.2).
    """
    kept = [(name, value) for name, value in headers if name.lower() != "accept-ranges"]
    if not any(name.lower() == "cache-control" for name, _ in kept):
        kept.append(("Cache-Control", "private, no-store"))
    return kept
