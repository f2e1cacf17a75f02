from __future__ import annotations

from pathlib import Path

import pytest
import yaml

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


def test_unity_walker_carries_exactly_ml_agents_settings() -> None:
    document = yaml.safe_load((ROOT / "configs/unity/Walker.yaml").read_text())
    assert document == {
        "behaviors": {
            "Walker": {
                "trainer_type": "ppo",
                "hyperparameters": {
                    "batch_size": 2048,
                    "buffer_size": 20480,
                    "learning_rate": 0.0003,
                    "beta": 0.005,
                    "epsilon": 0.2,
                    "lambd": 0.95,
                    "num_epoch": 3,
                },
                "network_settings": {
                    "normalize": True,
                    "hidden_units": 512,
                    "num_layers": 3,
                    "vis_encode_type": "simple",
                },
                "reward_signals": {"extrinsic": {"gamma": 0.995, "strength": 1.0}},
                "keep_checkpoints": 5,
                "max_steps": 30000000,
                "time_horizon": 1000,
                "summary_freq": 30000,
            }
        }
    }


def test_default_job_trains_walker2d() -> None:
    settings = load_run(ROOT / "behaviors.yaml")
    assert list(settings.behaviors) == ["Walker2d"]
    assert settings.env_settings.env_path == "gym:Walker2d-v5"
