"""Imports point down only, and simulator hosts need no torch (DESIGN.md, section 2)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Every file and folder right below envs/ and trainer/ has its line: a new one needs a decision.
LAYERS = {
    "envs.bridge": 1,
    "envs.gym": 1,
    "envs.testing": 1,
    "envs.fleet": 1,
    "envs.in_process": 1,
    "envs.simulators": 1,
    "envs.graph_policy": 1,
    "envs.lanes": 1,
    "envs.registry": 1,
    "envs.spec": 0,
    "envs.batch": 0,
    "envs.errors": 0,
    "envs.tls": 0,
    "envs.folder_names": 0,
    "trainer.cli": 5,
    "trainer.run": 5,
    "trainer.commands": 5,
    "trainer.control": 5,
    "trainer.listening": 5,
    "trainer.certificate": 5,
    "trainer.control_server": 5,
    "trainer.control_metrics": 5,
    "trainer.placement": 5,
    "trainer.control_health": 5,
    "trainer.run_report": 5,
    "trainer.speed_watch": 5,
    "trainer.simulator_count": 5,
    "trainer.profiling": 5,
    "trainer.bottleneck": 5,
    "trainer.run_start": 5,
    "trainer.updates": 5,
    "trainer.torch_vector": 5,
    "trainer.run_storage": 5,
    "trainer.background_save": 5,
    "trainer.run_moment": 5,
    "trainer.run_end": 5,
    "trainer.checkpoint_schedule": 5,
    "trainer.checkpoint_evaluation": 5,
    "trainer.evaluation": 5,
    "trainer.simulators": 5,
    "trainer.scene": 5,
    "trainer.doctor": 5,
    "trainer.reporter": 5,
    "trainer.trackers": 5,
    "trainer.stopping": 5,
    "trainer.behavior": 4,
    "trainer.behavior_match": 4,
    "trainer.behavior_update": 4,
    "trainer.divergence": 4,
    "trainer.memory_budget": 4,
    "trainer.available_memory": 0,
    "trainer.live_settings": 4,
    "trainer.stop_conditions": 4,
    "trainer.actor": 4,
    "trainer.compiled_policy": 4,
    "trainer.checkpoint": 4,
    "trainer.mlagents": 4,
    "trainer.checkpoint_manifest": 4,
    "trainer.saved_policy": 4,
    "trainer.finite_policy": 4,
    "trainer.training_status": 4,
    "trainer.run_folder": 4,
    "trainer.onnx_policy": 4,
    "trainer.onnx_graph": 4,
    "trainer.onnx_body": 4,
    "trainer.onnx_nodes": 4,
    "trainer.export_onnx": 4,
    "trainer.unity_model": 4,
    "trainer.unity_checks": 4,
    "trainer.algos": 3,
    "trainer.rewards": 3,
    "trainer.nn": 2,
    "trainer.rollout": 2,
    "trainer.metrics": 2,
    "trainer.description": 2,
    "trainer.device": 2,
    "trainer.timers": 0,
    "trainer.speedometer": 0,
    "trainer.machine": 0,
    "trainer.span_trace": 0,
    "trainer.allocator": 0,
    "trainer.atomic_file": 0,
    "trainer.event_log": 0,
    "trainer.run_lock": 0,
    "trainer.control_client": 0,
    "trainer.config": 0,
    "trainer.schedules": 0,
}
THIRD_PARTY = {
    "torch": ["trainer"],
    # The bridge has its own; elsewhere the tests' referees.
    "grpc": ["trainer.control_health"],
    "grpc_health": ["trainer.control_health"],
    "grpc_reflection": ["trainer.control_health"],
    "hpack": ["envs.bridge"],
    "google": ["envs.bridge"],
    "gymnasium": ["envs.gym"],
    "mujoco": ["envs.gym.packages"],
    "pydantic": ["trainer.config"],
    "yaml": ["trainer.config"],
    "onnx": [
        "trainer.export_onnx",
        "trainer.onnx_graph",
        "trainer.onnx_nodes",
        "trainer.unity_model",
    ],
    "onnxruntime": ["envs.graph_policy", "trainer.onnx_policy"],
    "PIL": ["envs.bridge.images"],
    "cryptography": ["trainer.certificate"],
    "prometheus_client": ["trainer.control_metrics"],
    "rich": ["trainer.cli", "trainer.run"],
    "mlflow": ["trainer.trackers.mlflow_tracker"],
    "wandb": ["trainer.trackers.wandb_tracker"],
}
TORCH_FREE = ("envs", "trainer.config", "trainer.schedules")
NUMPY_FREE = ("trainer.config", "trainer.schedules")  # `ppo-train check` answers at once


def home_of(module: str) -> str:
    """Gives the line of LAYERS that a module, or a name in it, belongs to."""
    name = ".".join(module.split(".")[:2])
    assert name in LAYERS, f"{name} belongs to no layer: add it to LAYERS"
    return name


def modules() -> list[tuple[str, Path]]:
    files = [*ROOT.glob("envs/**/*.py"), *ROOT.glob("trainer/**/*.py")]
    named = []
    for file in sorted(files):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if parts[1:] == ("__init__",):
            assert not file.read_text(), f"{file}: a package without a layer holds no code"
            continue
        named.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), file))
    return named


def test_every_line_of_the_layers_is_a_file_or_a_folder() -> None:
    assert {home_of(module) for module, _ in modules()} == LAYERS.keys()


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
    home = home_of(module)
    for imported in imports_of(file):
        top = imported.split(".")[0]
        if top in {"envs", "trainer"}:
            target = home_of(imported)
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
        if top == "numpy":
            assert not module.startswith(NUMPY_FREE), f"{module} must do without numpy"


def test_algorithm_files_never_import_each_other() -> None:
    shared = {"base", "estimators", "natural_gradient", "optimizers", "trace"}
    for module, file in modules():
        if not module.startswith("trainer.algos."):
            continue
        for imported in imports_of(file):
            if imported.startswith("trainer.algos.") and module != "trainer.algos.registry":
                assert imported.split(".")[2] in shared, f"{module} imports {imported}"


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        ("envs.fleet", ["torch"]),
        ("envs.gym.agent", ["torch"]),
        ("trainer.config.load", ["torch", "numpy"]),
        ("trainer.cli.live", ["torch", "numpy"]),
        ("trainer.cli.set_values", ["torch", "numpy"]),
        ("trainer.schedules", ["torch", "numpy"]),
        ("trainer.trackers.mirror", ["torch", "numpy", "mlflow", "wandb"]),
    ],
)
def test_package_imports_without(package: str, absent: list[str]) -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); import {package}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
