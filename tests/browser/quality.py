"""`make quality`: accessibility (axe) on every page in both themes, Lighthouse on three pages.

Needs npm and Chromium; fetches axe-core and lighthouse through npm into `_build/quality`. Exits 1
where axe finds a violation or a Lighthouse score is under 0.9.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

from conftest import FLAGS, HTML, ROOT, chromium_path, served
from test_browser import SETTLED, names

FOLDER = ROOT / "_build" / "quality"
NEEDED = {"axe-core": "4.10.3", "lighthouse": "12.6.1"}
PAGES = ("book/intro.html", "book/01_factorization.html", "notebooks/01_factorization.html")
KINDS = ("performance", "accessibility", "best-practices")


def axe(program: str) -> int:
    from playwright.sync_api import sync_playwright

    script = (FOLDER / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")
    count = 0
    with sync_playwright() as playwright, served(HTML) as base:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        for theme in ("light", "dark"):
            page = browser.new_context(color_scheme=theme).new_page()
            for name in names():
                page.goto(f"{base}/{name}")
                page.evaluate(SETTLED)
                page.wait_for_timeout(300)
                page.evaluate(script)
                for found in page.evaluate("() => axe.run()")["violations"]:
                    count += 1
                    where = found["nodes"][0]["target"]
                    print(f"  {name} ({theme}): {found['id']} x{len(found['nodes'])} at {where}")
        browser.close()
    print(f"axe: {count} violations")
    return count


def lighthouse(program: str) -> int:
    low = 0
    with served(HTML) as base:
        for name in PAGES:
            out = FOLDER / "lighthouse.json"
            command = [FOLDER / "node_modules/.bin/lighthouse", f"{base}/{name}", "--quiet"]
            command += ["--output=json", f"--output-path={out}"]
            command += [
                f"--only-categories={','.join(KINDS)}",
                f"--chrome-flags={' '.join(FLAGS)} --headless=new",
            ]
            subprocess.run(command, check=True, env=os.environ | {"CHROME_PATH": program})
            scores = {k: v["score"] for k, v in json.loads(out.read_text())["categories"].items()}
            low += any((score or 0) < 0.9 for score in scores.values())
            print(f"  {name}: " + ", ".join(f"{k} {v:.2f}" for k, v in scores.items()))
    return low


def main() -> int:
    program, npm = chromium_path(), shutil.which("npm")
    if program is None or npm is None:
        print("needs npm and Chromium; neither is needed to read the book", file=sys.stderr)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = [f"{name}@{version}" for name, version in NEEDED.items()]
    subprocess.run([npm, "install", "--silent", "--prefix", FOLDER, *wanted], check=True)
    return 1 if axe(program) + lighthouse(program) else 0


if __name__ == "__main__":
    sys.exit(main())
