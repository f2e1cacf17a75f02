"""What a run says it will hold, against what the process then holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sensor_specs import behavior as behavior_spec
from sensor_specs import image, vector
from trainer_process import Trainer, tiny_build, write_yaml

from trainer.available_memory import Available
from trainer.config.settings import BehaviorSettings, NetworkSettings
from trainer.memory_budget import MemoryBudget, activation_bytes, memory_budget, shortage, size
from trainer.nn.actor_critic import ActorCritic
from trainer.rollout.steplog import StepLog

MB = 10**6


def status_mb(pid: int, field: str) -> float:
    (found,) = re.findall(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found) * 1024 / MB


# Both have a rollout of more than 200 MB, beside which what libraries take while a process warms up
# (some 30 MB) is little.
LARGE = {
    "vector": (
        ["--observations", "243", "--continuous", "39", "--agents", "500"],
        {"batch_size": 2048, "buffer_size": 120_000},
    ),
    "camera": (
        ["--observations", "0", "--image", "64x64x3", "--continuous", "2", "--agents", "50"],
        {"batch_size": 512, "buffer_size": 10_000},
    ),
}


@pytest.mark.parametrize("kind", LARGE)
def test_process_grows_by_what_it_says_at_the_start(kind: str, tmp_path: Path) -> None:
    words, hyperparameters = LARGE[kind]
    settings = {
        "behaviors": {
            "Null": {
                "trainer_type": "ppo",
                "hyperparameters": {**hyperparameters, "num_epoch": 2},
                "network_settings": {"normalize": True, "hidden_units": 64, "num_layers": 1},
                "max_steps": 10**9,
                "summary_freq": hyperparameters["buffer_size"] * 9 // 8,
            }
        },
        "torch_settings": {"num_threads": 1},
    }
    path = write_yaml(tmp_path / "settings.yaml", settings)
    build = tiny_build(tmp_path, *words, "--episode-length", "200", program="envs.testing.null")
    with Trainer(path, "--env", build, "--run-id", "large", cwd=tmp_path) as trainer:
        said = trainer.wait_for(r"this run will hold ([\d.]+) (MB|GB) of rollouts")
        pid = trainer.process.pid
        before = status_mb(pid, "VmRSS")
        trainer.wait_for(r"Null\. Step: \d+\.")  # behind the first update
        grown = status_mb(pid, "VmHWM") - before
    expected = float(said[1]) * (1000 if said[2] == "GB" else 1)
    assert expected > 200
    assert grown == pytest.approx(expected, rel=0.2)


def test_layers_that_backward_needs_are_counted_by_the_row() -> None:
    spec = behavior_spec(vector(10), continuous=2)
    network = NetworkSettings(hidden_units=100, num_layers=1, activation="tanh")
    policy = ActorCritic("Crab", spec, network, 1, shared_critic=True)
    kept = activation_bytes(policy, spec)
    # At least the inputs and the layer's output, and at most a handful of columns as wide.
    assert 4 * (10 + 100) <= kept <= 4 * (10 + 4 * 100)
    wide = NetworkSettings(hidden_units=300, num_layers=1, activation="tanh")
    larger = activation_bytes(ActorCritic("Crab", spec, wide, 1, shared_critic=True), spec)
    assert larger == kept + 4 * 200  # tanh keeps what it gave


def test_images_stay_bytes_and_vectors_are_normalised_once(tmp_path: Path) -> None:
    spec = behavior_spec(vector(10), image(3, 20, 20), continuous=2)
    settings = BehaviorSettings.model_validate(
        {
            "hyperparameters": {"batch_size": 100, "buffer_size": 1000},
            "network_settings": {"normalize": True, "hidden_units": 8, "num_layers": 1},
            "time_horizon": 10,
        }
    )
    policy = ActorCritic("Crab", spec, settings.network_settings, 1, shared_critic=False)
    log = StepLog(spec, 1024)
    found = memory_budget(spec, settings, policy, log, is_training=True)
    obs, actions = 10 * 4 + 3 * 20 * 20, 2 * 4 + 2 * 4
    assert found.step_log == 1000 * (obs + actions + 4 + 8 + 1 + 8)
    assert found.rollout == 1000 * (1.1 * obs + actions + 4 + 4)
    assert found.columns == 1000 * (10 * 4 + 40)
    acting = memory_budget(spec, settings, policy, log, is_training=False)
    assert (acting.step_log, acting.of_update) == (found.step_log, 0)


def budget(step_log: int, of_update: int, is_on_cpu: bool = True) -> MemoryBudget:
    return MemoryBudget(1000, step_log * MB, of_update * MB, 0, 0, 0, is_on_cpu)


def test_nothing_is_said_while_it_fits_or_while_nobody_knows() -> None:
    fits = [budget(100, 300), budget(50, 500)]  # 100 + 50 + 500: one after the other
    assert shortage(fits, Available(650 * MB, "MemAvailable")) is None
    assert shortage(fits, None) is None
    assert shortage([budget(100, 300, is_on_cpu=False)], Available(400 * MB, "x")) is None


def test_shortage_says_what_is_needed_who_says_so_and_what_to_do() -> None:
    lack = shortage([budget(400, 1200)], Available(800 * MB, "memory.max of the cgroup"))
    assert lack == (
        "The run will need 1.6 GB of memory when it learns, and 800 MB are free (memory.max of the "
        "cgroup): the system may kill it then. To avoid that, lower buffer_size from 1,000 to 450 "
        "or less, or give it more memory."
    )


def test_sizes_are_written_as_people_write_them() -> None:
    assert [size(27.4 * MB), size(1234 * MB)] == ["27 MB", "1.2 GB"]
