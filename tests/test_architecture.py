"""What the design says of the source itself, read from it."""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import wsgi_timeout
import wsgi_timeout_jobs
from wsgi_timeout.store import keys, rq_state

WEB, JOBS = "wsgi_timeout", "wsgi_timeout_jobs"
FOLDERS = {WEB: Path(wsgi_timeout.__file__).parent, JOBS: Path(wsgi_timeout_jobs.__file__).parent}

#: The one place where the web half's package reaches into the worker half: the command that is its own.
WORKER_COMMAND = ("wsgi_timeout.serving.cli", "worker_command")

#: The modules that write Redis keys, beside lua/.
KEY_MODULES = {"wsgi_timeout.store.keys", "wsgi_timeout.store.rq_state"}


def modules():
    """Return the syntax tree of every module of both packages by its full name."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join([package, *(part for part in parts if part != "__init__")])
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()
LUA = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted((FOLDERS[WEB] / "store" / "lua").glob("*.lua"))
}
SCRIPTS = {name: text for name, text in LUA.items() if name != "prelude"}


def imports(tree, function=""):
    """Yield every import of ours in a tree: the enclosing function's name, and the module's.

    Those inside functions and `if TYPE_CHECKING` too. `from package import module` is an import of
    the module; that Python runs the package's `__init__` before any of its modules is no arrow.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            named = [member if member in MODULES else node.module for member in members]
        else:
            inner = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
            yield from imports(node, inner)
            continue
        yield from ((function, name) for name in named if name.partition(".")[0] in FOLDERS)


def docstrings(tree):
    """Return the nodes of strings that stand as statements."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


@cache
def strings(tree):
    """Return every string of a module that is no docstring, the parts of f-strings too."""
    described = docstrings(tree)
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return [node.value for node in constants if isinstance(node.value, str) and id(node) not in described]


def table():
    """Return the keys that the table in `keys` lists, with `<...>` for what varies."""
    return re.findall(r"^    ((?:wt|rq):\S+)", keys.__doc__, re.MULTILINE)


# -- arrows


def test_the_web_half_never_imports_the_worker_half():
    """No module of the web half imports the worker half, but the command that runs workers."""
    found = {
        (module, function)
        for module, tree in MODULES.items()
        if module.partition(".")[0] == WEB
        for function, name in imports(tree)
        if name.partition(".")[0] == JOBS
    }
    assert found == {WORKER_COMMAND}


def test_the_web_half_names_the_worker_half_in_one_string():
    """A job is named by a string, the entry point, and no other string leads to the worker half."""
    found = {
        (module, text)
        for module, tree in MODULES.items()
        if module.partition(".")[0] == WEB
        for text in strings(tree)
        if text.startswith(JOBS)
    }
    assert found == {("wsgi_timeout.store.rq_state", rq_state.ENTRY_POINT)}


def test_the_entry_point_is_there():
    """The string that names the entry point names a function of the worker half."""
    module, _, function = rq_state.ENTRY_POINT.rpartition(".")
    assert function in {node.name for node in MODULES[module].body if isinstance(node, ast.FunctionDef)}


#: The packages of each half, from the top down: an arrow goes down this list only. The last is the ground,
#: the modules that lie in no package.
FLOORS = {
    WEB: ("serving", "integrations", "front", "pages", "functions", "watching", "http", "store", ""),
    JOBS: ("", "pool", "worker", "attempt", "apps", "process"),
}
#: Documented dotted names, each one import of what lies in a package: see `test_doors_hold_nothing`.
DOORS = {f"{WEB}.{name}" for name in ("gunicorn_conf", "gunicorn_gevent", "gunicorn_worker")} | {WEB}


def floor(module):
    """Return the height of a module: the place of its package in its half's list."""
    half, _, rest = module.partition(".")
    package = rest.partition(".")[0]
    floors = FLOORS[half]
    return floors.index(package if package in floors else "")


def test_arrows_go_down():
    """A module imports from its own package and from those below it."""
    found = {
        (module, name)
        for module, tree in MODULES.items()
        if module not in DOORS
        for function, name in imports(tree)
        if name.partition(".")[0] == module.partition(".")[0] and floor(name) < floor(module)
    }
    assert found == set()


def test_doors_hold_nothing():
    """What lies at a documented dotted name is imports and `__all__`, no code."""
    for door in DOORS:
        kinds = {type(node) for node in MODULES[door].body}
        assert kinds <= {ast.Expr, ast.ImportFrom, ast.Assign, ast.If}, door


