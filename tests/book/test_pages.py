"""The built pages: links, anchors, alt text, nothing from outside, nothing of this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import build
import pytest
import vendor
import yaml
from equations import checks, checks_of

ROOT = Path(__file__).resolve().parents[2]
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
GENERATED = {"genindex.html", "search.html"}
# words about how the text came to be, which a reader has no use for
ARRANGEMENTS = re.compile(
    r"\bTODO\b|\bFIXME\b|\bXXX\b|\bplaceholder page\b|\blorem ipsum\b|/shared/|/tmp/|\bissue #\d|"
    r"\bas an AI\b|\blanguage model, I\b|\bMEASURE-[A-Z]+\b",
    re.IGNORECASE,
)


@dataclass
class Page:
    """What a page links to, loads and holds."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    images: list[tuple[str, str | None]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    title: str = ""


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page, self.inside = Page(), ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        if "id" in known:
            self.page.ids.add(known["id"])
        if tag == "a" and known.get("href"):
            self.page.links.append(known["href"])
        if tag == "link" and known.get("href") and known.get("rel") != "canonical":
            self.page.loads.append(known["href"])
        if LOADS.get(tag) in known:
            self.page.loads.append(known[LOADS[tag]])
        if tag == "img":
            self.page.images.append((known.get("src", ""), known.get("alt")))
        if tag in ("script", "style", "title"):
            self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self.inside:
            self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "title":
            self.page.title += data
        elif not self.inside:
            self.page.words.append(data)


@cache
def read(path: Path) -> Page:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.page


def pages(html: Path) -> list[Path]:
    return [p for p in sorted(html.rglob("*.html")) if "_static" not in p.parts]


def contents() -> list[str]:
    """Every page that the table of contents names."""
    table = yaml.safe_load((ROOT / "_toc.yml").read_text())
    found = [table["root"]]
    for part in table["parts"]:
        for chapter in part["chapters"]:
            found += [chapter["file"], *(s["file"] for s in chapter.get("sections", []))]
    return found


@pytest.mark.parametrize("name", contents())
def test_a_page_of_the_contents_exists_and_describes_itself(name: str, html: Path) -> None:
    path = html / f"{name}.html"
    assert path.is_file()
    assert read(path).title.strip()
    if name.startswith("book/"):
        text = path.read_text(encoding="utf-8")
        assert re.search(r'<meta[^>]*content="[^"]{10,}"[^>]*name="description"', text), (
            f"{name}.md needs a description: front matter myst: html_meta"
        )


def test_links_and_anchors_lead_somewhere(html: Path) -> None:
    broken = []
    for path in pages(html):
        for link in read(path).links + read(path).loads:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("//"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                broken.append(f"{path.relative_to(html)}: {link}")
            elif (
                parts.fragment
                and target.suffix == ".html"
                and path.name not in GENERATED
                and unquote(parts.fragment) not in read(target).ids
            ):
                broken.append(f"{path.relative_to(html)}: no anchor {link}")
    assert not broken, "\n".join(broken)


def test_every_image_says_what_is_to_be_seen(html: Path) -> None:
    silent = []
    for path in pages(html):
        for source, alt in read(path).images:
            own = source.split("/")[-1].split(".")[0]
            telling = alt is not None and len(alt.strip()) >= 15 and own not in alt
            if not telling and "logo" not in source:
                silent.append(f"{path.relative_to(html)}: {source} alt={alt!r}")
    assert not silent, "\n".join(silent)


def test_nothing_is_loaded_from_outside(html: Path) -> None:
    outside = [
        f"{path.relative_to(html)}: {link}"
        for path in pages(html)
        for link in read(path).loads
        if re.match(r"(\w+:)?//", link)
    ]
    assert not outside, "\n".join(outside)
    for style in html.rglob("*.css"):
        found = re.findall(r"@import[^;]*//[^;]*|url\(['\"]?(?:https?:)?//[^)]*", style.read_text())
        assert not found, f"{style.relative_to(html)}: {found[0]}"


def test_no_path_of_this_machine(html: Path) -> None:
    assert build.absolute_paths(html) == []


def test_a_path_of_this_machine_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(f"<p>saved to {ROOT.as_posix()}/x.png</p>")
    assert len(build.absolute_paths(tmp_path)) == 1


def test_no_words_about_how_it_was_made(html: Path) -> None:
    found = []
    for path in pages(html):
        for text in read(path).words:
            if match := ARRANGEMENTS.search(text):
                found.append(f"{path.relative_to(html)}: {match[0]!r} in {text.strip()[:80]!r}")
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        if match := ARRANGEMENTS.search((ROOT / name).read_text(encoding="utf-8")):
            found.append(f"{name}: {match[0]!r}")
    assert not found, "\n".join(found)


def test_every_labelled_equation_is_checked(html: Path) -> None:
    known = checks(ROOT / "tests" / "equations")
    labels = set()
    for path in pages(html):
        labels |= {i.removeprefix("equation-") for i in read(path).ids if i.startswith("equation-")}
    missing = sorted(label for label in labels if not checks_of(label, known))
    assert not missing, f"no check in tests/equations for: {', '.join(missing)}"


def test_the_vendored_libraries_are_as_listed() -> None:
    import json

    assert vendor.problems(json.loads(vendor.LIST.read_text())) == []


def test_heavy_scripts_only_where_they_are_used(html: Path) -> None:
    for path in pages(html):
        text = path.read_text(encoding="utf-8")
        widgets = "application/vnd.jupyter.widget-view+json" in text
        assert ("widgets/embed.js" in text) == widgets, path.name
        if 'class="math' not in text and not widgets:
            assert "tex-chtml-full" not in text, path.name
