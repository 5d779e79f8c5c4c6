"""The package as a whole: what it exports, how light it is, and that its layers point down."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ddpm_lite

ROOT = Path(ddpm_lite.__file__).parent
LAYERS = [
    {
        "data",
        "_readers",
        "_torchvision",
        "schedules",
        "metrics",
        "baselines",
        "cost",
        "files",
        "provenance",
        "version",
        "_bootstrap",
        "_container",
        "require",
    },
    {"diffusion", "unet", "ruler", "draws", "ar.base", "ar.heads", "ar.sampling", "exact"},
    {
        "samplers",
        "guidance",
        "inpaint",
        "ar",
        "ar.dense",
        "ar.conv",
        "ar.gated",
        "ar.transformer",
        "specs",
    },
    {"train", "losses", "fit", "codec", "checkpoint", "evaluate"},
    {"cli", "viz", "record", "checks", "grading", "__main__", ""},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def level_of(module: str) -> int:
    while module and module not in LEVEL:
        module = module.rpartition(".")[0]
    return LEVEL[module]


def imports_of(path: Path, module: str) -> set[str]:
    """Modules of this package that a file imports, as dotted names below ddpm_lite."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    package = [part for part in package if part]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(a.name.startswith("ddpm_lite") for a in node.names), f"relative, {path}"
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level == 0:  # an import from ddpm_lite by its name would escape the layers
            assert (node.module or "").split(".")[0] != "ddpm_lite", f"relative, please: {path}"
            continue
        base = package[: len(package) - node.level + 1]
        target = ".".join([*base, *(node.module or "").split(".")]).strip(".")
        for (
            alias
        ) in node.names:  # `from . import files` names modules, `from .data import x` does not
            inner = f"{target}.{alias.name}".strip(".")
            is_module = (ROOT / Path(*inner.split("."))).with_suffix(".py").exists() or (
                ROOT / Path(*inner.split(".")) / "__init__.py"
            ).exists()
            found.add(inner if is_module else target)
    return found - {""}


FILES = sorted(ROOT.rglob("*.py"))
GRAPH = {module_of(path): imports_of(path, module_of(path)) for path in FILES}


def test_every_module_has_a_layer() -> None:
    missing = {m for m in GRAPH if m.split(".")[0] not in LEVEL and m not in LEVEL}
    assert not missing, f"say in which layer these belong: {missing}"


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_imports_point_down_or_sideways(module: str) -> None:
    up = {m for m in GRAPH[module] if level_of(m) > level_of(module)}
    assert not up, f"{module or 'ddpm_lite'} imports from a layer above: {up}"


def test_no_circle() -> None:
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail, module])
        if module not in done:
            for target in GRAPH.get(module, set()):
                visit(target, (*trail, module))
            done.add(module)

    for module in GRAPH:
        visit(module, ())


def test_seams_are_clean() -> None:
    assert not {"unet", "ar"} & {m.split(".")[0] for m in GRAPH["samplers"]}
    assert not any(m.startswith("schedules") for m in GRAPH["unet"])


def test_exports_are_sorted_and_shadow_no_module() -> None:
    # constants, then classes, then functions, each by name (the order ruff keeps)
    kind = {
        name: 0 if name.isupper() else 1 if name[0].isupper() else 2 for name in ddpm_lite.__all__
    }
    assert ddpm_lite.__all__ == sorted(ddpm_lite.__all__, key=lambda name: (kind[name], name))
    assert all(hasattr(ddpm_lite, name) for name in ddpm_lite.__all__)
    modules = {path.stem for path in ROOT.glob("*.py")} | {p.name for p in ROOT.iterdir()}
    assert not modules & set(ddpm_lite.__all__)


def test_import_is_light() -> None:
    heavy = ["torchvision", "matplotlib", "sklearn", "scipy", "PIL", "safetensors", "IPython"]
    code = f"import sys, ddpm_lite; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_modules_are_short_enough_to_hold_in_mind() -> None:
    long = {module_of(p): n for p in FILES if (n := len(p.read_text().splitlines())) > 250}
    assert not long, f"split these: {long}"


def test_every_public_function_says_what_it_does() -> None:
    silent = [
        f"{module_of(path)}.{node.name}"
        for path in FILES
        if path.parent.name != "cli"  # a command speaks through its help
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not silent


def test_one_version_everywhere() -> None:
    top = ROOT.parent
    if not (top / "CITATION.cff").exists():
        pytest.skip("not a checkout")
    assert f"version: {ddpm_lite.__version__}" in (top / "CITATION.cff").read_text()
    assert f"## [{ddpm_lite.__version__}]" in (top / "CHANGELOG.md").read_text()
