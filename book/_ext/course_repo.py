"""Repository buttons and launch links of the book, from `course.toml` and nowhere else."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Course:
    """Where the course lives. An empty `repository` means: nowhere public yet, so no links."""

    repository: str
    branch: str
    tag: str

    def blob(self, path: str) -> str:
        """Address of a file of the repository at the course's tag."""
        return f"{self.repository}/blob/{self.tag}/{path}"

    def colab(self, notebook: str) -> str:
        """Address that opens `notebooks/<notebook>` in Colab, or "" where there is none."""
        host, _, name = self.repository.partition("github.com/")
        if not host or not name:
            return ""
        return (
            f"https://colab.research.google.com/github/{name}/blob/{self.tag}/notebooks/{notebook}"
        )


def find_root(start: Path) -> Path:
    """The repository's top folder: the nearest one upwards that holds `pyproject.toml`."""
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file():
            return folder
    raise FileNotFoundError(f"no pyproject.toml in {start} or above it")


def read(folder: Path) -> Course:
    """Read `folder/course.toml`."""
    table = tomllib.loads((folder / "course.toml").read_text(encoding="utf-8"))
    return Course(
        table["repository"].rstrip("/").removesuffix(".git"), table["branch"], table["tag"]
    )


def _configure(app: Any, config: Any) -> None:
    course = read(find_root(Path(app.confdir)))
    options = dict(config.html_theme_options)
    # the theme's own defaults name somebody else's repository: every key is set here
    options.update(
        repository_url=course.repository,
        repository_branch=course.branch,
        path_to_docs="",
        use_repository_button=bool(course.repository),
        use_issues_button=bool(course.repository),
        use_edit_page_button=False,
        launch_buttons={"colab_url": "https://colab.research.google.com"}
        if course.colab("x")
        else {},
    )
    config.html_theme_options = options


def _launch_at_tag(app: Any, page: str, template: str, context: Any, doctree: Any) -> None:
    """The theme launches the branch; a class needs the release that its notebook names."""
    course = read(find_root(Path(app.confdir)))
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if "colab.research.google.com" in str(button.get("url", "")):
                button["url"] = course.colab(page.removeprefix("notebooks/") + ".ipynb")


def setup(app: Any) -> dict[str, Any]:
    app.connect("config-inited", _configure, priority=900)
    app.connect("html-page-context", _launch_at_tag, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
