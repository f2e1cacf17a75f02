"""Checkpoints written while the loop goes on: what they hold, and who hears of a failure."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch
from test_run_storage import behavior_of, settings_of, storage_of

from trainer.atomic_file import StorageError
from trainer.background_save import BackgroundWriter, copied
from trainer.checkpoint import CheckpointStore
from trainer.export_onnx import export
from trainer.run_storage import RunStorage


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Lets no checkpoint be written before it is set."""
    gate = threading.Event()
    save = CheckpointStore.save

    def waiting(*args: object, **named: object) -> object:
        assert gate.wait(60)
        return save(*args, **named)  # type: ignore[arg-type] # passed on as they came

    monkeypatch.setattr(CheckpointStore, "save", waiting)
    return gate


def events(storage: RunStorage) -> list[tuple[str, int]]:
    lines = (storage.folder.logs / "events.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    return [(event["event"], event["step"]) for event in found if event["event"] != "start"]


def test_checkpoint_holds_the_moment_at_which_it_was_begun(
    tmp_path: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path, "Walker")
    storage = storage_of(settings)
    storage.restore()
    with behavior_of(settings, storage, "Walker") as behavior:
        storage.schedule.begin(behavior)
        behavior.step = 700
        # A part whose state is not a copy: it must become one here.
        live, state_dict = torch.zeros(2), behavior.state_dict
        monkeypatch.setattr(behavior, "state_dict", lambda: {**state_dict(), "live": live})
        before = copied(behavior.state_dict())
        export(behavior.policy, behavior.spec, tmp_path / "before.onnx")
        storage.save([behavior], in_background=True)
        # The loop goes on: weights, optimiser and normaliser change in place.
        behavior.step = 900
        with torch.no_grad():
            for tensor in behavior.policy.state_dict().values():
                tensor.fill_(3)
        live.fill_(3)
        assert storage.due([behavior]) == []
        assert events(storage) == []
        gate.set()
        storage.save([])  # waits for it
        assert events(storage) == [("checkpoint", 700), ("export", 700)]
        state, saved = CheckpointStore(tmp_path / "run" / "Walker", 5).load()
    assert state["step"] == 700
    for key, tensor in before["policy"].items():
        torch.testing.assert_close(state["policy"][key], tensor, rtol=0, atol=0)
    assert state["live"].tolist() == [0, 0]
    assert saved.onnx_path is not None
    assert saved.onnx_path.read_bytes() == (tmp_path / "before.onnx").read_bytes()


def test_due_checkpoint_waits_until_the_one_before_is_written(
    tmp_path: Path, gate: threading.Event
) -> None:
    settings = settings_of(tmp_path, "Walker", milestone_interval=100)
    storage = storage_of(settings)
    storage.restore()
    with behavior_of(settings, storage, "Walker") as behavior:
        storage.schedule.begin(behavior)
        behavior.step = 150
        assert storage.due([behavior]) == [behavior]
        storage.save([behavior], in_background=True)
        behavior.step = 250
        assert storage.due([behavior]) == []
        gate.set()
        while storage._writer.is_busy:
            storage.due([])
        assert storage.due([behavior]) == [behavior]
        assert storage.num_checkpoints == 1


def test_end_of_a_run_waits_for_what_is_being_written(
    tmp_path: Path, gate: threading.Event
) -> None:
    settings = settings_of(tmp_path, "Walker")
    storage = storage_of(settings)
    storage.restore()
    with behavior_of(settings, storage, "Walker") as behavior:
        storage.schedule.begin(behavior)
        behavior.step = 100
        storage.save([behavior], in_background=True)
        behavior.step = 200
        threading.Timer(0.2, gate.set).start()
        storage.save([behavior], is_final=True)
    steps = [saved.step for saved in CheckpointStore(tmp_path / "run" / "Walker", 5).checkpoints]
    assert steps == [100, 200]
    assert [kind for kind, _ in events(storage)] == ["checkpoint", "export"] * 2 + ["export"]


def test_failure_is_heard_by_the_loop_and_the_last_save_is_made_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path, "Walker")
    storage = storage_of(settings)
    storage.restore()
    with behavior_of(settings, storage, "Walker") as behavior:
        storage.schedule.begin(behavior)
        behavior.step = 100
        with monkeypatch.context() as patch:
            full = "trainer.checkpoint.require_space"
            patch.setattr(full, lambda *_: (_ for _ in ()).throw(StorageError("full")))
            storage.save([behavior], in_background=True)
            with pytest.raises(StorageError, match="full"):
                while True:
                    storage.due([behavior])
            storage.save([behavior], in_background=True)
            while storage._writer._thread is not None and storage._writer._thread.is_alive():
                storage._writer._thread.join()
        with pytest.raises(StorageError, match="full"):
            storage.save([behavior], is_final=True)
    steps = [saved.step for saved in CheckpointStore(tmp_path / "run" / "Walker", 5).checkpoints]
    assert steps == [100]


def test_jobs_are_carried_out_in_order_and_heard_of_in_the_callers_thread() -> None:
    writer, heard = BackgroundWriter(), list[tuple[int, bool]]()
    here = threading.current_thread()

    def job(number: int) -> int:
        assert threading.current_thread() is not here
        if number == 1:
            raise ValueError("one")
        return number

    def take(number: int) -> None:
        heard.append((number, threading.current_thread() is here))

    for number in range(3):
        writer.start(lambda number=number: job(number), take)  # type: ignore[misc] # bound
    assert writer.is_busy
    with pytest.raises(ValueError, match="one"):
        writer.wait()
    assert heard == [(0, True), (2, True)]
    assert not writer.is_busy


def test_copy_shares_no_tensor() -> None:
    tensor = torch.zeros(3)
    state = {"a": [tensor, 1], "b": ("x", {"c": tensor[1:]}), "d": None}
    copy = copied(state)
    tensor.fill_(1)
    assert copy["a"][0].tolist() == [0, 0, 0]
    assert copy["b"][1]["c"].tolist() == [0, 0]
    assert copy["b"][0] == "x"
    assert copy["d"] is None
