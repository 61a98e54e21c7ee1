"""What axe-core finds wrong with the page that a browser shows."""

import importlib.util
from pathlib import Path

from harness import is_missing


def faults(browser):
    """Return the faults of the page, each with the elements that have it."""
    spec = importlib.util.find_spec("axe_playwright_python")
    if spec is None:
        is_missing("axe-playwright-python")
    browser.execute_script(Path(spec.submodule_search_locations[0], "axe.min.js").read_text(encoding="utf-8"))
    found = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    return [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in found["violations"]]
