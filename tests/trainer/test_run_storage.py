"""What a run does to its folder: nothing before it can start, and nothing that is broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from envs.spec import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec
from envs.spec import ObservationType as Kind
from trainer.behavior import Behavior
from trainer.config.errors import UserError
from trainer.config.settings import RunSettings
from trainer.finite_policy import NotFiniteError
from trainer.reporter import Reporter
from trainer.run_storage import RunStorage
from trainer.timers import Timers

SPEC = BehaviorSpec(
    [ObservationSpec((2,), (DimensionProperty.NONE,), Kind.DEFAULT, "eyes")], ActionSpec(1, (2,))
)


class Listener(Reporter):
    def __init__(self) -> None:
        self.heard: list[str] = []
        self.warned: list[str] = []

    def warning(self, message: str) -> None:
        self.warned.append(message)

    def info(self, message: str) -> None:
        self.heard.append(message)


def settings_of(results: Path, *names: str, **chosen: object) -> RunSettings:
    network = {"hidden_units": 8, "num_layers": 1, "normalize": True}
    return RunSettings.model_validate(
        {
            "behaviors": {name: {"network_settings": network} for name in names},
            "env_settings": {"seed": 1},
            "checkpoint_settings": {"run_id": "run", "results_dir": str(results), **chosen},
        }
    )


def storage_of(settings: RunSettings) -> RunStorage:
    return RunStorage(settings, Reporter(), from_step=None)


@contextmanager
def behavior_of(settings: RunSettings, storage: RunStorage, name: str) -> Iterator[Behavior]:
    behavior = Behavior(
        name,
        SPEC,
        settings.for_behavior(name),
        storage.folder.behavior(name),
        seed=3,
        device=torch.device("cpu"),
        is_training=True,
        state=None,
        starts_at_zero=False,
    )
    try:
        yield behavior
    finally:
        behavior.metrics.close()


def earlier_run(results: Path, *names: str) -> RunSettings:
    """Leaves a run with a final checkpoint of each behaviour."""
    settings = settings_of(results, *names)
    storage = storage_of(settings)
    storage.restore()
    for name in names:
        with behavior_of(settings, storage, name) as behavior:
            storage.save([behavior], is_final=True)
    return settings


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "inference" not in path.parts  # that is written for itself
    }


def test_force_leaves_nothing_of_behaviors_that_the_new_run_lacks(tmp_path: Path) -> None:
    earlier_run(tmp_path, "Walker", "team/Goalkeeper")
    run = tmp_path / "run"
    (run / "notes.txt").write_text("mine")
    assert (run / "Walker.onnx").exists()
    storage = storage_of(settings_of(tmp_path, "Runner", force=True))
    before = files(run)
    assert storage.folder.saved_behaviors() == ["Walker", "team/Goalkeeper"]
    assert files(run) == before  # nothing is deleted before it is known what the run starts from
    storage.restore()
    assert storage.folder.saved_behaviors() == []
    assert files(run).keys() == {
        "notes.txt",
        "configuration.yaml",
        "run_logs/events.jsonl",
        "run_logs/training_status.json",
    }


def test_force_may_start_from_the_weights_that_it_overwrites(tmp_path: Path) -> None:
    earlier_run(tmp_path, "Walker", "Runner")
    chosen = {"force": True, "initialize_from": "run"}
    settings = settings_of(tmp_path, "Walker", **chosen).model_copy(
        update={"default_settings": settings_of(tmp_path, "A").behaviors["A"]}
    )
    storage = storage_of(settings)
    assert storage.restore() == 0
    assert storage.folder.saved_behaviors() == []
    for name in ("Walker", "Runner"):  # Runner is not listed: default_settings are its own
        state = storage.take_state(name, SPEC, seed=3)
        assert state is not None
        assert state["behavior"] == name


@pytest.mark.parametrize("chosen", [{"resume": True}, {"resume": True, "force": True}])
def test_resume_deletes_no_checkpoint(tmp_path: Path, chosen: dict[str, bool]) -> None:
    earlier_run(tmp_path, "Walker", "Runner")
    storage = storage_of(settings_of(tmp_path, "Walker", **chosen))
    storage.restore()
    assert storage.folder.saved_behaviors() == ["Runner", "Walker"]


@pytest.mark.parametrize("chosen", ["resume", "force"])
def test_start_that_fails_leaves_the_folder_as_it_is(tmp_path: Path, chosen: str) -> None:
    earlier_run(tmp_path, "Walker")
    run = tmp_path / "run"
    for path in run.glob("Walker/*.pt"):
        path.write_bytes(b"damaged")
    before = files(run)
    # With force the weights should come from the damaged file; with resume they do anyhow.
    more = {"initialize_from": "run"} if chosen == "force" else {}
    storage = storage_of(settings_of(tmp_path, "Walker", "New", **{chosen: True}, **more))
    with pytest.raises(UserError, match=r"Walker.*\.pt"):
        storage.restore()
    assert files(run) == before


@pytest.mark.parametrize("has_configuration", [True, False])
@pytest.mark.parametrize(
    "chosen",
    [
        {"resume": True},
        {"force": True},
        {"resume": True, "force": True},
        {"resume": True, "initialize_from": "other"},
        {"force": True, "initialize_from": "other"},
        {"force": True, "initialize_from": "run"},
    ],
    ids=str,
)
def test_inference_overwrites_and_deletes_nothing(
    tmp_path: Path, chosen: dict[str, object], has_configuration: bool
) -> None:
    earlier_run(tmp_path, "Walker")
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    run = tmp_path / "run"
    for name in ("timers.json", "events.jsonl", "Player-0.log"):
        (run / "run_logs" / name).write_text("of the training\n")
    if not has_configuration:
        (run / "configuration.yaml").unlink()
    before = files(tmp_path)
    storage = storage_of(settings_of(tmp_path, "Walker", inference=True, **chosen))
    storage.restore()
    storage.folder.clear_logs(is_training=False)
    state = storage.take_state("Walker", SPEC, seed=3)
    assert (state is not None) == (chosen != {"force": True})
    storage.write_timers(Timers())
    storage.tell("end", 0)
    assert files(tmp_path) == before
    assert (run / "run_logs" / "inference" / "events.jsonl").is_file()


def test_resume_goes_on_with_its_own_weights_whatever_it_was_initialized_from(
    tmp_path: Path,
) -> None:
    """In ML-Agents the other run's would win. That run may be gone by now, too."""
    earlier_run(tmp_path, "Walker")
    listener = Listener()
    settings = settings_of(tmp_path, "Walker", resume=True, initialize_from="gone")
    storage = RunStorage(settings, listener, None)
    storage.restore()
    assert storage.take_state("Walker", SPEC, seed=3) is not None
    assert storage.goes_on("Walker")
    assert listener.heard[1] == (
        "'Walker' goes on with its own weights: initialize_from 'gone' has no effect on it."
    )


