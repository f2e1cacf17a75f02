from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config.hyperparameters import PPOHyperparameters
from trainer.config.load import load_run

ROOT = Path(__file__).parents[3]
SETTINGS = [ROOT / "behaviors.yaml", *sorted(ROOT.glob("configs/**/*.yaml"))]


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_file_of_the_repository_loads(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_run(path)
    assert settings.behaviors
    assert caplog.text == ""


def test_unity_walker_is_the_one_of_the_issue() -> None:
    walker = load_run(ROOT / "configs/unity/Walker.yaml").behaviors["Walker"]
    ppo, network = walker.hyperparameters, walker.network_settings
    assert isinstance(ppo, PPOHyperparameters)
    assert (ppo.batch_size, ppo.buffer_size, ppo.num_epoch) == (2048, 20480, 3)
    assert (ppo.learning_rate, ppo.beta, ppo.epsilon, ppo.lambd) == (0.0003, 0.005, 0.2, 0.95)
    assert (network.normalize, network.hidden_units, network.num_layers) == (True, 512, 3)
    extrinsic = walker.reward_signals["extrinsic"]
    assert (extrinsic.gamma, extrinsic.strength) == (0.995, 1.0)
    assert (walker.keep_checkpoints, walker.max_steps) == (5, 30_000_000)
    assert (walker.time_horizon, walker.summary_freq) == (1000, 30000)


def test_default_job_trains_walker2d() -> None:
    settings = load_run(ROOT / "behaviors.yaml")
    assert list(settings.behaviors) == ["Walker2d"]
    assert settings.env_settings.env_path == "gym:Walker2d-v5"
