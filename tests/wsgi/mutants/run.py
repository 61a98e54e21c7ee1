"""Break the product, one point at a time, in a copy of the tree, and see the named test fail.

python tests/wsgi/mutants/run.py [POINT ...]         the points of PEP 3333, or some of them
python tests/wsgi/mutants/run.py operators [N]       a sample of changed operators: 40, or N
"""

# ruff: noqa: T201 - a program for the terminal

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue

from mutants import MUTANTS, Mutant
from operators import SAMPLE, OperatorMutant, sample

ROOT = Path(__file__).resolve().parents[3]
#: How many tests run at a time: each one starts processes of its own.
AT_A_TIME = int(os.environ.get("AT_A_TIME", "3"))


class Tree:
    """A copy of the tree, whose processes import what is in the copy."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.paths = [folder, folder / "jobs"]
        ignore = shutil.ignore_patterns("__pycache__", ".*")
        for name in ("wsgi_timeout", "jobs", "tests", "deploy"):
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        shutil.copy(ROOT / "pyproject.toml", folder)
        # The harness gives this folder to all that it starts, as PYTHONPATH.
        for package in (folder / "wsgi_timeout", folder / "jobs" / "wsgi_timeout_jobs"):
            (folder / "tests" / "apps" / package.name).symlink_to(package)

    def test(self, *names, slow=True):
        """Run tests up to the first that fails; returns pytest's exit code and output."""
        env = {**os.environ, "PYTHONPATH": ":".join(map(str, self.paths)), "PYTHONDONTWRITEBYTECODE": "1"}
        marked = "slow or not slow" if slow else "not slow"
        command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", "-m", marked, *names]
        done = subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    def test_concerned(self, names):
        """Run what `concerned.py` names: of files the tests that are not slow, and single tests."""
        files = [name for name in names if "::" not in name]
        alone = [name for name in names if "::" in name]
        code, output = self.test(*files, slow=False) if files else (0, "")
        return (code, output) if code or not alone else self.test(*alone)

    def passes(self, names):
        """Return the tests, a word, and what is wrong: nothing if they pass with nothing changed."""
        code, output = self.test_concerned(names)
        return " ".join(names), "FAILED" if code else "passed", output[-3000:] if code else ""

    def sees_operator(self, mutant: OperatorMutant):
        """Return the mutant, a word, and what is wrong: nothing if a test of its fails."""
        file = self.folder / mutant.file
        source = file.read_text()
        file.write_text(mutant.source)
        try:
            code, output = self.test_concerned(mutant.tests)
        finally:
            file.write_text(source)
        what = f"{mutant.file}, {mutant.function}: {mutant.new}"
        if code != 1:
            return what, "MISSED", f"{what}\n  was: {mutant.old}"
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
        return f"{what}  by {failed[1] if failed else 'no test that is named'}", "seen", ""

    def sees(self, mutant: Mutant):
        """Return the mutant, and what is wrong: nothing if the test fails with it in place."""
        file = self.folder / mutant.file
        source = file.read_text()
        if source.count(mutant.old) != 1:
            return (
                mutant,
                f"{mutant.old!r} stands {source.count(mutant.old)} times in {mutant.file}, not once",
            )
        file.write_text(source.replace(mutant.old, mutant.new))
        try:
            code, output = self.test(mutant.test)
        finally:
            file.write_text(source)
        # 1: tests were run, and failed. A mutant that cannot be imported would prove nothing.
        if code != 1 or "SyntaxError" in output or "NameError" in output:
            return mutant, f"{mutant.test} ended with {code}, where it must fail:\n{output[-2000:]}"
        return mutant, ""


class Trees:
    """Copies of the tree, each used by one test at a time."""

    def __init__(self, folder, number=AT_A_TIME):
        self._free = SimpleQueue()
        for name in range(number):
            self._free.put(Tree(Path(folder) / str(name)))

    def with_one(self, action, *words):
        """Return what an action on a free tree returns, and the seconds that it took."""
        tree = self._free.get()
        began = time.monotonic()
        try:
            return *action(tree, *words), time.monotonic() - began
        finally:
            self._free.put(tree)


def check_points(trees, threads, points):
    """Check the mutants of `points`, or all; returns how many there are, and what is wrong."""
    chosen = [mutant for mutant in MUTANTS if not points or mutant.point in points]
    tests = sorted({mutant.test for mutant in chosen})
    shares = [tests[start::AT_A_TIME] for start in range(min(AT_A_TIME, len(tests)))]
    wrong = []
    for code, output, seconds in threads.map(lambda share: trees.with_one(Tree.test, *share), shares):
        print(f"{seconds:5.1f} s  a share of the tests without a mutant", flush=True)
        wrong += [output[-3000:]] if code else []
    for mutant, text, seconds in threads.map(lambda mutant: trees.with_one(Tree.sees, mutant), chosen):
        print(f"{'MISSED' if text else 'seen':7} {seconds:5.1f} s  point {mutant.point}", flush=True)
        wrong += [text] if text else []
    return len(chosen), wrong


def check_operators(trees, threads, count):
    """Check a sample of changed operators; returns how many there are, and those that no test saw."""
    chosen, wrong = sample(count), []
    changed = [threads.submit(trees.with_one, Tree.sees_operator, mutant) for mutant in chosen]
    # A test that fails by itself would see every mutant.
    groups = {mutant.tests for mutant in chosen}
    unchanged = [threads.submit(trees.with_one, Tree.passes, names) for names in sorted(groups)]
    for done in as_completed(changed + unchanged):
        what, word, text, seconds = done.result()
        print(f"{word:7} {seconds:5.1f} s  {what}", flush=True)
        wrong += [text] if text else []
    return len(chosen), wrong


def main(words):
    """Check what is asked for; returns how many mutants were not seen."""
    with (
        tempfile.TemporaryDirectory(prefix="wt-mutants-") as folder,
        ThreadPoolExecutor(AT_A_TIME) as threads,
    ):
        trees = Trees(folder)
        if words[:1] == ["operators"]:
            number, wrong = check_operators(trees, threads, int(words[1]) if words[1:] else SAMPLE)
        else:
            number, wrong = check_points(trees, threads, words)
    print("\n".join(wrong))
    print(f"{number} mutants, {len(wrong)} of them or of their tests not as they must be")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
