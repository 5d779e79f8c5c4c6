"""Every page of the built book, opened as readers open it: from a folder and over http."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
SETTLED = "() => window.MathJax && MathJax.startup ? MathJax.startup.promise : null"


def names() -> list[str]:
    found = [p.relative_to(HTML).as_posix() for p in sorted(HTML.rglob("*.html"))]
    # index.html only leads on to the first page, and has its own test
    return [n for n in found if n != "index.html" and not n.startswith(("_static", "_sources"))]


def troubles(context: Any, base: str, name: str) -> list[str]:
    """Console errors, page errors, requests that leave, and text wider than the screen."""
    page, said = context.new_page(), []

    def asked(request: Any) -> None:
        if not request.url.startswith((base, "data:", "blob:", "about:")):
            said.append(f"external request {request.url}")

    page.on("request", asked)
    page.on("console", lambda m: said.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda error: said.append(f"page error: {error}"))
    page.goto(f"{base}/{name}")
    page.evaluate(SETTLED)
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 900})
        over = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
        if over > 1:
            said.append(f"scrolls sideways by {over} px at {width}")
    if page.locator("mjx-merror").count():
        said.append(f"maths error: {page.locator('mjx-merror').first.text_content()}")
    page.close()
    return [f"{name}: {line}" for line in said]


@pytest.mark.parametrize(("scheme", "theme"), [("file", "light"), ("http", "dark")])
def test_every_page_is_quiet_and_fits(
    browser: Any, address: dict[str, str], scheme: str, theme: str
) -> None:
    context = browser.new_context(color_scheme=theme)
    context.route(
        lambda url: not url.startswith((address["http"], "file:", "data:", "blob:")),
        lambda route: route.abort(),
    )
    found = [t for name in names() for t in troubles(context, address[scheme], name)]
    context.close()
    assert not found, "\n".join(found)


def test_a_trouble_would_be_seen(browser: Any, tmp_path: Path) -> None:
    script = "<script>console.error('x'); fetch('https://example.org/'); undefined_name</script>"
    (tmp_path / "page.html").write_text(f"<div style='width:3000px'>wide</div>{script}")
    context = browser.new_context()
    context.route("https://**", lambda route: route.abort())
    found = "\n".join(troubles(context, tmp_path.as_uri(), "page.html"))
    context.close()
    for expected in ("console: x", "external request", "page error", "sideways"):
        assert expected in found, expected


def test_the_front_door_leads_to_the_first_page(browser: Any, address: dict[str, str]) -> None:
    page = browser.new_page()
    page.goto(f"{address['file']}/index.html")
    page.wait_for_url("**/book/intro.html", timeout=10_000)
    page.close()


def test_widgets_come_alive_without_a_kernel(browser: Any, address: dict[str, str]) -> None:
    for name in names():
        if "vnd.jupyter.widget-view+json" in (HTML / name).read_text(encoding="utf-8"):
            page = browser.new_page()
            page.goto(f"{address['file']}/{name}")
            page.wait_for_selector(".jupyter-widgets", timeout=20_000)
            unnamed = page.locator(".noUi-handle:not([aria-label])").count()
            page.close()
            assert unnamed == 0, f"{name}: {unnamed} sliders without a name"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_tables_of_a_chapter_fit_a_phone(browser: Any, address: dict[str, str], theme: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=theme)
    wide, verdicts = [], 0
    for name in names():
        if name.startswith("book/0") or name == "book/intro.html":
            page.goto(f"{address['file']}/{name}")
            page.evaluate(SETTLED)
            verdicts += page.locator("table.verdicts").count()
            boxes = page.locator(".pst-scrollable-table-container")
            over = boxes.evaluate_all("boxes => boxes.map(b => b.scrollWidth - b.clientWidth)")
            wide += [f"{name}: table {i} by {by} px" for i, by in enumerate(over) if by > 1]
    page.close()
    assert verdicts == 5
    assert not wide, wide


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_player_shows_whole_frames(browser: Any, address: dict[str, str], theme: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=theme)
    page.goto(f"{address['file']}/notebooks/01_factorization.html")
    sheets = page.locator(".player img.sheet")
    assert sheets.count()
    # a frame around the picture would shift every frame of the film in its window
    padding = sheets.evaluate_all("images => images.map(i => getComputedStyle(i).padding)")
    page.close()
    assert set(padding) == {"0px"}


def test_search_finds_a_page(browser: Any, address: dict[str, str]) -> None:
    page = browser.new_page()
    page.goto(f"{address['file']}/search.html?q=notation")
    page.wait_for_selector("#search-results li a", timeout=10_000)
    assert page.locator("#search-results li a").count() >= 1
    page.close()
