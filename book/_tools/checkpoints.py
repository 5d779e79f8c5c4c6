"""Write README's table of checkpoints from the .json files beside them.

python book/_tools/checkpoints.py            rewrite the table in README.md
python book/_tools/checkpoints.py --check    say whether it is as written, change nothing
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
README, CHECKPOINTS = ROOT / "README.md", ROOT / "ddpm_lite" / "checkpoints"
START, END = "<!-- checkpoints: written by book/_tools/checkpoints.py -->", "<!-- /checkpoints -->"
KINDS = {"GatedPixelCNN": "gated PixelCNN", "Denoiser": "U-Net, diffusion", "Ruler": "classifier"}
HEAD = [
    "| Model | Parameters | Bits/dim on test | Fréchet distance | Read with > 0.9 | Measured by |",
    "|---|---|---|---|---|---|",
]


def row(name: str, about: dict[str, Any]) -> str:
    """One checkpoint: what it is and what `ddpm-lite evaluate --model NAME` measures again."""
    figures = about.get("metrics") or {}
    cells = [KINDS[about["spec"]["class"]], f"{about['parameters']:,}"]
    cells += [_bits(figures.get("likelihood")), *_quality(figures.get("quality"))]
    cells.append(f"`ddpm-lite evaluate --model {name}`")
    return f"| {' | '.join(cells)} |"


def _bits(found: dict[str, Any] | None) -> str:
    if not found:
        return "–"
    sign = {"exact": "", "bound": "≤ "}[found["kind"]]
    return f"{sign}{found['value']:.3f} ± {found['standard_error']:.3f} (n = {found['n']:,})"


def _quality(found: dict[str, Any] | None) -> list[str]:
    if not found:
        return ["–", "–"]
    near = found["frechet"]
    low, high = near["interval"]
    distance = f"{near['value']:.2f} [{low:.2f}, {high:.2f}], real {near['floor']:.2f}"
    if "confident" not in found:
        return [distance, "–"]
    sure = found["confident"]
    return [distance, f"{100 * sure['value']:.0f} %, real {100 * sure['floor']:.0f} %"]


def table() -> str:
    """The whole table; rulers, which measure and are not measured, are left out."""
    rows = []
    for path in sorted(CHECKPOINTS.glob("*.json"), key=lambda p: p.stem):
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["spec"]["class"] != "Ruler":
            rows.append(row(path.stem, about))
    return "\n".join([START, "", *HEAD, *rows, "", END])


def written(readme: str) -> str:
    """`readme` with the table of today between its two marks."""
    before, mark, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise SystemExit(f"README.md needs the lines {START} and {END}")
    return before + table() + after


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    now = README.read_text(encoding="utf-8")
    wanted = written(now)
    if options.check:
        print("as written" if now == wanted else "README's table is out of date: run `make table`")
        return int(now != wanted)
    aside = README.with_suffix(".part")
    aside.write_text(wanted, encoding="utf-8")
    os.replace(aside, README)
    return 0


if __name__ == "__main__":
    sys.exit(main())
