"""wandb's offline mode, its files read back record by record."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("wandb")
from wandb_files import records, rows

# In a process of its own, as the mirror is: wandb changes hooks of the whole process.
PROGRAM = """
import sys
from pathlib import Path
from trainer.config.tracker_settings import WandbSettings
from trainer.trackers.journal import Point
from trainer.trackers.wandb_tracker import WandbTracker

folder = Path(sys.argv[1])
tracker = WandbTracker(WandbSettings(mode="offline", project="walkers"), "run7", folder)
crab, fish = tracker.begin("Crab", {"max_steps": "5"}), tracker.begin("Fish", {})
crab.log(Point("Crab", 1000, 5.5, {"Losses/Policy Loss": 0.25, "Policy/Entropy": 1.0}))
fish.log(Point("Fish", 30, 6.0, {"Losses/Policy Loss": 3.0}))
crab.log(Point("Crab", 2000, 7.0, {"Losses/Policy Loss": 0.5}))
crab.finish(None), fish.finish(0)
again = tracker.go_on(crab.id, "Crab", 2000)
again.log(Point("Crab", 3000, 8.0, {"Losses/Policy Loss": 0.75}))
again.finish(0)
tracker.close()
print(crab.id, fish.id, again.id)
"""


def test_points_come_back_with_their_tags_steps_and_times(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # the terminal is the trainer's
    crab, fish, again = done.stdout.split()
    assert again == crab != fish
    loss = "Losses/Policy Loss"
    assert rows(tmp_path, crab) == [
        {loss: 0.25, "Policy/Entropy": 1.0, "_timestamp": 5.5, "_step": 1000},
        {loss: 0.5, "_timestamp": 7.0, "_step": 2000},
        {loss: 0.75, "_timestamp": 8.0, "_step": 3000},
    ]
    assert rows(tmp_path, fish) == [{loss: 3.0, "_timestamp": 6.0, "_step": 30}]
    path = min(tmp_path.glob(f"wandb/offline-run-*/run-{crab}.wandb"))
    (run,) = [record.run for record in records(path) if record.HasField("run")]
    assert (run.project, run.display_name, run.run_group) == ("walkers", "run7/Crab", "run7")
    config = {update.key: json.loads(update.value_json) for update in run.config.update}
    assert config["max_steps"] == "5"