def test_behavior_that_a_resumed_run_lacks_is_initialized(tmp_path: Path) -> None:
    earlier_run(tmp_path, "Walker")
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    (tmp_path / "other" / "Walker").rename(tmp_path / "other" / "Runner")
    settings = settings_of(tmp_path, "Walker", "Runner", resume=True, initialize_from="other")
    storage = storage_of(settings)
    storage.restore()
    assert storage.take_state("Runner", SPEC, seed=3) is not None
    assert not storage.goes_on("Runner")
    assert storage.goes_on("Walker")


def changed(settings: RunSettings, **changes: object) -> RunSettings:
    """Gives a run of one behaviour with other settings of that, as a file would."""
    document = settings.model_dump()
    for path, value in changes.items():
        *outer, key = path.split("__")
        place = document["behaviors"]["Walker"]
        for name in outer:
            place = place[name]
        place[key] = value
    return RunSettings.model_validate(document)


def test_safe_changes_are_applied_listed_and_written_down(tmp_path: Path) -> None:
    earlier_run(tmp_path, "Walker")
    listener = Listener()
    settings = settings_of(tmp_path, "Walker", resume=True)
    settings = changed(settings, max_steps=77, hyperparameters__learning_rate=0.5)
    RunStorage(settings, listener, None).restore()
    assert listener.heard[-1] == (
        "Settings have changed since the run was saved. Applied:\n"
        "  behaviors.Walker.hyperparameters.learning_rate: 0.0003 -> 0.5\n"
        "  behaviors.Walker.max_steps: 500000 -> 77"
    )
    lines = (tmp_path / "run/run_logs/events.jsonl").read_text().splitlines()
    told = json.loads(lines[-1])
    assert told["event"] == "settings_changed"
    assert told["changes"][1] == "behaviors.Walker.max_steps: 500000 -> 77"