def test_there_are_no_import_cycles():
    """The arrows between all modules, typing imports and those in functions included, have an order."""
    graph = {
        module: {
            name
            for function, name in imports(tree)
            if (module, function) != WORKER_COMMAND and name != module
        }
        for module, tree in MODULES.items()
    }
    assert len(graph) > 30
    assert set().union(*graph.values()) <= set(graph)
    TopologicalSorter(graph).prepare()


# -- names


def test_errors_of_redis_are_told_apart_in_one_module():
    """No module but `store/redis_errors.py` names an exception of redis-py."""
    found = {
        (module, ast.unparse(node))
        for module, tree in MODULES.items()
        if module != f"{WEB}.store.redis_errors"
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and ast.unparse(node).startswith("redis.exceptions"))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("redis.exceptions"))
        or (isinstance(node, ast.Attribute) and re.fullmatch(r"redis\.\w+Error", ast.unparse(node)))
    }
    assert found == set()


def test_all_is_sorted_and_complete():
    """`__all__` has every public name that the package's `__init__` imports, in order."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(MODULES[WEB])
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{WEB}.")
        for alias in node.names
    }
    public = sorted(name for name in imported if not name.startswith("_"))
    assert wsgi_timeout.__all__ == public
    assert all(hasattr(wsgi_timeout, name) for name in public)


# -- sizes, and the tests' own house

TESTS = Path(__file__).parent
TEST_FILES = {path.relative_to(TESTS).as_posix(): path for path in sorted(TESTS.rglob("*.py"))}
#: Files and functions of the product that are over the limit today. A list to be emptied, never added to.
LONG_FILES: set[str] = set()
LONG_FUNCTIONS: set[tuple[str, str]] = set()


def lines_of(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_does_two_jobs():
    """No file of the product is over 310 lines."""
    found = set()
    for package, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            if lines_of(path) > 310:
                found.add(".".join([package, *path.relative_to(folder).with_suffix("").parts]))
    assert found <= LONG_FILES


def test_no_function_does_two_jobs():
    """No function of the product is over 50 lines, its decorators and docstring included."""
    found = {
        (module, node.name)
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - min([node.lineno, *(word.lineno for word in node.decorator_list)]) >= 50
    }
    assert found <= LONG_FUNCTIONS


def test_no_test_file_is_a_drawer():
    """No file of tests is over 600 lines; an app of oddities may be."""
    found = {name for name, path in TEST_FILES.items() if lines_of(path) > 600}
    assert {name for name in found if not name.startswith("apps/")} == set()


def test_tests_share_by_support_modules():
    """No test file imports from another: what two need stands in a module of its own."""
    found = set()
    for name, path in TEST_FILES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {(name, module) for module in modules if module.split(".")[-1].startswith("test_")}
    assert found == set()


def test_test_files_have_names_of_their_own():
    """No two files of tests share a name: pytest imports them by it."""
    names = [path.name for path in TEST_FILES.values() if path.name.startswith("test_")]
    assert {name for name in names if names.count(name) > 1} == set()


def test_the_tests_lie_in_the_packages_rooms():
    """The packages of the web half have a folder of tests each, the worker half has one."""
    assert {name for name in (*FLOORS[WEB], "jobs") if not (TESTS / name).is_dir()} == set()


# -- Redis


KEY = re.compile(r"^(?:wt|rq):|\b(?:wt|rq):[a-z_]+:")


def test_keys_are_written_in_one_place():
    """A Redis key stands in `keys`, in `rq_state` or in a script, and nowhere else."""
    found = {
        (module, text)
        for module, tree in MODULES.items()
        if module not in KEY_MODULES
        for text in strings(tree)
        if KEY.search(text)
    }
    assert found == set()


def test_the_table_lists_every_key():
    """Every key that Python or a script writes begins like one in the table."""
    fixed = {row.partition("<")[0] for row in table()}
    python = {text for module in KEY_MODULES for text in strings(MODULES[module]) if KEY.search(text)}
    scripts = {text for source in LUA.values() for text in re.findall(r"'\^?((?:wt|rq):[a-z:]+)'", source)}
    # No keys: the queue's own name, a part of RQ's keys, and a channel.
    written = (python | scripts) - {rq_state.queue_name(""), rq_state.command_channel("")}
    assert len(written) > 15
    assert {text for text in written if not any(row.startswith(text) for row in fixed)} == set()


def test_scripts_and_python_agree_on_an_inboxes_life():
    """The TTL of an inbox is the same in the scripts' prelude and in `keys`."""
    assert re.search(r"^local INBOX_TTL = (\d+)$", LUA["prelude"], re.MULTILINE).group(1) == str(
        keys.INBOX_TTL
    )


def header(source):
    """Return the text of a script's leading comment."""
    lines = []
    for line in source.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.lstrip("- "))
    return "\n".join(lines)


