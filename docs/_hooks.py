"""mkdocs: llms.txt, the list of all pages, and llms-full.txt, all of them in one, for agents."""

import re
from pathlib import Path

#: Links to files of the repository that are no pages: they work in a clone, and are text on the site.
_OUTSIDE = re.compile(
    r"\[([^\]]+)\]\((?:\.\./)+(?:benchmarks|tests|examples|CONTRIBUTING|CHANGELOG|README)[^)]*\)"
)

#: The pages in their order, below the title of their part of the navigation.
_parts: dict[str, list[str]] = {}
_pages: dict[str, tuple[str, str, str]] = {}


def on_nav(nav, **_):
    _parts.clear()
    for item in nav.items:
        title = item.title if item.is_section else "Start"
        _parts.setdefault(title, []).extend(
            page.file.src_uri for page in (item.children if item.is_section else [item])
        )
    return nav


def on_page_markdown(markdown, page, **_):
    text = _OUTSIDE.sub(r"\1", markdown)
    _pages[page.file.src_uri] = (page.title, page.url or "./", text)
    return text


def in_one(text):
    """Return a page as it stands in the file of all of them: without marks for tests."""
    return re.sub(r"^<!-- .*? -->\n", "", text, flags=re.MULTILINE)


def on_post_build(config, **_):
    lines = [f"# {config['site_name']}", "", f"> {config['site_description']}"]
    for part, uris in _parts.items():
        lines += ["", f"## {part}", ""]
        lines += [f"- [{title}]({url})" for title, url, _ in (_pages[uri] for uri in uris)]
    site = Path(config["site_dir"])
    (site / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    whole = [
        f"<!-- {uri} -->\n\n{in_one(_pages[uri][2]).strip()}" for uris in _parts.values() for uri in uris
    ]
    (site / "llms-full.txt").write_text("\n\n".join(whole) + "\n", encoding="utf-8")