def test_unsafe_change_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    earlier_run(tmp_path, "Walker")
    before = files(tmp_path)
    settings = settings_of(tmp_path, "Walker", resume=True)
    settings = changed(settings, max_steps=77, network_settings__hidden_units=9)
    with pytest.raises(UserError, match=r"hidden_units was 8 when the run was saved, and is 9"):
        storage_of(settings).restore()
    assert files(tmp_path) == before


def test_resume_without_changes_says_nothing_of_them(tmp_path: Path) -> None:
    earlier_run(tmp_path, "Walker")
    listener = Listener()
    RunStorage(settings_of(tmp_path, "Walker", resume=True), listener, None).restore()
    assert not any("changed" in line for line in listener.heard)


def test_settings_that_cannot_be_read_any_more_are_told(tmp_path: Path) -> None:
    earlier_run(tmp_path, "Walker")
    (tmp_path / "run" / "configuration.yaml").write_text("behaviors: [")
    listener = Listener()
    RunStorage(settings_of(tmp_path, "Walker", resume=True), listener, None).restore()
    (warning,) = listener.warned
    assert "outside of behaviors cannot be told" in warning


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["weights", "normalizer"])
def test_policy_that_diverged_is_not_saved(tmp_path: Path, broken: float, where: str) -> None:
    settings = settings_of(tmp_path, "Walker")
    storage = storage_of(settings)
    storage.restore()
    with behavior_of(settings, storage, "Walker") as behavior:
        assert behavior.policy.normalizer is not None
        tensor = behavior.policy.mean_head.weight
        if where == "normalizer":
            tensor = next(t for t in behavior.policy.normalizer.buffers() if t.dim())
        good = tensor.detach().clone()

        with torch.no_grad():
            tensor.view(-1)[0] = broken
        with pytest.raises(NotFiniteError) as caught:
            storage.save([behavior])
        assert str(caught.value).startswith("Behavior 'Walker' at step 0: ")
        assert "There is no earlier checkpoint: start again with --force" in str(caught.value)
        assert storage.folder.saved_behaviors() == []

        with torch.no_grad():
            tensor.copy_(good)
        storage.save([behavior])
        before = files(tmp_path / "run")
        behavior.step = 500
        with torch.no_grad():
            tensor.view(-1)[0] = broken
        with pytest.raises(NotFiniteError) as caught:
            storage.save([behavior], is_final=True)
    text = str(caught.value)
    assert text.startswith("Behavior 'Walker' at step 500: ")
    last = tmp_path / "run" / "Walker" / "Walker-0.pt"
    assert f"The last good checkpoint is {last} (step 0): go on from there with --resume" in text
    after = files(tmp_path / "run")
    assert {name: after[name] for name in before if "tfevents" not in name} == {
        name: content for name, content in before.items() if "tfevents" not in name
    }
    assert after.keys() == before.keys()


# A run of ML-Agents in the folder, or beside it.

MLAGENTS_RUNS = Path(__file__).parent / "mlagents_runs"
CRAB = BehaviorSpec(
    [
        ObservationSpec((size,), (DimensionProperty.NONE,), Kind.DEFAULT, f"obs/{size}")
        for size in (3, 2)
    ],
    ActionSpec(2, ()),
)


def left_by_mlagents(results: Path) -> Path:
    """Leaves the run folder that mlagents-learn has made, with its last checkpoint by step too."""
    run = results / "run"
    shutil.copytree(MLAGENTS_RUNS / "continuous", run)
    shutil.copy(run / "Crab" / "checkpoint.pt", run / "Crab" / "Crab-310.pt")
    return run


