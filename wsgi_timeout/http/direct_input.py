"""What a `wsgi.input` of our own worker classes can do besides: receive into a buffer of its reader's."""

from __future__ import annotations

from abc import ABC, abstractmethod


class DirectInput(ABC):
    """Receives a body without copies of it; `read` may be called in between."""

    @abstractmethod
    def receive_into(self, buffer: memoryview) -> int:
        """Block until there are bytes, write them into `buffer`, and return how many; 0 at the end."""

    @abstractmethod
    def receive_into_now(self, buffer: memoryview) -> int | None:
        """Do as `receive_into` without blocking; None: nothing has come."""
