"""What `help()` says: every public object has a docstring, and it names each argument."""

import inspect
import re

import pytest

import wsgi_timeout
from wsgi_timeout import errors, functions


def members(owner):
    """Yield the public functions, properties and the like that a class defines itself, with their names."""
    for name, member in vars(owner).items():
        # A field of a dataclass has its place in the docstring of its class.
        if name == "__init__" or (not name.startswith("_") and not inspect.ismemberdescriptor(member)):
            yield f"{owner.__qualname__}.{name}", getattr(member, "__func__", member)


def public():
    """Return every public object by its name."""
    found = {name: getattr(wsgi_timeout, name) for name in wsgi_timeout.__all__}
    found |= {f"functions.{name}": getattr(functions, name) for name in functions.__all__}
    found |= {name: value for name, value in vars(errors).items() if inspect.isclass(value)}
    found["FunctionCall.get.aio"] = wsgi_timeout.FunctionCall("fc-any").get.aio
    # An error is its class: what it holds stands there. The dataclass makes the `__init__` of Settings.
    silent = {
        *(value for value in found.values() if inspect.isclass(value) and issubclass(value, BaseException))
    }
    for value in list(found.values()):
        if inspect.isclass(value) and value not in silent:
            found |= dict(members(value))
    del found["Settings.__init__"]
    return {name: value for name, value in found.items() if callable(value) or isinstance(value, property)}


PUBLIC = public()


def arguments(value):
    try:
        names = list(inspect.signature(value).parameters)
    except ValueError:
        return []
    return [name for name in names if name not in {"self", "cls", "owner"}]


def test_the_whole_api_is_looked_at():
    """Among what is tested are the objects that users meet first."""
    wanted = {
        "FunctionCall.get",
        "FunctionCall.cancel",
        "Function.spawn",
        "Stub.function",
        "gather",
        "progress",
    }
    assert wanted | {"RequestTimeouts.__init__", "Settings", "Settings.load", "NoWorker"} <= set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_object_has_a_docstring(name):
    """Nothing public lacks a docstring of its own; it begins with a sentence."""
    value = PUBLIC[name]
    text = value.__doc__ if inspect.isclass(value) else inspect.getdoc(value)
    assert text, f"{name} has no docstring"
    assert not text.startswith(f"{name}("), f"{name} has the docstring that a dataclass makes"
    assert text.split("\n\n")[0].rstrip().endswith((".", ":"))


@pytest.mark.parametrize("name", [name for name, value in PUBLIC.items() if inspect.isroutine(value)])
def test_a_docstring_names_each_argument(name):
    """What can be given stands in the docstring, with what it means."""
    text = inspect.getdoc(PUBLIC[name]) or ""
    if name in {"Function.local", "Function.__call__"}:
        return  # its arguments are the function's own
    assert [word for word in arguments(PUBLIC[name]) if f"{word}: " not in text] == []


#: What users call: each says what it returns, and what it raises and when.
CALLED = (
    *("FunctionCall.get", "FunctionCall.get.aio", "FunctionCall.status", "FunctionCall.cancel", "gather"),
    *("Function.spawn", "Function.remote", "Stub.function", "wsgi_app", "asgi_app", "web_endpoint"),
    *("wsgi_blueprint", "gateway", "Settings.load", "Settings.replace"),
)


@pytest.mark.parametrize("name", CALLED)
def test_a_docstring_says_what_is_returned_and_raised(name):
    """Of what users call the docstring has sections for what is returned, and for each exception when."""
    text = inspect.getdoc(PUBLIC[name]) or ""
    returns = re.search(r"^Returns:\n    \S", text, re.MULTILINE) or re.match(r"(?:Return|Make) ", text)
    assert returns, f"{name} does not say what it returns"
    section = re.search(r"^Raises:\n((?:    .+\n?)+)", text, re.MULTILINE)
    assert section, f"{name} does not say what it raises"
    for line in re.findall(r"^    (\S.*)", section[1], re.MULTILINE):
        assert re.match(r"\w+: \S", line), f"{name} does not say when it raises {line}"
