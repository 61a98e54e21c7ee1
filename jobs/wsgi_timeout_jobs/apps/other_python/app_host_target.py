"""Finds an app by its target, and sees when its files change: the other half of `app_host.py`.

As that file: CPython 2.7 and 3.6 to 3.14, the standard library only.
"""

import ast
import os
import re
import select
import signal
import sys

PY2 = sys.version_info[0] == 2
#: Names of factories, as in `target_apps.py`.
FACTORY = re.compile(r"^(create|make|build|get|new)_(\w+_)?(app|application|wsgi)$|^app_factory$|^factory$")


class TargetError(Exception):
    """There is no such app; `hint` and `about` say what the worker is to add, see `target_hints.hint`."""

    def __init__(self, text, hint="", about=""):
        Exception.__init__(self, text)
        self.hint = hint
        self.about = about


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
    if not PY2:
        check_kind(target, app)
    return app


def check_kind(target, app):
    """Refuse a callable that takes no request: an ASGI app, or a factory that is not called."""
    import inspect

    called = app if inspect.isroutine(app) else type(app).__call__
    if not inspect.isclass(app) and inspect.iscoroutinefunction(called):
        raise TargetError(
            "target %r is an ASGI app, which runs under the Python that has wsgi-timeout only: leave out --python"
            % target
        )
    try:
        signature = inspect.signature(app)
    except Exception:  # noqa: BLE001 - none is told, or its annotations raise
        return
    try:
        signature.bind({}, None)
        fits = not is_factory(app, signature)
    except TypeError:
        fits = False
    if not fits:
        raise TargetError(
            "target %r is %r, which does not take (environ, start_response) as a WSGI app: "
            "call a factory, as in shop:create_app()" % (target, app)
        )


def is_factory(app, signature):
    """Whether a function is a factory that two values happen to fit: `create_app(config, debug)`."""
    if type(app) is not type(is_factory) or not FACTORY.search(app.__name__):
        return False
    needed = [name for name, each in signature.parameters.items() if each.default is each.empty][:2]
    return not re.match(r"_*e\w*,_*s\w*$", ",".join(needed))


def own_front_of(app):
    """Return what the app's own `RequestTimeouts` has put before it; None if it has none."""
    extensions = getattr(app, "extensions", None)
    found = extensions.get("wsgi_timeout") if isinstance(extensions, dict) else None
    return found if hasattr(found, "inner") and hasattr(found, "configured") else None


def load_module(target, name):
    sys.path.insert(0, os.getcwd())
    try:
        __import__(name)
    except (ImportError, ValueError) as error:
        if "relative import" in str(error).lower():
            raise TargetError("target %r: %s" % (target, error), "relative", os.path.basename(os.getcwd()))
        missing = getattr(error, "name", None) or str(error).rpartition("named ")[2].strip("'")
        # Python 2 says `views` where `shop.views` is missing.
        parts = missing and (name + ".").startswith(missing + ".") or (PY2 and name.endswith("." + missing))
        if isinstance(error, ImportError) and missing and parts:
            text = "target %r: no module named %r in %s or on the path" % (target, missing, os.getcwd())
            raise TargetError(text, "missing", name)
        raise
    module = sys.modules[name]
    if getattr(module, "__file__", None) is None and hasattr(module, "__path__"):
        text = "target %r: %s is a folder: name the app in it" % (target, name)
        raise TargetError(text, "folder", next(iter(module.__path__)))
    return module


def load_file(name):
    path = os.path.abspath(name)
    if not os.path.isfile(path):
        raise TargetError("target %r: no such file: %s" % (name, path))
    sys.path.insert(0, os.path.dirname(path))
    stem = os.path.splitext(os.path.basename(path))[0]
    try:
        return module_of(name, stem, path)
    except (ImportError, ValueError) as error:
        if "relative import" in str(error).lower():
            raise TargetError("target %r: %s: it is part of a package" % (name, error), "part", path)
        raise


def module_of(name, stem, path):
    if PY2:
        import imp

        return imp.load_source(stem, path)
    import importlib.util

    spec = importlib.util.spec_from_file_location(stem, path)
    if spec is None:
        raise TargetError("target %r: %s is not a Python file" % (name, path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[stem] = module
    spec.loader.exec_module(module)
    return module


def evaluate(target, module, expression):
    if not expression:
        for name in ("app", "application"):
            if hasattr(module, name):
                return getattr(module, name)
        file = os.path.abspath(getattr(module, "__file__", None) or "")
        raise TargetError("target %r" % target, "unnamed", file[:-1] if file.endswith(".pyc") else file)
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
            there = ", ".join(each for each in sorted(vars(module)) if is_own_callable(module, each))
            raise TargetError(
                "target %r: %r has no attribute %r; its callables: %s"
                % (target, found, name, there or "none")
            )
        found = getattr(found, name)
    return found(*args, **kwargs) if call else found


def is_own_callable(module, name):
    """Whether this is an app, or a function that the module defines: not what it imports."""
    value = getattr(module, name)
    if type(value) is type(is_own_callable):
        return not name.startswith("_") and value.__module__ == module.__name__
    flask = sys.modules.get("flask")
    return flask is not None and isinstance(value, flask.Flask)


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
