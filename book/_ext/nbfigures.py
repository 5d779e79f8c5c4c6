"""The `{nbfigure}` directive: a figure of the executed notebook, where the prose speaks of it.

    ```{nbfigure} fig-03-spectrum
    ```

The picture, its alternative text and its caption are the notebook's own (cell metadata `mystnb`).
The label belongs to the page, so {numref} leads to the picture beside the text; in the notebook,
staged for the book, the same figure is called `cell-fig-03-spectrum`. An unknown name is a warning,
and warnings fail the build.
"""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)


@cache
def pictures(folder: Path) -> dict[str, tuple[bytes, str, str]]:
    """Figure name -> (PNG, alternative text, caption), of all executed notebooks in a folder."""
    found = {}
    for path in sorted(folder.glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            about = cell["metadata"].get("mystnb", {})
            name = about.get("figure", {}).get("name")
            drawn = [o["data"]["image/png"] for o in cell.get("outputs", []) if _is_png(o)]
            if name and drawn:
                png = base64.b64decode("".join(drawn[0]))
                found[name] = (png, about["image"]["alt"], about["figure"]["caption"])
    return found


def _is_png(output: dict[str, Any]) -> bool:
    return "image/png" in output.get("data", {})


class NotebookFigure(SphinxDirective):
    """One argument: the figure's name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name, source = self.arguments[0], Path(self.env.srcdir)
        known = pictures(source / "notebooks")
        if f"cell-{name}" not in known:
            logger.warning("no notebook draws a figure %r", name, location=self.get_location())
            return []
        png, alt, caption = known[f"cell-{name}"]
        path = source / "book" / "_figures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png)
        image = nodes.image(uri=f"/book/_figures/{path.name}", alt=alt)
        text, messages = self.state.inline_text(caption, self.lineno)
        figure = nodes.figure("", image, nodes.caption("", "", *text), classes=["from-notebook"])
        self.options["name"] = name
        self.add_name(figure)
        return [figure, *messages]


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("nbfigure", NotebookFigure)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
