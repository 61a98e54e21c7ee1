"""The app that `APP_SLOW` names, each of whose answers takes longer than a short wait."""

import os
import time
from importlib import import_module

module = import_module(os.environ["APP_SLOW"])
inner = getattr(module, "app", None) or module.application


def app(environ, start_response):
    time.sleep(0.4)
    return inner(environ, start_response)
