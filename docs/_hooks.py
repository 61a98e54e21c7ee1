"""mkdocs: llms.txt, the list of all pages, and llms-full.txt, all of them in one, for agents."""

import re
from pathlib import Path

#: Links to files of the repository that are no pages: they work in a clone, and are text on the site.
_OUTSIDE = re.compile(
    r"\[([^\]]+)\]\((?:\.\./)+(?:benchmarks|tests|examples|CONTRIBUTING|CHANGELOG|README)[^)]*\)"
)

_order: list[str] = []
_pages: dict[str, tuple[str, str, str]] = {}


def on_nav(nav, **_):
    _order[:] = [page.file.src_uri for page in nav.pages]
    return nav


def on_page_markdown(markdown, page, **_):
    text = _OUTSIDE.sub(r"\1", markdown)
    _pages[page.file.src_uri] = (page.title, page.url or "./", text)
    return text


def in_one(text):
    """Return a page as it stands in the file of all of them: without marks for tests."""
    return re.sub(r"^<!-- .*? -->\n", "", text, flags=re.MULTILINE)


def on_post_build(config, **_):
    pages = [(uri, *_pages[uri]) for uri in _order if uri in _pages]
    lines = [f"# {config['site_name']}", "", f"> {config['site_description']}", ""]
    lines += [f"- [{title}]({url})" for _, title, url, _ in pages]
    site = Path(config["site_dir"])
    (site / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    whole = "\n\n".join(f"<!-- {uri} -->\n\n{in_one(text).strip()}" for uri, _, _, text in pages)
    (site / "llms-full.txt").write_text(whole + "\n", encoding="utf-8")
