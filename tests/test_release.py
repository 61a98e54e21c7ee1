"""What `make release` refuses to upload: a project without addresses, without a tag, with links to files."""

import re
import shutil
import subprocess
import sys

import pytest
from harness import ROOT

pytest.importorskip("tomllib")

URLS = '\n[project.urls]\nDocumentation = "https://docs.example.com/"\nRepository = "https://example.com/r"\n'


@pytest.fixture
def clone(tmp_path):
    """A repository of the two projects' files, all committed."""
    folder = tmp_path / "clone"
    for name in ("README.md", "pyproject.toml", "halves/README.md", "halves/pyproject.toml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "-q")
    return commit(folder)


def git(folder, *words):
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@example.com")
    subprocess.run(["git", *identity, *words], cwd=folder, check=True)


def commit(folder):
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "files")
    return folder


def describe(clone, author, urls=""):
    """Write both projects with another author and other addresses."""
    for pyproject in (clone / "pyproject.toml", clone / "halves" / "pyproject.toml"):
        text = re.sub(r"^\[project\.urls\]\n(?:.+\n)*", "", pyproject.read_text(), flags=re.MULTILINE)
        pyproject.write_text(
            re.sub(r"^authors = .*", f"authors = [{author}]", text, flags=re.MULTILINE) + urls
        )


def reasons(folder):
    """Return the exit code of the check, and its reasons."""
    words = [sys.executable, ROOT / ".ci" / "publishable.py", folder]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_nothing_is_published_without_addresses(clone):
    """A project with no public address, no author's email, no tag: each is a reason of its own."""
    describe(clone, '{ name = "somebody" }')
    (clone / "README.md").write_text("![page](docs/page.png)\n")
    code, found = reasons(clone)
    assert code == 1
    for reason in (
        "wsgi-timeout: [project.urls] lacks Documentation and Repository",
        "wsgi-timeout-halves: [project.urls] lacks Documentation and Repository",
        "wsgi-timeout: no author has an email",
        "wsgi-timeout: its readme links to files beside it, as docs/page.png",
        "HEAD is not tagged v",
        "there are changes that are not committed",
    ):
        assert f"not to be published: {reason}" in found


def test_what_is_complete_may_be_published(clone):
    """With addresses, links that work from anywhere, and the tag of its version nothing is refused."""
    version = re.search(r'^version = "(.+)"', (clone / "pyproject.toml").read_text(), re.MULTILINE)[1]
    describe(clone, '{ name = "somebody", email = "somebody@example.com" }', URLS)
    (clone / "README.md").write_text("![page](https://example.com/page.png)\n")
    git(commit(clone), "tag", f"v{version}")
    assert reasons(clone) == (0, "")
