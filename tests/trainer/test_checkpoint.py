from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.checkpoint import CheckpointError, CheckpointStore, load_file, plain
from trainer.config.errors import UserError

# The child forks once per line it reads, so torch is imported once; each fork saves until killed.
SAVER = """
import os, sys
from pathlib import Path
import torch
from trainer.checkpoint import CheckpointStore

store = CheckpointStore(Path(sys.argv[1]), keep=2)
for line in sys.stdin:
    first = int(line)
    pid = os.fork()
    if pid == 0:
        for step in range(first, first + 100_000):
            state = {"step": step, "weights": torch.full((2000,), float(step))}
            store.save(state, step, None, lambda path: path.write_text("graph " * 500))
            os.write(1, b"%d\\n" % step)
    os.write(1, b"pid %d\\n" % pid)
    os.waitpid(pid, 0)
    os.write(1, b"dead\\n")
"""


class Crash(BaseException):
    """Stands for the process being gone: no handler may do anything after it."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "Walker"


def state_of(step: int, marker: int = 0) -> dict[str, object]:
    return {"step": step, "marker": marker, "weights": torch.arange(4.0) + 100 * step}


def export(path: Path) -> None:
    path.write_bytes(b"graph")
    path.with_name(path.name + ".json").write_bytes(b"{}")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # checkpoint.pt may be the same file
    path.write_bytes(bytes(content))


def test_load_gives_what_was_saved(folder: Path) -> None:
    state = {
        "policy": {"weights": torch.randn(3, 4), "steps": torch.tensor(7, dtype=torch.int64)},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "betas": (0.9, 0.999)},
        "generator": torch.Generator().manual_seed(5).get_state(),
        "step": 10**12,
        "nothing": None,
        "returns": [1.5, 2.5],
        "is_training": True,
        "behavior": "Wälker",
    }
    saved = CheckpointStore(folder, 5).save(state, 480000, 12.5)
    loaded, found = CheckpointStore(folder, 5).load()
    assert found == saved
    assert (found.step, found.reward, found.is_final) == (480000, 12.5, False)
    assert found.path == folder / "Walker-480000.pt"
    assert torch.equal(loaded["policy"]["weights"], state["policy"]["weights"])  # type: ignore[index]
    assert loaded["policy"]["steps"].dtype == torch.int64
    assert torch.equal(loaded["generator"], state["generator"])  # type: ignore[arg-type]
    for key in ("step", "nothing", "returns", "is_training", "behavior"):
        assert loaded[key] == state[key]
        assert type(loaded[key]) is type(state[key])
    assert loaded["optimizer"]["betas"] == (0.9, 0.999)
    assert torch.equal(loaded["optimizer"]["state"][0]["exp_avg"], torch.ones(2))


def test_an_optimiser_and_a_module_survive_unchanged(folder: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1, fused=True)
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    CheckpointStore(folder, 1).save(
        {"module": module.state_dict(), "optimizer": optimizer.state_dict()}, 1, None
    )
    state, _ = CheckpointStore(folder, 1).load()
    other = torch.nn.Linear(3, 2)
    other.load_state_dict(state["module"])
    again = torch.optim.Adam(other.parameters(), lr=0.1, fused=True)
    again.load_state_dict(state["optimizer"])
    for module_now, optimizer_now in ((module, optimizer), (other, again)):
        optimizer_now.zero_grad()
        module_now(torch.ones(1, 3)).sum().backward()
        optimizer_now.step()
    assert torch.equal(module.weight, other.weight)


def test_a_view_does_not_drag_its_storage_into_the_file(folder: Path) -> None:
    large = torch.zeros(1_000_000)
    saved = CheckpointStore(folder, 1).save({"view": large[10:20]}, 1, None)
    assert saved.path.stat().st_size < 10_000


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"counters": {"reward": __import__("numpy").float64(1.0)}}, "state.counters.reward is a"),
        ({"parts": [1, object()]}, r"state.parts\[1\] is a builtins.object"),
        ({"names": {"a", "b"}}, "state.names is a builtins.set"),
        ({"by_pair": {(1, 2): 3}}, r"state.by_pair has the key \(1, 2\)"),
        ({"call": len}, "state.call is a"),
    ],
)
def test_anything_but_data_is_refused_with_its_path(
    folder: Path, value: dict[str, object], where: str
) -> None:
    with pytest.raises(TypeError, match=where):
        CheckpointStore(folder, 1).save(value, 1, None)
    assert not folder.exists()


def test_nested_parameters_become_plain_tensors() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    assert type(plain({"a": [parameter]})["a"][0]) is torch.Tensor


def test_keep_deletes_the_oldest_with_their_side_files(folder: Path) -> None:
    store = CheckpointStore(folder, 2)
    for step in (100, 200, 300):
        store.save(state_of(step), step, None, export)
    kept = {f"Walker-{s}{end}" for s in (200, 300) for end in (".pt", ".onnx", ".onnx.json")}
    assert names(folder) == kept | {"checkpoint.pt", "manifest.json"}
    assert [saved.step for saved in store.checkpoints] == [200, 300]
    assert store.checkpoints[-1].onnx_path == folder / "Walker-300.onnx"
    assert load_file(folder / "checkpoint.pt")["step"] == 300
    manifest = json.loads((folder / "manifest.json").read_text())
    listed = manifest["checkpoints"][-1]["files"][0]
    assert listed["num_bytes"] == (folder / "Walker-300.pt").stat().st_size


@pytest.mark.parametrize("keep", [0, -1])
def test_keep_of_zero_or_less_deletes_nothing(folder: Path, keep: int) -> None:
    store = CheckpointStore(folder, keep)
    for step in range(1, 8):
        store.save(state_of(step), step, None)
    assert [saved.step for saved in store.checkpoints] == [1, 2, 3, 4, 5, 6, 7]


def test_the_last_final_checkpoint_stays_when_a_run_goes_on(folder: Path) -> None:
    store = CheckpointStore(folder, 2)
    store.save(state_of(100), 100, None, is_final=True)
    for step in (200, 300, 400):
        store.save(state_of(step), step, None)
    assert [saved.step for saved in store.checkpoints] == [100, 400]
    store.save(state_of(500), 500, None, is_final=True)
    assert [saved.step for saved in store.checkpoints] == [400, 500]


def test_names_that_other_programs_put_there_stay(folder: Path) -> None:
    store = CheckpointStore(folder, 1)
    store.save(state_of(1), 1, None)
    (folder / "Walker-999.pt").write_text("mine")
    (folder / "events.out.tfevents.1").write_text("mine")
    store.save(state_of(2), 2, None)
    assert {"Walker-999.pt", "events.out.tfevents.1"} <= names(folder)
    assert store.load()[1].step == 2  # not 999, which no manifest knows


def test_damaged_newest_is_reported_and_the_one_before_it_offered(folder: Path) -> None:
    store = CheckpointStore(folder, 5)
    for step in (480000, 960000):
        store.save(state_of(step), step, None)
    damage(folder / "Walker-960000.pt")
    with pytest.raises(CheckpointError) as caught:
        store.load()
    text = str(caught.value)
    assert text.startswith(f"Checkpoint {folder / 'Walker-960000.pt'} is damaged (checksum ")
    assert "manifest says" in text
    assert text.endswith(
        "The one before it (step 480000) is complete: choose it with --from-step 480000."
    )
    assert store.load(480000)[0]["step"] == 480000
    assert issubclass(CheckpointError, UserError)  # no stack trace, exit code 2


def test_missing_and_shortened_files_are_told_apart(folder: Path) -> None:
    store = CheckpointStore(folder, 5)
    for step in (1, 2, 3):
        store.save(state_of(step), step, None)
    (folder / "Walker-3.pt").unlink()
    with pytest.raises(CheckpointError, match=r"No such file.*\n.*one before it \(step 2\)"):
        store.load()
    (folder / "Walker-2.pt").write_bytes(b"short")
    with pytest.raises(CheckpointError, match=r"No such file.*\n.*Another one \(step 1\)"):
        store.load()
    with pytest.raises(CheckpointError, match=r"damaged \(5 bytes, manifest says \d+\)"):
        store.load(2)
    damage(folder / "Walker-1.pt")
    with pytest.raises(CheckpointError, match=r"No other checkpoint .* is complete"):
        store.load()


def test_an_unknown_step_lists_the_known_ones(folder: Path) -> None:
    store = CheckpointStore(folder, 5)
    for step in (10, 20):
        store.save(state_of(step), step, None)
    with pytest.raises(CheckpointError, match=r"step 15 is not in .*steps 10, 20"):
        store.load(15)


def test_newest_is_the_last_saved_not_the_highest_step(folder: Path) -> None:
    store = CheckpointStore(folder, 5)
    for step in (100, 200, 150):  # resumed from 100
        store.save(state_of(step), step, None)
    assert store.load()[1].step == 150


def test_saving_a_step_again_replaces_it(folder: Path) -> None:
    store = CheckpointStore(folder, 5)
    store.save(state_of(100, marker=1), 100, None, export)
    store.save(state_of(200), 200, None)
    store.save(state_of(100, marker=2), 100, None)
    assert [saved.step for saved in store.checkpoints] == [200, 100]
    assert store.load(100)[0]["marker"] == 2
    assert "Walker-100.onnx" not in names(folder)  # it belonged to the replaced one


def test_failing_export_loses_no_state(folder: Path) -> None:
    def fail(path: Path) -> None:
        raise ValueError("no graph")

    store = CheckpointStore(folder, 5)
    store.save(state_of(1), 1, None, export)
    with pytest.raises(ValueError, match="no graph"):
        store.save(state_of(2), 2, None, fail)
    state, saved = store.load()
    assert (state["step"], saved.onnx_path) == (2, None)


def test_empty_folder_and_folder_without_manifest_say_what_to_do(folder: Path) -> None:
    store = CheckpointStore(folder, 5)
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        store.load()
    store.save(state_of(1), 1, None)
    (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"no manifest.json that lists it.*init_path"):
        store.load()
    (folder / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"manifest.json cannot be read.*init_path"):
        store.load()


def test_ml_agents_checkpoint_is_recognised(folder: Path) -> None:
    folder.mkdir(parents=True)
    path = folder / "checkpoint.pt"
    torch.save({"Policy": {"w": torch.ones(1)}, "global_step": {"s": torch.ones(1)}}, path)
    with pytest.raises(CheckpointError, match=r"written by ML-Agents \(it has the key 'Policy'\)"):
        load_file(path)
    with pytest.raises(CheckpointError, match="written by ML-Agents"):
        CheckpointStore(folder, 5).load()


def test_load_file_refuses_what_is_not_ours(folder: Path) -> None:
    folder.mkdir(parents=True)
    path = folder / "other.pt"
    with pytest.raises(CheckpointError, match="No such file"):
        load_file(path)
    torch.save({"model": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match=r"another program \(it holds \['model'\]\)"):
        load_file(path)
    path.write_bytes(b"\x80\x04not a zip")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_file(path)


def test_load_file_runs_no_code(folder: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    folder.mkdir(parents=True)
    torch.save({"evil": Evil()}, folder / "evil.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_file(folder / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_load_file_finds_one_flipped_bit_anywhere_in_the_tensors(folder: Path) -> None:
    state = {"weights": torch.arange(5000.0)}
    saved = CheckpointStore(folder, 1).save(state, 1, None)
    whole = saved.path.read_bytes()
    damaged = folder / "damaged.pt"
    for at in random.Random(0).sample(range(len(whole) // 4, len(whole) * 3 // 4), 20):
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_file(damaged)


class FileOperations:
    """Counts file operations; raises at the chosen one, before or after it, and ever after."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.crash_at: int | None = None
        self.happens = False
        for owner, name in (
            (os, "replace"),
            (os, "fsync"),
            (os, "link"),
            (os, "unlink"),
            (Path, "unlink"),
            (Path, "write_bytes"),
        ):
            monkeypatch.setattr(owner, name, self._wrapped(getattr(owner, name), name))

    def _wrapped(self, operation: Callable[..., Any], name: str) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.crash_at is None or self.count < self.crash_at:
                return operation(*args, **kwargs)
            if self.count == self.crash_at:
                if name == "write_bytes":  # half of it reaches the disk
                    operation(args[0], args[1][: len(args[1]) // 2])
                elif self.happens:
                    operation(*args, **kwargs)
            raise Crash

        return wrapper


def saved_twice(folder: Path) -> CheckpointStore:
    store = CheckpointStore(folder, 2)
    store.save(state_of(100), 100, None, export, score=1.0)
    store.save(state_of(200), 200, None, export)
    return store


def operations_of_one_save(tmp_path: Path, step: int) -> int:
    store = saved_twice(tmp_path / "count" / "Walker")
    with pytest.MonkeyPatch.context() as patch:
        operations = FileOperations(patch)
        store.save(state_of(step, marker=1), step, None, export, score=2.0)
    return operations.count


@pytest.mark.parametrize("happens", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", [300, 200, 100], ids=["new", "newest again", "oldest again"])
def test_crash_at_every_file_operation_leaves_a_loadable_store(
    tmp_path: Path, step: int, happens: bool
) -> None:
    count = operations_of_one_save(tmp_path, step)
    assert count > 15  # two manifests, state, link, export: at least three operations each
    outcomes = set()
    for crash_at in range(1, count + 1):
        folder = tmp_path / str(crash_at) / "Walker"
        store = saved_twice(folder)
        with pytest.MonkeyPatch.context() as patch:
            operations = FileOperations(patch)
            operations.crash_at, operations.happens = crash_at, happens
            with pytest.raises(Crash):
                store.save(state_of(step, marker=1), step, None, export, score=2.0)

        after = CheckpointStore(folder, 2)
        for saved in after.checkpoints:
            assert after.load(saved.step)[0]["step"] == saved.step
        state, newest = after.load()
        outcomes.add((newest.step, state["marker"]))
        assert load_file(folder / "checkpoint.pt")["step"] in (200, step)
        assert load_file(folder / "best.pt")["step"] in (100, step)

        after.save(state_of(400), 400, None, export, score=3.0)
        listed = {file.name for saved in after.checkpoints for file in saved.files}
        assert len(after.checkpoints) == 3  # two, and the best
        assert names(folder) == listed | {"checkpoint.pt", "manifest.json", "best.pt", "best.onnx"}
        assert load_file(folder / "best.pt")["step"] == 400
    assert outcomes <= {(200, 0), (200, 1), (step, 1)}
    assert (200, 0) in outcomes
    assert (step, 1) in outcomes


def test_crash_in_the_very_first_save_says_so_or_loads(tmp_path: Path) -> None:
    for crash_at in range(1, 19):
        folder = tmp_path / str(crash_at) / "Walker"
        with pytest.MonkeyPatch.context() as patch:
            operations = FileOperations(patch)
            operations.crash_at = crash_at
            with pytest.raises(Crash):
                CheckpointStore(folder, 2).save(state_of(1), 1, None, export)
                raise Crash  # fewer operations than crash_at
        store = CheckpointStore(folder, 2)
        if store.checkpoints:
            assert store.load()[0]["step"] == 1
        else:
            with pytest.raises(CheckpointError, match=r"init_path|no checkpoint"):
                store.load()
        store.save(state_of(2), 2, None)
        assert store.load()[0]["step"] == 2


@pytest.fixture
def saver(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", SAVER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=60) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_9_at_any_moment_loses_nothing_that_was_saved(
    folder: Path, saver: subprocess.Popen[bytes]
) -> None:
    assert saver.stdin is not None
    assert saver.stdout is not None
    chance = random.Random(0)
    acknowledged = 0
    for _ in range(20):
        saver.stdin.write(b"%d\n" % (acknowledged + 1))
        saver.stdin.flush()
        pid = 0
        until = acknowledged + chance.randint(1, 4)
        while pid == 0 or acknowledged < until:
            word = saver.stdout.readline().split()
            if word[0] == b"pid":
                pid = int(word[1])
            else:
                acknowledged = int(word[0])
        time.sleep(chance.uniform(0, 0.01))  # anywhere inside a save, which takes a few ms
        os.kill(pid, signal.SIGKILL)
        while (word := saver.stdout.readline().split()) != [b"dead"]:
            acknowledged = int(word[0])

        store = CheckpointStore(folder, 2)
        state, saved = store.load()
        assert saved.step in (acknowledged, acknowledged + 1)
        assert state["step"] == saved.step
        assert torch.equal(state["weights"], torch.full((2000,), float(saved.step)))
        acknowledged = saved.step
    CheckpointStore(folder, 2).save({"step": 0}, 10**6, None)
    assert len([name for name in names(folder) if name.endswith(".onnx")]) == 1
    assert len([name for name in names(folder) if name.endswith(".pt")]) == 3


def test_score_stays_when_the_same_step_is_saved_again(folder: Path) -> None:
    store = CheckpointStore(folder, keep=5)
    store.save(state_of(100), 100, None, export, score=9.0)
    store.save(state_of(100), 100, None, export, is_final=True)
    (saved,) = store.checkpoints
    assert (saved.score, saved.is_final) == (9.0, True)


def test_best_is_chosen_among_scores_of_the_newest_kind(folder: Path) -> None:
    store = CheckpointStore(folder, keep=5)
    store.save(state_of(100), 100, None, export, score=50.0)  # of training episodes
    store.save(state_of(200), 200, None, export)
    assert store.rate(200, 3.0, num_episodes=20), "the first of its kind"
    store.save(state_of(300), 300, None, export)
    assert not store.rate(300, 2.0, num_episodes=20)
    assert store.best is not None
    assert store.best.step == 200
