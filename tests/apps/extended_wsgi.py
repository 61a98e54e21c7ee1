"""The module that a server is told of, which takes the app from another one, as many projects do."""

from extended import app

__all__ = ["app"]
