from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config.errors import ConfigError
from trainer.config.settings import BehaviorSettings, CheckpointSettings
from trainer.run_folder import RunFolder
from trainer.run_start import initial_checkpoint, open_run_folder


def settings(results: Path, **changes: object) -> CheckpointSettings:
    return CheckpointSettings.model_validate({"results_dir": str(results), **changes})


def run_with_checkpoint(results: Path, run_id: str = "ppo") -> RunFolder:
    folder = RunFolder(results / run_id)
    folder.store("Walker", keep=5).save({"step": 10}, 10, None)
    return folder


def test_new_run_gets_its_folder(tmp_path: Path) -> None:
    folder = open_run_folder(settings(tmp_path, run_id="new"), None)
    assert folder.path == tmp_path / "new"
    assert folder.logs.is_dir()


def test_folder_of_a_failed_start_is_not_in_the_way(tmp_path: Path) -> None:
    folder = open_run_folder(settings(tmp_path), None)
    folder.write_configuration("behaviors: {}\n")
    (folder.logs / "Player-0.log").write_text("no such scene")
    open_run_folder(settings(tmp_path), None)
    with pytest.raises(ConfigError, match="holds no run to resume"):
        open_run_folder(settings(tmp_path, resume=True), None)


@pytest.mark.parametrize("left", ["Walker.onnx", "Walker/checkpoint.pt", "Walker/events.out"])
def test_anything_of_a_run_is_in_the_way_until_resumed_or_forced(tmp_path: Path, left: str) -> None:
    (tmp_path / "ppo" / left).parent.mkdir(parents=True)
    (tmp_path / "ppo" / left).touch()
    with pytest.raises(ConfigError, match=r"--resume.*--force.*--run-id"):
        open_run_folder(settings(tmp_path), None)
    open_run_folder(settings(tmp_path, resume=True), None)
    open_run_folder(settings(tmp_path, force=True), None)
    assert (tmp_path / "ppo" / left).exists()  # it goes only when the new run begins to learn


def test_from_step_without_resume_is_refused(tmp_path: Path) -> None:
    run_with_checkpoint(tmp_path)
    open_run_folder(settings(tmp_path, resume=True), 10)
    with pytest.raises(ConfigError, match="--from-step 10 says where to go on"):
        open_run_folder(settings(tmp_path, force=True), 10)


def test_clear_deletes_the_behaviour_and_nothing_else(tmp_path: Path) -> None:
    folder = run_with_checkpoint(tmp_path)
    stray = folder.behavior("Walker") / "Walker-20.onnx"  # of a save that was killed
    mine = folder.behavior("Walker") / "notes-10.txt"
    other = folder.onnx("Crawler")
    for path in (stray, mine, other, folder.onnx("Walker")):
        path.touch()
    folder.clear("Walker")
    assert [path.name for path in folder.behavior("Walker").iterdir()] == [mine.name]
    assert other.exists()
    assert not folder.onnx("Walker").exists()
    assert folder.saved_behaviors() == []


def test_clear_needs_no_readable_manifest(tmp_path: Path) -> None:
    folder = run_with_checkpoint(tmp_path)
    (folder.behavior("Walker") / "manifest.json").write_text("{")
    folder.clear("Walker")
    assert folder.store("Walker", keep=5).checkpoints == ()
    assert not list(folder.path.rglob("*.pt"))


def test_weights_come_from_the_named_run_or_file(tmp_path: Path) -> None:
    other = run_with_checkpoint(tmp_path, "other")
    behavior = BehaviorSettings()
    newest = other.behavior("Walker") / "checkpoint.pt"
    tenth = other.behavior("Walker") / "Walker-10.pt"
    from_other = settings(tmp_path, initialize_from="other")
    assert initial_checkpoint("Walker", behavior, settings(tmp_path)) is None
    assert initial_checkpoint("Walker", behavior, from_other) == newest
    named = BehaviorSettings(init_path="Walker-10.pt")
    assert initial_checkpoint("Walker", named, from_other) == tenth
    whole = BehaviorSettings(init_path=str(tenth))
    assert initial_checkpoint("Walker", whole, settings(tmp_path)) == tenth
    with pytest.raises(ConfigError, match=r"Crawler: weights should come from .*no existing"):
        initial_checkpoint("Crawler", behavior, from_other)
