"""The house: which room may import which, how long a file may grow, and that light verbs stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lorakiln"
BELOW = {
    "base": 0,
    "diffusion": 1,
    **dict.fromkeys(["data", "families", "adapters", "optim", "curate", "tag", "exchange"], 2),
}
FLOORS = BELOW | dict.fromkeys(["train", "sample", "judge", "advise"], 3) | {"runs": 4}
FLOORS |= dict.fromkeys(["cli", "studio", "notebook", "lab"], 5)
EXCEPTIONS = {("judge", "sample"), ("cli", "lab")}
WITHOUT_TORCH = {"base", "advise"}


def imports_of(path: Path) -> set[str]:
    """Full names of the modules that a file imports, at the top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: write imports out in full"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "lorakiln" and len(parts) > 1 and parts[1] in FLOORS else None


FILES = sorted(PACKAGE.rglob("*.py"))


def forbidden(room: str, other: str) -> bool:
    if room == other or (room, other) in EXCEPTIONS:
        return False
    return FLOORS[other] >= FLOORS[room]


def test_a_forbidden_import_would_be_noticed():
    assert forbidden("data", "families") and forbidden("base", "diffusion") and forbidden("train", "runs")
    assert not forbidden("train", "data") and not forbidden("judge", "sample")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_stands_only_on_the_floors_below(path):
    room = path.relative_to(PACKAGE).parts[0]
    if room not in FLOORS:  # lorakiln/__init__.py and __main__.py
        return
    modules = imports_of(path)
    wrong = {module for module in modules if (other := room_of(module)) and forbidden(room, other)}
    assert not wrong, f"{path.relative_to(ROOT)} reaches up or sideways: {sorted(wrong)}"
    if room in WITHOUT_TORCH:
        assert not {module for module in modules if module.split(".")[0] in ("torch", "diffusers", "transformers")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_opens_with_a_sentence_and_stays_readable(path):
    source = path.read_text(encoding="utf-8")
    if source.strip():
        assert ast.get_docstring(ast.parse(source)), f"{path.relative_to(ROOT)} has no opening sentence"
    assert source.count("\n") <= 420, f"{path.relative_to(ROOT)} is too long: which noun is missing?"


def test_help_answers_without_importing_torch():
    code = "import sys\nfrom lorakiln.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules), 'heavy import'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_nothing_in_the_package_draws_from_a_global_stream():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                call = ast.unparse(node.func)
                assert call not in ("torch.manual_seed", "random.seed", "np.random.seed", "random.random"), path
                if call in ("torch.randn", "torch.rand", "torch.randint", "torch.randperm"):
                    assert any(word.arg == "generator" for word in node.keywords), f"{path}: {ast.unparse(node)}"
