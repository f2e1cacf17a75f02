from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytest import approx
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.config.settings import BehaviorSettings
from trainer.metrics import Metrics

RETURN, LENGTH = "Environment/Cumulative Reward", "Environment/Episode Length"


def read(folder: Path) -> Any:
    """What TensorBoard shows of a folder, all event files together."""
    events: Any = EventAccumulator(
        str(folder), size_guidance={"tensors": 0, "scalars": 0, "histograms": 0}
    )
    events.Reload()
    return events


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in read(folder).Scalars(tag)]


def event_files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("events.out.tfevents.*")}


def test_summary_shows_the_mean_since_the_last_one(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "run" / "Crab", None)
    metrics.add({"Losses/Policy Loss": 1.0, "Policy/Entropy": torch.tensor(8.0)})
    metrics.add({"Losses/Policy Loss": torch.tensor(4.0)})
    written = metrics.write(1000)
    metrics.add({"Losses/Policy Loss": 7.0})
    metrics.write(2000)
    metrics.close()
    folder = tmp_path / "run" / "Crab"
    assert written == {"Losses/Policy Loss": 2.5, "Policy/Entropy": 8.0}
    assert curve(folder, "Losses/Policy Loss") == [(1000, 2.5), (2000, 7.0)]
    assert curve(folder, "Policy/Entropy") == [(1000, 8.0)]


def test_user_stats_are_averaged_summed_or_the_latest_of_simulator_zero(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, None)
    for simulator, value in ((0, 1.0), (1, 2.0), (0, 6.0), (2, 100.0)):
        metrics.add_user_stat("mean", value, "AVERAGE", simulator)
        metrics.add_user_stat("sum", value, "SUM", simulator)
        metrics.add_user_stat("latest", value, "MOST_RECENT", simulator)
    metrics.add_user_stat("nobody", 5.0, "MOST_RECENT", 3)
    first = metrics.write(10)
    # (1 + 2 + 6 + 100) / 4
    assert first == {"mean": 27.25, "sum": 109.0, "latest": 6.0}
    assert metrics.write(20) == {}
    metrics.close()
    assert curve(tmp_path, "sum") == [(10, 109.0)]


def test_histograms_get_their_mean_and_a_tag_of_their_own(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, None)
    for value in (1.0, 2.0, 6.0):
        metrics.add_user_stat("Depth", value, "HISTOGRAM", simulator=4)
    metrics.write(30)
    metrics.write(40)
    metrics.close()
    events = read(tmp_path)
    assert curve(tmp_path, "Depth") == [(30, 3.0)]
    (point,) = events.Histograms("Depth_hist")
    drawn = point.histogram_value
    assert (point.step, drawn.num, drawn.min, drawn.max, drawn.sum) == (30, 3, 1.0, 6.0, 9.0)


def test_episodes_are_shown_as_ml_agents_shows_them(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, None)
    metrics.add_episodes(np.zeros(0), np.zeros(0, dtype=np.int64))
    assert metrics.write(10) == {}
    metrics.add_episodes(np.array([1.0, 3.0]), np.array([10, 21]))
    metrics.add_episodes(np.array([5.0]), np.array([2]))
    metrics.write(20)
    metrics.close()
    assert curve(tmp_path, RETURN) == [(20, 3.0)]
    # ML-Agents leaves out the last transition: (9 + 20 + 1) / 3
    assert curve(tmp_path, LENGTH) == [(20, 10.0)]
    (point,) = read(tmp_path).Histograms(f"{RETURN}_hist")
    assert point.histogram_value.num == 3


def test_mean_of_episodes_is_over_episodes_not_over_messages(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, None)
    metrics.add_episodes(np.array([0.0] * 9), np.ones(9, dtype=np.int64))
    metrics.add_episodes(np.array([10.0]), np.ones(1, dtype=np.int64))
    assert metrics.write(1)[RETURN] == approx(1.0)
    metrics.close()


def test_new_run_deletes_old_event_files_and_nothing_else(tmp_path: Path) -> None:
    old = Metrics(tmp_path, None)
    old.add({"tag": 1.0})
    old.write(1000)
    old.close()
    (tmp_path / "checkpoint.pt").write_bytes(b"kept")
    before = event_files(tmp_path)
    new = Metrics(tmp_path, None)
    new.add({"tag": 2.0})
    new.write(500)
    new.close()
    assert len(event_files(tmp_path)) == 1
    assert not before & event_files(tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"kept"
    assert curve(tmp_path, "tag") == [(500, 2.0)]


def test_resumed_run_keeps_the_curve_up_to_its_step_and_takes_the_rest_back(
    tmp_path: Path,
) -> None:
    old = Metrics(tmp_path, None)
    for step in (1000, 2000, 3000):
        old.add({"tag": float(step)})
        old.write(step)
    old.close()
    before = event_files(tmp_path)
    # Two writers of one second and process must not share a file name.
    resumed = Metrics(tmp_path, resume_step=2000)
    resumed.add({"tag": 7.0})
    resumed.write(3000)
    resumed.add({"tag": 8.0})
    resumed.write(4000)
    resumed.close()
    assert before < event_files(tmp_path)
    expected = [(1000, 1000.0), (2000, 2000.0), (3000, 7.0), (4000, 8.0)]
    assert curve(tmp_path, "tag") == expected


def test_lesson_numbers_are_shown_at_every_summary(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, None)
    metrics.lesson_numbers = {"mass": 0, "wall height": 2}
    metrics.write(10)
    metrics.write(20)
    metrics.close()
    assert curve(tmp_path, "Environment/Lesson Number/mass") == [(10, 0.0), (20, 0.0)]
    assert curve(tmp_path, "Environment/Lesson Number/wall height") == [(10, 2.0), (20, 2.0)]


def test_settings_are_shown_as_text(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, None)
    settings = BehaviorSettings.model_validate({"time_horizon": 77})
    metrics.write_settings(settings, 5)
    metrics.close()
    (point,) = read(tmp_path).Tensors("Hyperparameters/text_summary")
    text = point.tensor_proto.string_val[0].decode()
    assert point.step == 5
    assert '"time_horizon": 77' in text
    # TensorBoard renders Markdown: four spaces keep the lines as they are
    assert all(line.startswith("    ") for line in text.splitlines())


def test_flush_makes_points_visible_while_the_file_is_open(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, None)
    metrics.add({"tag": 1.0})
    metrics.write(10)
    metrics.flush()
    assert curve(tmp_path, "tag") == [(10, 1.0)]
    metrics.close()


def test_statistics_wait_as_tensors_until_the_summary(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, None)
    value = torch.tensor(1.0)
    metrics.add({"tag": value})
    value.fill_(5.0)  # read at the summary, not before: nobody waits for a device
    assert metrics.write(1) == {"tag": 5.0}
    metrics.close()


FULL_DISK = """
import sys, threading
from pathlib import Path
from tensorboard.summary.writer.record_writer import RecordWriter
from trainer.metrics import Metrics, print_no_writer_errors

print_no_writer_errors()
metrics = Metrics(Path(sys.argv[1]), None)

def full(self, data):
    raise OSError(28, "No space left on device")

RecordWriter.write = full
metrics.add({"tag": 1.0})
metrics.write(1)
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join()
try:
    metrics.close()
except OSError as error:
    print("heard:", error)
other = threading.Thread(target=lambda: 1 / 0)
other.start()
other.join()
"""


def test_full_disk_is_told_by_the_writer_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout == "heard: [Errno 28] No space left on device\n", done.stderr
    assert "No space left" not in done.stderr
    assert "ZeroDivisionError" in done.stderr  # other threads' errors are printed as ever