def named(source, what):
    """Return the arguments that a script's header names after `what:`."""
    found = re.search(rf"^{what}: (.*?)(?=\n[A-Z]|\Z)", header(source), re.MULTILINE | re.DOTALL)
    assert found, f"no {what}"
    text = re.sub(r"\([^()]*\)", "", found.group(1))
    return [word.strip() for word in text.split(",")]


def most(source, what):
    """Return the highest index with which a script reads KEYS or ARGV."""
    return max((int(number) for number in re.findall(rf"\b{what}\[(\d+)\]", source)), default=0)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_names_its_keys(name):
    """Each script begins with what it does, and names as many KEYS as it reads."""
    source = SCRIPTS[name]
    assert not header(source).startswith("KEYS")
    assert len(named(source, "KEYS")) == most(source, "KEYS")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_names_its_arguments(name):
    """Each script names every ARGV that it reads by number."""
    source = SCRIPTS[name]
    assert len(named(source, "ARGV")) >= most(source, "ARGV")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_run_by_python(name):
    """No script lies there unused."""
    assert any(name in strings(tree) for tree in MODULES.values())


# -- what Redis 6.2 knows

#: Commands that came after it.
NEWER = frozenset(
    re.findall(
        r"\w+",
        """
        BLMPOP BZMPOP DELIFEQ EVALSHA_RO EVAL_RO EXPIRETIME FCALL FCALL_RO FUNCTION_LOAD HEXPIRE
        HEXPIREAT HEXPIRETIME HGETDEL HGETEX HPERSIST HPEXPIRE HPEXPIREAT HPEXPIRETIME HPTTL HSETEX
        HTTL LCS LMPOP MSETEX PEXPIRETIME SINTERCARD SORT_RO SPUBLISH SSUBSCRIBE WAITAOF ZINTERCARD
        ZMPOP
        """,
    )
)
#: Commands that had no options then, and the options.
EXPIRES = frozenset({"EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT"})
EXPIRE_OPTIONS = frozenset({"GT", "LT", "NX", "XX"})


def scripted(source):
    """Yield the constant words of each command in a script, its name first."""
    for rest in re.findall(r"redis\.p?call\((.*)", source):
        yield [word.upper() for word in re.findall(r"'([^']*)'", rest)]


def sent(tree):
    """Yield the constant words of each call and sequence in a module, with a method's and keywords' names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            method = [node.func.attr] if isinstance(node.func, ast.Attribute) else []
            words, options = node.args, [word.arg for word in node.keywords if word.arg]
        elif isinstance(node, ast.Tuple | ast.List):
            words, method, options = node.elts, [], []
        else:
            continue
        constants = [w.value for w in words if isinstance(w, ast.Constant) and isinstance(w.value, str)]
        yield [word.upper() for word in (*method, *constants, *options)]


def too_new(commands):
    """Yield what Redis 6.2 does not know of commands that are given by their words."""
    for words in commands:
        yield from NEWER & set(words)
        if "SET" in words and {"NX", "GET"} <= set(words):
            yield "SET NX GET"
        if EXPIRES & set(words):
            yield from EXPIRE_OPTIONS & set(words)


@pytest.mark.parametrize("name", LUA)
def test_redis_6_2_knows_what_a_script_does(name):
    """No script has a command or an option of EXPIRE that Redis 6.2 does not know, nor a header of 7.0."""
    assert not LUA[name].startswith("#!")
    assert list(too_new(scripted(LUA[name]))) == []


@pytest.mark.parametrize("module", MODULES)
def test_redis_6_2_knows_what_python_sends(module):
    """No module has one either; but the listener, which asks for the server's version, and `durability`."""
    known = {
        "wsgi_timeout.watching.listener": {"BLMPOP"},
        "wsgi_timeout.store.synced": {"WAITAOF"},
        "wsgi_timeout.store.durability": {"WAITAOF"},
    }
    assert set(too_new(sent(MODULES[module]))) == known.get(module, set())


@pytest.mark.parametrize(
    "written",
    [
        "pipe.expire(stream, 60, gt=True)",
        "commands.send('EXPIRE', stream, 60, 'GT')",
        "commands.send_all([('pexpire', stream, 60, 'nx')])",
        "client.lmpop(1, stream)",
        "client.set(stream, '', nx=True, get=True)",
    ],
)
def test_what_redis_6_2_does_not_know_is_found(written):
    """Each way to send something newer is seen."""
    assert list(too_new(sent(ast.parse(written))))


@pytest.mark.parametrize(
    "written", ["redis.call('EXPIRE', key, 60, 'GT')", "if redis.call('LMPOP', 1, key) then"]
)
def test_what_redis_6_2_does_not_know_is_found_in_a_script(written):
    """In a script too."""
    assert list(too_new(scripted(written)))
