"""A browser on the built book, with the network closed."""

from __future__ import annotations

import contextlib
import functools
import http.server
import shutil
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder over http on a free port of this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def chromium_path() -> str | None:
    return next((p for p in map(shutil.which, ("chromium", "chromium-browser")) if p), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    program = chromium_path()
    if program is None:
        warnings.warn("NO CHROMIUM: the book was not looked at in a browser", stacklevel=1)
        pytest.skip("NO CHROMIUM HERE: install Debian's package `chromium` to look at the book")
    if not (HTML / "index.html").is_file():
        pytest.fail("there is no built book: run `make book` first")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="session")
def address() -> Iterator[dict[str, str]]:
    with served(HTML) as http_address:
        yield {"http": http_address, "file": HTML.as_uri()}
