"""Break the product, one point at a time, in a copy of the tree, and see the named test fail.

python tests/wsgi/mutants/run.py [POINT ...]
"""

# ruff: noqa: T201 - a program for the terminal

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[3]
#: How many tests run at a time: each one starts processes of its own.
AT_A_TIME = 3


class Tree:
    """A copy of the tree, whose processes import what is in the copy."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.paths = [folder, folder / "jobs"]
        ignore = shutil.ignore_patterns("__pycache__", ".*")
        for name in ("wsgi_timeout", "jobs", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        shutil.copy(ROOT / "pyproject.toml", folder)
        # The harness gives this folder to all that it starts, as PYTHONPATH.
        for package in (folder / "wsgi_timeout", folder / "jobs" / "wsgi_timeout_jobs"):
            (folder / "tests" / "apps" / package.name).symlink_to(package)

    def test(self, *names):
        """Run tests; returns pytest's exit code and output."""
        env = {**os.environ, "PYTHONPATH": ":".join(map(str, self.paths)), "PYTHONDONTWRITEBYTECODE": "1"}
        command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", "-m", "slow or not slow", *names]
        done = subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

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


def main(points):
    """Check the mutants of `points`, or all; returns how many were not seen."""
    chosen = [mutant for mutant in MUTANTS if not points or mutant.point in points]
    with tempfile.TemporaryDirectory(prefix="wt-mutants-") as folder:
        trees = SimpleQueue()
        for number in range(AT_A_TIME):
            trees.put(Tree(Path(folder) / str(number)))

        def with_tree(action, *words):
            tree = trees.get()
            began = time.monotonic()
            try:
                return *action(tree, *words), time.monotonic() - began
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(AT_A_TIME) as threads:
            tests = sorted({mutant.test for mutant in chosen})
            shares = [tests[start::AT_A_TIME] for start in range(min(AT_A_TIME, len(tests)))]
            wrong = []
            for code, output, seconds in threads.map(lambda share: with_tree(Tree.test, *share), shares):
                print(f"{seconds:5.1f} s  a share of the tests without a mutant", flush=True)
                wrong += [output[-3000:]] if code else []
            for mutant, text, seconds in threads.map(lambda mutant: with_tree(Tree.sees, mutant), chosen):
                print(f"{'MISSED' if text else 'seen':7} {seconds:5.1f} s  point {mutant.point}", flush=True)
                wrong += [text] if text else []
    print("\n".join(wrong))
    print(f"{len(chosen)} mutants, {len(wrong)} of them or of their tests not as they must be")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
