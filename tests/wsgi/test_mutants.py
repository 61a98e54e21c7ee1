"""The mutants' own machinery: it tells a mutant that is seen from one that is not."""

import subprocess
import sys
from pathlib import Path

import pytest

MUTANTS = Path(__file__).parent / "mutants"
sys.path.insert(0, str(MUTANTS))
from mutants import MUTANTS as ALL  # noqa: E402
from run import ROOT, Tree  # noqa: E402


def test_every_mutant_fits_the_code():
    """What a mutant replaces stands in its file, once, and its test is there."""
    for mutant in ALL:
        assert (ROOT / mutant.file).read_text().count(mutant.old) == 1, mutant
        path, _, name = mutant.test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text(), mutant
    assert len({mutant.point.partition(" (")[0] for mutant in ALL}) >= 40


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_three_mutants_are_seen():
    """Three mutants, one of them in processes of its own, make their tests fail, which pass without them."""
    done = subprocess.run(
        [sys.executable, "run.py", "4", "9", "44"], cwd=MUTANTS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("seen") == 3


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_mutant_that_changes_nothing_is_missed(tmp_path):
    """A change that its test does not see is reported, and so is one that fits no more."""
    tree = Tree(tmp_path)
    mutant = next(mutant for mutant in ALL if mutant.point == "4")
    assert "must fail" in tree.sees(mutant._replace(new=mutant.old + "  # the same"))[1]
    assert "0 times" in tree.sees(mutant._replace(old="no such line"))[1]
    assert not tree.sees(mutant)[1]
