"""In reproducible mode the checkpoints of all behaviours are one: all of them count, or none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec
from envs.spec import ObservationType as Kind
from trainer.behavior import Behavior
from trainer.checkpoint import CheckpointError
from trainer.config.settings import RunSettings
from trainer.reporter import Reporter
from trainer.run_storage import RunStorage

SPEC = BehaviorSpec(
    [ObservationSpec((2,), (DimensionProperty.NONE,), Kind.DEFAULT, "eyes")], ActionSpec(1, ())
)
NAMES = ("Runner", "Walker")


class Killed(BaseException):
    """Stands for the process being gone."""


def settings_of(results: Path, *, reproducible: bool = True, **chosen: object) -> RunSettings:
    network = {"hidden_units": 4, "num_layers": 1}
    return RunSettings.model_validate(
        {
            "behaviors": {
                name: {"network_settings": network, "keep_checkpoints": 1} for name in NAMES
            },
            "env_settings": {"seed": 1},
            "reproducible": reproducible,
            "checkpoint_settings": {"run_id": "run", "results_dir": str(results), **chosen},
        }
    )


@contextmanager
def behaviors_of(storage: RunStorage, *names: str) -> Iterator[list[Behavior]]:
    with ExitStack() as stack:
        made = [
            Behavior(
                name,
                SPEC,
                storage._settings.for_behavior(name),
                storage.folder.behavior(name),
                seed=3,
                device=torch.device("cpu"),
                is_training=True,
                state=None,
                starts_at_zero=False,
            )
            for name in names
        ]
        for behavior in made:
            stack.callback(behavior.metrics.close)
        yield made


def started(results: Path, **chosen: Any) -> RunStorage:
    storage = RunStorage(settings_of(results, **chosen), Reporter(), None)
    storage.restore()
    return storage


def resumed_steps(results: Path, **chosen: Any) -> dict[str, int | None]:
    storage = started(results, resume=True, **chosen)
    found = {}
    for name in NAMES:
        state = storage.take_state(name, SPEC, seed=3)
        found[name] = None if state is None else state["step"]
    return found


def save_at(storage: RunStorage, behaviors: list[Behavior], *steps: int) -> None:
    for behavior, step in zip(behaviors, steps, strict=True):
        behavior.step = step
    storage.save(behaviors)


def operations_of_a_save(results: Path) -> int:
    """How often the second moment renames a file."""
    storage = started(results)
    count = 0
    replace = os.replace

    def counting(old: Path, new: Path) -> None:
        nonlocal count
        count += 1
        replace(old, new)

    with behaviors_of(storage, *NAMES) as behaviors, pytest.MonkeyPatch.context() as patch:
        save_at(storage, behaviors, 100, 110)
        patch.setattr(os, "replace", counting)
        save_at(storage, behaviors, 200, 210)
    return count


def test_kill_at_any_moment_leaves_all_behaviours_at_one_moment(tmp_path: Path) -> None:
    count = operations_of_a_save(tmp_path / "count")
    assert count > 15
    outcomes = []
    replace = os.replace
    for killed_at in range(1, count + 1):
        results = tmp_path / str(killed_at)
        storage = started(results)
        number = 0

        def killing(old: Path, new: Path, killed_at: int = killed_at) -> None:
            nonlocal number
            number += 1
            if number >= killed_at:
                raise Killed
            replace(old, new)

        with behaviors_of(storage, *NAMES) as behaviors, pytest.MonkeyPatch.context() as patch:
            save_at(storage, behaviors, 100, 110)
            patch.setattr(os, "replace", killing)
            with pytest.raises(Killed):
                save_at(storage, behaviors, 200, 210)
        found = resumed_steps(results)
        outcomes.append(found["Runner"])
        assert found in ({"Runner": 100, "Walker": 110}, {"Runner": 200, "Walker": 210})
    assert outcomes == sorted(outcomes, key=int)  # type: ignore[arg-type]  # none is None
    assert {100, 200} == set(outcomes)


def test_only_then_are_older_checkpoints_deleted(tmp_path: Path) -> None:
    storage = started(tmp_path)
    with behaviors_of(storage, *NAMES) as behaviors:
        for steps in ((100, 110), (200, 210), (300, 310)):
            save_at(storage, behaviors, *steps)
    for name in NAMES:
        left = [saved.step for saved in storage.folder.store(name, 1).checkpoints]
        assert left == [300 if name == "Runner" else 310]
    status = json.loads((tmp_path / "run/run_logs/training_status.json").read_text())
    assert [entry["steps"] for entry in status["Runner"]["checkpoints"]] == [300]


def test_behaviour_that_was_not_there_at_the_moment_begins_anew(tmp_path: Path) -> None:
    """Its checkpoint is that of a moment which a kill has taken back."""
    storage = started(tmp_path)
    with behaviors_of(storage, *NAMES) as behaviors:
        save_at(storage, behaviors[:1], 100)
        behaviors[0].step, behaviors[1].step = 200, 50
        for behavior in behaviors:
            storage._save(behavior, False, False, False)  # killed before the record
    assert resumed_steps(tmp_path) == {"Runner": 100, "Walker": None}


def test_runs_that_are_not_reproducible_take_the_newest_of_each(tmp_path: Path) -> None:
    storage = started(tmp_path)
    with behaviors_of(storage, *NAMES) as behaviors:
        save_at(storage, behaviors, 100, 110)
        other = started(tmp_path, resume=True, reproducible=False)
        save_at(other, behaviors[:1], 500)
    assert resumed_steps(tmp_path, reproducible=False) == {"Runner": 500, "Walker": 110}
    # It is no moment any more, and never becomes one again.
    assert resumed_steps(tmp_path) == {"Runner": 500, "Walker": 110}


def test_damaged_record_says_what_to_do(tmp_path: Path) -> None:
    storage = started(tmp_path)
    with behaviors_of(storage, *NAMES) as behaviors:
        save_at(storage, behaviors, 100, 110)
    (tmp_path / "run/run_logs/moment.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"moment\.json cannot be read.*--from-step"):
        resumed_steps(tmp_path)
