"""Load the heavy scripts only on the pages that use them, and load them last."""

from __future__ import annotations

from typing import Any

from docutils import nodes

WIDGET = "application/vnd.jupyter.widget-view+json"


def _maths_for_widgets(app: Any, page: str, template: str, context: Any, doctree: Any) -> None:
    """The words beside a slider may hold maths, where the page itself has none."""
    if WIDGET in str(context.get("body", "")):
        app.env.get_domain("math").data["has_equations"][page] = True


def _trim(app: Any, page: str, template: str, context: Any, doctree: Any) -> None:
    body = str(context.get("body", ""))
    widgets = WIDGET in body
    maths = widgets or (
        doctree is not None
        and any(True for kind in (nodes.math, nodes.math_block) for _ in doctree.findall(kind))
    )
    kept = []
    for script in context["script_files"]:
        name = str(getattr(script, "filename", script) or "")
        if ("mathjax" in name and not maths) or ("widgets/embed" in name and not widgets):
            continue
        kept.append(script)
    context["script_files"] = kept


def setup(app: Any) -> dict[str, Any]:
    app.connect("html-page-context", _maths_for_widgets, priority=100)
    app.connect("html-page-context", _trim, priority=950)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
