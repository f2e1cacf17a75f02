from __future__ import annotations

from pathlib import Path

import pytest
from trainer_process import tiny_build

from trainer.config.settings import RunSettings
from trainer.simulators import plan_fleet


@pytest.mark.parametrize(
    ("has_build", "base_port", "found"),
    [(False, None, 5004), (False, 6000, 6000), (True, None, None), (True, 6000, 6000)],
)
def test_simulators_are_waited_for_on_the_chosen_port(
    tmp_path: Path, has_build: bool, base_port: int | None, found: int | None
) -> None:
    env_path = str(tiny_build(tmp_path)) if has_build else None
    settings = RunSettings.model_validate(
        {"behaviors": {"1D": {}}, "env_settings": {"env_path": env_path, "base_port": base_port}}
    )
    assert plan_fleet(settings, tmp_path, seed=0).base_port == found
