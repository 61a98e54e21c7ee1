"""What the documents say of the source is true: the files and rooms that they name are there."""

import importlib.util
import re

import pytest
from documents import OPTION, PAGES, blocks, inline, name, named
from harness import ROOT

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
HALVES = (ROOT / "wsgi_timeout", ROOT / "jobs" / "wsgi_timeout_jobs")
PACKAGES = [
    folder for half in HALVES for folder in sorted(half.iterdir()) if (folder / "__init__.py").exists()
]

#: Sites that pages link to: nobody checks whether they answer, so they are few.
ALLOWED = ("https://python-rq.org", "https://keepachangelog.com/", "https://semver.org/")

#: Options in sentences that are other programs': pip's, rq's, curl's, podman's, servers', and CSS variables.
OTHERS_OPTIONS = {
    *("--editable", "--group", "--no-deps", "--url", "--serializer", "--data-binary", "--digest"),
    *("--anyauth", "--follow", "--health-cmd", "--http", "--interface", "--request-timeout"),
    *("--socket-timeout", "--access-logformat", "--logformat", "--accent", "--logo"),
}
#: A file of ours in a sentence.
OURS = re.compile(r"(?:tests|docs|examples|deploy|benchmarks|clients|wsgi_timeout|F|T)/[\w./-]+")
#: Names in sentences that are Celery's, gunicorn's, nginx's, systemd's.
OTHERS_NAMES = {
    *("update_state", "soft_time_limit", "autoretry_for", "dirty_timeout", "http_referer"),
    *("KillMode", "TimeoutStopSec", "ListenStream", "AsyncResult"),
}

#: The words that the design defines.
WORDS = (
    *("call", "id", "token", "result URL", "status URL", "hop", "wait", "function timeout", "attempt"),
    *("lease", "delivery", "grace", "inbox", "front", "name", "label"),
)


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`([\w/]+\.(?:py|lua))`", ARCHITECTURE))))
def test_a_file_that_the_architecture_names_is_there(file):
    """Each file on a request's way exists, below one of the halves or of the store."""
    roots = (*HALVES, HALVES[0] / "store", ROOT)
    assert any((root / file.removeprefix("jobs/.../")).exists() for root in roots)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda folder: folder.name)
def test_every_package_is_on_the_map(package):
    """The architecture's table and CONTRIBUTING's map have every package of both halves."""
    table = r"^\| `(?:jobs/\.\.\./)?" + package.name + r"` \|"
    assert re.search(table, ARCHITECTURE, re.MULTILINE)
    assert re.search(rf"\b{package.name}/", CONTRIBUTING)


@pytest.mark.parametrize("word", WORDS)
def test_the_glossary_has_every_word(word):
    """Each word that the design defines has its entry."""
    assert f"\n**{word}**\n" in GLOSSARY


def test_the_glossary_is_in_order():
    """Entries are sorted, and each has a text."""
    words = re.findall(r"^\*\*(.+)\*\*$", GLOSSARY, re.MULTILINE)
    assert words == sorted(words, key=str.lower)
    assert len(re.findall(r"^:   ", GLOSSARY, re.MULTILINE)) == len(words)


def reference():
    """Return the module that writes the pages made of the source."""
    spec = importlib.util.spec_from_file_location("reference_pages", ROOT / "docs" / "_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", reference().PAGES)
def test_the_reference_is_what_the_source_says(page):
    """Settings, options and keys stand in the reference as they are in the source: `make reference`."""
    module = reference()
    written = (module.FOLDER / page).read_text(encoding="utf-8")
    assert written == module.PAGES[page](), "run `make reference`"


@pytest.mark.parametrize("drawing", reference().DRAWINGS)
def test_a_drawing_is_what_its_steps_say(drawing):
    """The drawings of the explanation are those that `make reference` draws."""
    module = reference()
    written = (module.FOLDER.parent / "images" / drawing).read_text(encoding="utf-8")
    assert written == module.DRAWINGS[drawing](), "run `make reference`"


def test_the_readme_is_short():
    """The README is at most 6 KB."""
    assert len((ROOT / "README.md").read_bytes()) <= 6 * 1024


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    """What a page links to is a file of the repository, or on an allowed site; mkdocs looks at anchors."""
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#{\s]+)", prose)
    inside = [link for link in links if "://" not in link]
    assert [link for link in inside if not (page.parent / link).exists()] == []
    assert [link for link in links if "://" in link and not link.startswith(ALLOWED)] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_sentences_name_is_there(page):
    """Each option, name of code and file in a sentence is one of ours, or known as another program's."""
    words, options = named()
    own = {*re.findall(r"\w+", " ".join(block.title for block in blocks(page))), *OTHERS_NAMES}
    for code in inline(page):
        assert set(OPTION.findall(code)) <= options | OTHERS_OPTIONS, code
        assert set(re.findall(r"\b[a-z]+(?:_[a-z0-9]+)+\b", code)) <= words | own, code
        assert set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b", code)) <= words | own, code
        if file := OURS.match(code):
            path = re.sub(r"^T/", "tests/", re.sub(r"^F/", "tests/faults/", file[0]))
            packed = path.replace("wsgi_timeout/clients", "clients")
            assert any((ROOT / place).exists() for place in (path, packed)), code


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*/")), ids=lambda folder: folder.name)
def test_an_example_is_fit_for_phones_and_the_dark(example):
    """Each example has a page, with a viewport and both schemes of colours, and a README of ten lines."""
    assert len((example / "README.md").read_text(encoding="utf-8").splitlines()) <= 10
    files = [*example.rglob("*.py"), *example.rglob("*.html")]
    pages = [text for file in files if "<!doctype html>" in (text := file.read_text(encoding="utf-8"))]
    assert pages
    for page in pages:
        assert 'name="viewport"' in page
        assert "color-scheme" in page
