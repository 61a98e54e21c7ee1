"""Finds an app by its target, and sees when its files change: the other half of `app_host.py`.

As that file: CPython 2.7 and 3.6 to 3.14, the standard library only.
"""

import ast
import os
import select
import signal
import sys

PY2 = sys.version_info[0] == 2


class TargetError(Exception):
    """There is no such app."""


# -- loading


def load(target):
    """Import `module:attr`, `module:factory()` or `file.py:attr`, with the current folder on the path."""
    module, _, expression = target.partition(":")
    os.environ["FLASK_RUN_FROM_CLI"] = "true"  # Flask ignores an app.run() without a guard then
    try:
        loaded = load_file(module) if module.endswith(".py") or "/" in module else load_module(target, module)
        app = evaluate(target, loaded, expression)
    finally:
        del os.environ["FLASK_RUN_FROM_CLI"]
    if not callable(app):
        raise TargetError("target %r is %r, which is not a WSGI callable" % (target, app))
    if type(app).__module__.split(".")[0] == "wsgi_timeout":
        raise TargetError(
            "target %r is a %s of wsgi-timeout, which must run under the Python that has it: leave out --python, "
            "or name the app itself" % (target, type(app).__name__)
        )
    return app


def own_front_of(app):
    """Return what the app's own `RequestTimeouts` has put before it; None if it has none."""
    extensions = getattr(app, "extensions", None)
    found = extensions.get("wsgi_timeout") if isinstance(extensions, dict) else None
    return found if hasattr(found, "inner") and hasattr(found, "configured") else None


def load_module(target, name):
    sys.path.insert(0, os.getcwd())
    try:
        __import__(name)
    except ImportError as error:
        missing = getattr(error, "name", None) or str(error).rpartition("named ")[2].strip("'")
        if missing and (name == missing or name.endswith("." + missing) or name.startswith(missing + ".")):
            raise TargetError(
                "target %r: no module named %r in %s or on the path" % (target, missing, os.getcwd())
            )
        raise
    return sys.modules[name]


def load_file(name):
    path = os.path.abspath(name)
    if not os.path.isfile(path):
        raise TargetError("target %r: no such file: %s" % (name, path))
    sys.path.insert(0, os.path.dirname(path))
    stem = os.path.splitext(os.path.basename(path))[0]
    if PY2:
        import imp

        return imp.load_source(stem, path)
    import importlib.util

    spec = importlib.util.spec_from_file_location(stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[stem] = module
    spec.loader.exec_module(module)
    return module


def evaluate(target, module, expression):
    if not expression:
        for name in ("app", "application"):
            if hasattr(module, name):
                return getattr(module, name)
        raise TargetError("target %r: name the app, as in %s:app" % (target, target))
    try:
        tree = ast.parse(expression, mode="eval").body
        call = tree if isinstance(tree, ast.Call) else None
        names = (expression[: expression.index("(")] if call else expression).strip().split(".")
        args = [ast.literal_eval(arg) for arg in call.args] if call else []
        kwargs = dict((each.arg, ast.literal_eval(each.value)) for each in call.keywords) if call else {}
    except (SyntaxError, ValueError):
        raise TargetError("target %r: %r is not a name or a call with literals" % (target, expression))
    found = module
    for name in names:
        if not hasattr(found, name):
            raise TargetError("target %r: %r has no attribute %r" % (target, found, name))
        found = getattr(found, name)
    return found(*args, **kwargs) if call else found


# -- reloading


class Watch(object):  # noqa: UP004
    """The files of the app: what Python reads, but for installed packages."""

    def __init__(self):
        self.installed = tuple(os.path.dirname(each.__file__) + os.sep for each in (os, ast))
        self.seen = {}
        if not PY2:
            self.look_before_python_does()

    def look_before_python_does(self):
        """Note the state of each source file before it is read: a later edit is then never missed."""
        from importlib.machinery import SourceFileLoader

        original = SourceFileLoader.path_stats

        def path_stats(loader, path):
            self.seen.setdefault(path, state(path))
            return original(loader, path)

        SourceFileLoader.path_stats = path_stats

    def note(self, error, trace):
        """Note the files that an import failed in, of which no module is left."""
        files = [getattr(error, "filename", None)]
        while trace:
            files.append(trace.tb_frame.f_code.co_filename)
            trace = trace.tb_next
        for path in files:
            if isinstance(path, str) and os.path.isfile(path):
                self.seen.setdefault(path, state(path))

    def changed(self):
        files = set(self.seen)
        for module in list(sys.modules.values()):
            path = getattr(module, "__dict__", {}).get("__file__")
            if isinstance(path, str):
                files.add(path[:-1] if path.endswith(".pyc") else path)
        there = [
            path for path in files if not path.startswith(self.installed) and "site-packages" not in path
        ]
        return any(self.seen.setdefault(path, now) != now for path in there for now in [state(path)] if now)

    def wait(self):
        while not self.changed():
            select.select([], [], [], 0.1)

    def run(self):
        """Have the worker end, with what it runs, once a file has changed."""
        self.wait()
        os.kill(os.getppid(), signal.SIGTERM)


def state(path):
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime, found.st_size
