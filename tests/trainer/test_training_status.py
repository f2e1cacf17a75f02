from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.checkpoint import SavedCheckpoint
from trainer.config.errors import UserError
from trainer.run_folder import RunFolder
from trainer.training_status import TrainingStatus


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.chdir(tmp_path)
    return RunFolder(Path("results/run7"))  # relative, as results_dir is by default


def save(run: RunFolder, name: str, step: int, reward: float | None) -> SavedCheckpoint:
    state = {"weights": torch.ones(2)}
    return run.store(name, 2).save(state, step, reward, lambda path: path.write_bytes(b"graph"))


def read(run: RunFolder) -> Any:
    return json.loads(run.training_status.read_text())


def test_environment_parameters_are_in_their_first_lesson(run: RunFolder) -> None:
    run.training_status.parent.mkdir(parents=True, exist_ok=True)
    run.training_status.write_text('{"height": {"lesson_num": 2}}')
    TrainingStatus(run.training_status, goes_on=True, parameters=["mass", "height"]).write()
    document = read(run)
    assert document["mass"] == {"lesson_num": 0}
    assert document["height"] == {"lesson_num": 2}  # as an earlier start has left it


def test_layout_is_ml_agents(run: RunFolder) -> None:
    before = time.time()
    for step, reward in ((100, None), (200, 1.5), (300, 2.5)):
        saved = save(run, "Walker", step, reward)
    status = TrainingStatus(run.training_status, goes_on=True)
    status.set_checkpoints("Walker", run.store("Walker", 2).checkpoints)
    status.set_final("Walker", saved, run.publish_onnx("Walker", saved))
    status.write()

    document = read(run)
    created = [entry.pop("creation_time") for entry in document["Walker"]["checkpoints"]]
    assert before <= created[0] <= created[1] <= time.time()
    assert document["Walker"]["checkpoints"] == [
        {
            "steps": 200,
            "file_path": "results/run7/Walker/Walker-200.onnx",
            "reward": 1.5,
            "auxillary_file_paths": ["results/run7/Walker/Walker-200.pt"],
        },
        {
            "steps": 300,
            "file_path": "results/run7/Walker/Walker-300.onnx",
            "reward": 2.5,
            "auxillary_file_paths": ["results/run7/Walker/Walker-300.pt"],
        },
    ]
    assert document["Walker"]["final_checkpoint"]["file_path"] == "results/run7/Walker.onnx"
    assert document["Walker"]["final_checkpoint"]["steps"] == 300
    assert set(document["metadata"]) == {  # ML-Agents builds an object from exactly these
        "stats_format_version",
        "mlagents_version",
        "torch_version",
    }
    assert run.onnx("Walker").read_bytes() == b"graph"


def test_a_second_behaviour_and_a_resumed_run_forget_nothing(run: RunFolder) -> None:
    for name in ("Walker", "Ball"):
        save(run, name, 100, None)
        status = TrainingStatus(run.training_status, goes_on=True)  # as after --resume
        status.set_checkpoints(name, run.store(name, 2).checkpoints)
        status.write()
    document = read(run)
    document["gravity"] = {"lesson_num": 3}
    run.training_status.write_text(json.dumps(document))
    TrainingStatus(run.training_status, goes_on=True).write()
    document = read(run)
    assert set(document) == {"Walker", "Ball", "gravity", "metadata"}
    assert document["gravity"] == {"lesson_num": 3}
    TrainingStatus(run.training_status, goes_on=False).write()  # --force
    assert set(read(run)) == {"metadata"}


def test_a_checkpoint_without_export_names_its_state(run: RunFolder) -> None:
    saved = run.store("Walker", 2).save({"weights": torch.ones(2)}, 5, None)
    assert run.publish_onnx("Walker", saved) is None
    status = TrainingStatus(run.training_status, goes_on=True)
    status.set_checkpoints("Walker", [saved])
    status.write()
    listed = read(run)["Walker"]["checkpoints"][0]
    assert listed["file_path"] == "results/run7/Walker/Walker-5.pt"


def test_an_unreadable_file_says_that_it_can_go(run: RunFolder) -> None:
    run.logs.mkdir(parents=True)
    run.training_status.write_text("{")
    with pytest.raises(UserError, match=r"training_status\.json cannot be read.*delete the file"):
        TrainingStatus(run.training_status, goes_on=True)
    run.training_status.write_text("[]")
    with pytest.raises(UserError, match="it holds a list"):
        TrainingStatus(run.training_status, goes_on=True)


def test_the_run_folder_is_ml_agents(run: RunFolder) -> None:
    assert not run.holds_run()
    run.write_configuration("behaviors: {}\n")
    run.write_timers('{"name": "root"}', is_training=True)
    assert not run.holds_run()  # settings and logs alone are worth nothing
    assert Path("results/run7/configuration.yaml").read_text() == "behaviors: {}\n"
    assert Path("results/run7/run_logs/timers.json").read_text() == '{"name": "root"}'
    assert run.behavior("Walker") == Path("results/run7/Walker")
    save(run, "Walker", 5, None)
    assert run.holds_run()
    assert run.saved_behaviors() == ["Walker"]


def test_clear_deletes_what_a_run_saved_and_drew_of_one_behaviour(run: RunFolder) -> None:
    saved = save(run, "Walker", 5, None)
    run.publish_onnx("Walker", saved)
    other = save(run, "Walker2", 5, None)
    (run.behavior("Walker") / "events.out.tfevents.1").touch()
    notes = run.behavior("Walker") / "notes.txt"
    notes.touch()
    (run.behavior("Walker") / ".Walker-9.pt.partial").touch()
    run.clear("Walker")
    assert list(run.behavior("Walker").iterdir()) == [notes]
    assert not run.onnx("Walker").exists()
    assert other.path.is_file()
    assert run.saved_behaviors() == ["Walker2"]
    run.clear("Never seen")


def test_checkpoints_of_ml_agents_stay_listed_while_their_files_are_there(run: RunFolder) -> None:
    theirs = [
        {"steps": step, "file_path": f"results/run7/Walker/Walker-{step}.onnx", "reward": None}
        for step in (10, 20, 30)
    ]
    run.training_status.parent.mkdir(parents=True)
    listed = {"Walker": {"checkpoints": [*theirs, "?"]}, "mass": {"lesson_num": 2}}
    run.training_status.write_text(json.dumps({**listed, "metadata": {}}))
    save(run, "Walker", 30, 1.0)  # replaces the file of the same name
    for step in (10, 20):
        Path(f"results/run7/Walker/Walker-{step}.onnx").touch()
    Path("results/run7/Walker/Walker-20.onnx").unlink()
    status = TrainingStatus(run.training_status, goes_on=True)
    status.set_checkpoints("Walker", run.store("Walker", 2).checkpoints)
    status.write()
    document = read(run)
    assert [entry["steps"] for entry in document["Walker"]["checkpoints"]] == [10, 30]
    assert document["Walker"]["checkpoints"][1]["reward"] == 1.0
    assert document["mass"] == {"lesson_num": 2}
