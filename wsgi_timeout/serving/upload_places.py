"""Which large uploads make room, while all places for uploads are taken and others wait."""

from __future__ import annotations

from collections.abc import Iterable

from wsgi_timeout.serving.paced_socket import PacedSocket

#: Bytes a second below which an upload makes room for others; a poor mobile connection sends more.
_SLOW_RATE = 10_000
#: Seconds that a client must have been waited for before its rate says something.
_JUDGED_SECONDS = 2.0


def make_room(uploads: Iterable[PacedSocket], wanted: int) -> None:
    """Break off the slowest uploads until `wanted` places come free; those that are fast enough stay."""
    uploads = list(uploads)
    coming_free = sum(each.broken_off for each in uploads)
    slow = [each for each in uploads if _is_slow(each) and not each.broken_off]
    slow.sort(key=lambda each: each.rate)
    for each in slow[: max(0, wanted - coming_free)]:
        each.break_off()


def _is_slow(upload: PacedSocket) -> bool:
    return upload.waited_seconds >= _JUDGED_SECONDS and upload.rate < _SLOW_RATE
