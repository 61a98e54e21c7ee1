"""One operator changed at a time: a seeded sample over store, front, pool and worker.

A sample stays the same as long as its own lines do: a mutant is chosen by a digest of the seed, its file,
its function and its line, and not by its place in a list.
"""

import ast
import hashlib
from pathlib import Path
from typing import NamedTuple

from concerned import concerned

ROOT = Path(__file__).resolve().parents[3]
SEED = 1
SAMPLE = 40

PACKAGES = (
    "wsgi_timeout/store/",
    "wsgi_timeout/front/",
    "jobs/wsgi_timeout_jobs/pool/",
    "jobs/wsgi_timeout_jobs/worker/",
)

SWAPPED = {
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.And: "or",
    ast.Or: "and",
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
}

#: Comparisons of moments: whether a clock hits a boundary exactly is no behaviour.
_BOUNDARIES = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_MOMENTS = ("monotonic()", "now", "deadline")

#: Mutants that no test can see, and why: they change nothing that anybody could tell.
EQUIVALENT: dict[tuple[str, str], str] = {
    (
        "for packed in commands.lrange(keys.failed(each), 0, limit - 1):",
        "for packed in commands.lrange(keys.failed(each), 0, limit + 1):",
    ): "two more entries are read, and cut off again: the list has `limit` of them",
    (
        'if found.pop("durable", None) and found.get("state") == "ended":',
        'if found.pop("durable", None) or found.get("state") == "ended":',
    ): "the call is looked at once more, with the same answer",
    (
        "if type(sock) is socket.socket and not connection.health_check_interval:  # no TLS, which encrypts",
        "if type(sock) is socket.socket and connection.health_check_interval:  # no TLS, which encrypts",
    ): "redis-py's own way of sending has the same effect, and takes longer",
}


class OperatorMutant(NamedTuple):
    file: str
    function: str
    #: The changed line before and after it, without their indentation.
    old: str
    new: str
    #: The whole source with the change in place.
    source: str
    tests: tuple[str, ...]

    @property
    def digest(self):
        words = (str(SEED), self.file, self.function, self.old, self.new)
        return hashlib.sha256("\n".join(words).encode()).hexdigest()


def sample(count=SAMPLE):
    """Return the chosen mutants, but for those that are known to be equivalent."""
    found = [mutant for path in modules() for mutant in mutants_of(path)]
    chosen = sorted(found, key=lambda mutant: mutant.digest)[: count + len(EQUIVALENT)]
    return [mutant for mutant in chosen if (mutant.old, mutant.new) not in EQUIVALENT][:count]


def modules():
    """Return every module of the packages that has functions to break."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).glob("*.py"))]
    return [path for path in paths if path.name != "__init__.py"]


def mutants_of(path):
    """Yield each mutant of one file."""
    source = path.read_text(encoding="utf-8")
    file = path.relative_to(ROOT).as_posix()
    tests = concerned(file)
    for function, start, end, operator in operators(ast.parse(source), source):
        changed = source[:start] + operator + source[end:]
        line = source.count("\n", 0, start)
        old, new = (text.splitlines()[line].strip() for text in (source, changed))
        yield OperatorMutant(file, function, old, new, changed, tests)


def operators(tree, source):
    """Yield the function, the range in the source, and what to write there, of each operator in functions."""
    offsets = [0]
    for line in source.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))

    def at(line, column):
        text = source[offsets[line - 1] : offsets[line]]
        return offsets[line - 1] + len(text.encode()[:column].decode())

    for outer in ast.walk(tree):
        if not isinstance(outer, ast.FunctionDef):
            continue
        for node in (inner for statement in outer.body for inner in ast.walk(statement)):
            for left, right, kind in pairs(node):
                start, end = at(left.end_lineno, left.end_col_offset), at(right.lineno, right.col_offset)
                between = source[start:end]
                # Brackets and line breaks around an operator stay where they are.
                word = between.strip(" ()\n")
                if word and "\n" not in word and between.count(word) == 1:
                    first = start + between.index(word)
                    yield outer.name, first, first + len(word), SWAPPED[type(kind)]
            if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
                start = at(node.lineno, node.col_offset)
                yield outer.name, start, start + len("not "), ""


def pairs(node):
    """Yield what stands left and right of each operator of an expression."""
    if isinstance(node, ast.Compare):
        terms = [node.left, *node.comparators]
        text = ast.unparse(node)
        of_moments = any(word in text for word in _MOMENTS)
        for left, right, kind in zip(terms, terms[1:], node.ops, strict=False):
            if not (of_moments and isinstance(kind, _BOUNDARIES)):
                yield left, right, kind
    elif isinstance(node, ast.BoolOp):
        yield from ((left, right, node.op) for left, right in zip(node.values, node.values[1:], strict=False))
    elif isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
        yield node.left, node.right, node.op
