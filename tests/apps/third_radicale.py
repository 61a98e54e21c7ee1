"""Radicale, a CalDAV server, with its collections in `APP_FOLDER`."""

import os

from radicale.app import Application
from radicale.config import DEFAULT_CONFIG_SCHEMA, Configuration

configuration = Configuration(DEFAULT_CONFIG_SCHEMA)
configuration.update(
    {
        "auth": {"type": "none"},
        "rights": {"type": "authenticated"},
        "storage": {"filesystem_folder": os.environ["APP_FOLDER"]},
    },
    "the test",
)
app = Application(configuration)
