"""Whether pip could install the product beside what apps pin: `make test-resolve`.

Each file in `sets` holds the pins of one kind of app; more may be named. uv resolves each together with our
pyproject.toml, and what it finds is printed. Nothing is installed. A line `# python X.Y` in a set says for
which version; one with `# apart` is of an app that runs in an environment of its own, by `--python`, and is
resolved without ours.
"""

import argparse
import concurrent.futures
import re
import subprocess
import sys
from pathlib import Path

from interpreters import uv

TOP = Path(__file__).resolve().parents[2]
SETS = Path(__file__).parent / "sets"
#: What is printed of each.
SHOWN = ("flask", "werkzeug", "click", "gunicorn", "redis", "rq")


def resolved(path: Path) -> tuple[Path, str, str]:
    """Return a set with its Python and the versions found, or why there are none."""
    pins = path.read_text()
    version = re.search(r"^# python (\S+)", pins, re.MULTILINE)
    wanted = version[1] if version else "3.12"
    apart = re.search(r"^# apart", pins, re.MULTILINE)
    command = [uv(), "pip", "compile", "-q", "--no-header", "--no-annotate", "--python-version", wanted]
    files = [path] if apart else [TOP / "pyproject.toml", path]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    if done.returncode:
        return path, wanted, done.stderr.strip() or f"uv ended with {done.returncode}"
    found = dict(re.findall(r"^([\w.-]+)==(\S+)", done.stdout, re.MULTILINE))
    shown = ", ".join(f"{name} {found[name]}" for name in SHOWN if name in found)
    return path, wanted, f"ok: {shown}{' (apart, by --python)' if apart else ''}"


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("sets", nargs="*", type=Path, help="files of pins, else tests/stacks/sets")
    chosen = options.parse_args().sets or sorted(SETS.glob("*.txt"))
    uv()  # once, before the threads
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(resolved, chosen))
    for path, version, result in rows:
        print(f"{path.stem:28} Python {version:5} {result}")
    good = sum(result.startswith("ok") for _, _, result in rows)
    print(f"{good} of {len(rows)} sets resolve with this pyproject.toml")
    return 0 if rows and good == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
