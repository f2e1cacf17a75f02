"""Imports point down only, and simulator hosts need no torch (DESIGN.md, section 2)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# The longest matching prefix decides; a module may import its own layer's neighbours where listed.
LAYERS = {
    "envs": 1,
    "envs.spec": 0,
    "envs.batch": 0,
    "envs.errors": 0,
    "trainer": 5,
    "trainer.cli": 5,
    "trainer.run": 5,
    "trainer.behavior": 4,
    "trainer.actor": 4,
    "trainer.checkpoint": 4,
    "trainer.saved_policy": 4,
    "trainer.training_status": 4,
    "trainer.run_folder": 4,
    "trainer.onnx_policy": 4,
    "trainer.onnx_graph": 4,
    "trainer.export_onnx": 4,
    "trainer.algos": 3,
    "trainer.rewards": 3,
    "trainer.nn": 2,
    "trainer.rollout": 2,
    "trainer.metrics": 2,
    "trainer.device": 2,
    "trainer.timers": 0,
    "trainer.speedometer": 0,
    "trainer.atomic_file": 0,
    "trainer.config": 0,
    "trainer.schedules": 0,
}
THIRD_PARTY = {
    "torch": ["trainer"],
    "grpc": ["envs.bridge"],
    "google": ["envs.bridge"],
    "gymnasium": ["envs.gym"],
    "pydantic": ["trainer.config"],
    "yaml": ["trainer.config"],
    "onnx": ["trainer.export_onnx", "trainer.onnx_graph"],
    "onnxruntime": ["trainer.onnx_policy"],
    "rich": ["trainer.cli", "trainer.run"],
}
TORCH_FREE = ("envs", "trainer.config", "trainer.schedules")


def longest_prefix(module: str) -> str:
    parts = module.split(".")
    for size in range(len(parts), 0, -1):
        if (name := ".".join(parts[:size])) in LAYERS:
            return name
    raise AssertionError(f"{module} belongs to no layer")


def modules() -> list[tuple[str, Path]]:
    files = [*ROOT.glob("envs/**/*.py"), *ROOT.glob("trainer/**/*.py")]
    named = []
    for file in sorted(files):
        parts = file.relative_to(ROOT).with_suffix("").parts
        named.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), file))
    return named


def imports_of(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            assert node.module is not None
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize(("module", "file"), modules(), ids=lambda value: str(value))
def test_module_imports_only_its_own_layer_and_below(module: str, file: Path) -> None:
    home = longest_prefix(module)
    for imported in imports_of(file):
        top = imported.split(".")[0]
        if top in {"envs", "trainer"}:
            target = longest_prefix(imported)
            assert LAYERS[target] <= LAYERS[home], f"{module} imports {imported}, a layer above"
            if home == "trainer.algos":
                assert target != "trainer.rewards", f"{module} imports a reward signal"
        allowed = THIRD_PARTY.get(top)
        if allowed is not None:
            assert any(module == a or module.startswith(a + ".") for a in allowed), (
                f"{module} imports {imported}; only {allowed} may"
            )
        if top == "torch":
            assert not module.startswith(TORCH_FREE), f"{module} must do without torch"


def test_algorithm_files_never_import_each_other() -> None:
    shared = {"base", "estimators", "trace"}
    for module, file in modules():
        if not module.startswith("trainer.algos."):
            continue
        for imported in imports_of(file):
            if imported.startswith("trainer.algos.") and module != "trainer.algos.registry":
                assert imported.split(".")[2] in shared, f"{module} imports {imported}"


@pytest.mark.parametrize("package", ["envs.fleet", "envs.gym.agent", "trainer.config.load"])
def test_package_imports_without_torch(package: str) -> None:
    code = f"import sys; sys.modules['torch'] = None; import {package}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