def crab_settings(results: Path, **chosen: object) -> RunSettings:
    settings = settings_of(results, "Crab", **chosen)
    layers = settings.behaviors["Crab"].network_settings.model_copy(update={"num_layers": 2})
    crab = settings.behaviors["Crab"].model_copy(update={"network_settings": layers})
    return settings.model_copy(update={"behaviors": {"Crab": crab}})


@pytest.mark.parametrize("from_step", [None, 310])
def test_resume_goes_on_with_a_run_of_ml_agents(tmp_path: Path, from_step: int | None) -> None:
    run = left_by_mlagents(tmp_path)
    theirs = (run / "Crab" / "checkpoint.pt").read_bytes()
    settings, listener = crab_settings(tmp_path, resume=True), Listener()
    storage = RunStorage(settings, listener, from_step)
    assert storage.restore() == 310
    state = storage.take_state("Crab", CRAB, seed=3)
    assert state is not None
    assert state["step"] == 310
    assert storage.goes_on("Crab")
    assert f"Resuming from {run / 'Crab'}" in listener.heard[0]
    assert "Taken from ML-Agents' " in listener.heard[1]
    behavior = Behavior(
        "Crab",
        CRAB,
        settings.behaviors["Crab"],
        run / "Crab",
        seed=3,
        device=torch.device("cpu"),
        is_training=True,
        state=state,
        starts_at_zero=False,
    )
    behavior.step = 400
    storage.save([behavior])
    behavior.metrics.close()
    # Ours is the newest now; what ML-Agents had saved last is still there, byte for byte.
    assert storage_of(settings).restore() == 400
    assert (run / "Crab" / "checkpoint.mlagents.pt").read_bytes() == theirs


def test_ml_agents_step_that_is_not_there_is_refused(tmp_path: Path) -> None:
    left_by_mlagents(tmp_path)
    storage = RunStorage(crab_settings(tmp_path, resume=True), Reporter(), from_step=290)
    with pytest.raises(UserError, match=r"Crab-290\.pt cannot be read: No such file"):
        storage.restore()


@pytest.mark.parametrize("chosen", [{"resume": True}, {"initialize_from": "run", "run_id": "b"}])
def test_inference_leaves_a_run_of_ml_agents_alone(
    tmp_path: Path, chosen: dict[str, object]
) -> None:
    run = left_by_mlagents(tmp_path)
    (run / "configuration.yaml").write_text("behaviors: {}\n")
    before = files(run)
    storage = storage_of(crab_settings(tmp_path, inference=True, **chosen))
    storage.restore()
    state = storage.take_state("Crab", CRAB, seed=3)
    assert state is not None
    assert files(run) == before


def test_new_run_starts_from_weights_of_a_run_of_ml_agents(tmp_path: Path) -> None:
    run = left_by_mlagents(tmp_path)
    before = files(run)
    listener = Listener()
    settings = crab_settings(tmp_path, run_id="new", initialize_from="run")
    storage = RunStorage(settings, listener, None)
    assert storage.restore() == 0
    state = storage.take_state("Crab", CRAB, seed=3)
    assert state is not None
    assert not storage.goes_on("Crab")
    assert listener.heard[0] == f"Initializing from {run / 'Crab' / 'checkpoint.pt'}."
    assert files(run) == before


def test_force_leaves_nothing_of_ml_agents_to_resume(tmp_path: Path) -> None:
    run = left_by_mlagents(tmp_path)
    storage_of(crab_settings(tmp_path, force=True)).restore()
    assert files(run).keys() == {
        "configuration.yaml",
        "run_logs/events.jsonl",
        "run_logs/training_status.json",
    }
    status = json.loads((run / "run_logs" / "training_status.json").read_text())
    assert status.keys() == {"metadata"}


def test_own_file_that_no_manifest_lists_is_not_taken_for_one_of_ml_agents(tmp_path: Path) -> None:
    earlier_run(tmp_path, "Walker")
    (tmp_path / "run" / "Walker" / "manifest.json").unlink()
    storage = storage_of(settings_of(tmp_path, "Walker", resume=True))
    assert storage.restore() == 0
    assert storage.take_state("Walker", SPEC, seed=3) is None
    assert not storage.goes_on("Walker")
