"""Whether what a release uploads can be shown by a package index; one line for each reason why not.

Usage: publishable.py [CLONE]. `make release` uploads nothing while it fails.
"""

import re
import subprocess
import sys
from pathlib import Path

import tomllib

#: Keys that `[project.urls]` needs, in both distributions.
URLS = ("Documentation", "Repository")


def reasons(clone):
    """Yield what is missing: addresses, links that work from anywhere, a tag on a clean commit."""
    for folder in (clone, clone / "halves"):
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        name, urls = project["name"], project.get("urls", {})
        missing = [key for key in URLS if not urls.get(key, "").startswith("https://")]
        if missing:
            yield f"{name}: [project.urls] lacks {' and '.join(missing)}"
        if not any("email" in author for author in project["authors"]):
            yield f"{name}: no author has an email"
        if not project.get("dynamic") and (files := relative(folder / project["readme"])):
            yield f"{name}: its readme links to files beside it, as {files[0]}, which an index does not have"
    if "on no package index yet" in (clone / "README.md").read_text(encoding="utf-8"):
        yield "README.md says that it is on no package index yet"
    version = tomllib.loads((clone / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if f"v{version}" not in git(clone, "tag", "--points-at", "HEAD"):
        yield f"HEAD is not tagged v{version}"
    if git(clone, "status", "--porcelain"):
        yield "there are changes that are not committed"


def relative(readme):
    """Return the links of a page that lead to files beside it."""
    return re.findall(r"\]\((?!https?://|#)([^)\s]+)", readme.read_text(encoding="utf-8"))


def git(clone, *words):
    return subprocess.run(
        ["git", *words], cwd=clone, capture_output=True, text=True, check=False
    ).stdout.split()


if __name__ == "__main__":
    found = list(reasons(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent))
    for reason in found:
        print(f"not to be published: {reason}")
    sys.exit(bool(found))
