"""How long a checkpoint stops the loop: Walker.yaml's 3x512 networks, saved as a run saves them.

    python -m benchmarks.saving [--rounds 20]

A save is what the loop waits for: state, export and its check in onnxruntime, files and fsyncs,
manifest. The first one, which imports onnx, is left out. Where the time goes is printed too.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import machine
from benchmarks.unity_shaped import CONFIGS
from envs.spec import ActionSpec, BehaviorSpec, vector_sensor
from trainer.behavior import Behavior
from trainer.config.load import load_run
from trainer.reporter import Reporter
from trainer.run_storage import RunStorage

SHOWN = ("save", "state_dict", "_to_bytes", "export", "fsync", "atomic_write", "require_space")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: temporary")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        chosen = {"results_dir": folder, "run_id": "saving"}
        settings = load_run(CONFIGS / "Walker.yaml", {"checkpoint_settings": chosen})
        storage = RunStorage(settings, Reporter(), from_step=None)
        storage.restore()
        (name,) = settings.behaviors
        spec = BehaviorSpec([vector_sensor("obs", 243)], ActionSpec(39, ()))
        behavior = Behavior(
            name,
            spec,
            settings.for_behavior(name),
            storage.folder.behavior(name),
            seed=0,
            device=torch.device("cpu"),
            is_training=True,
            state=None,
            starts_at_zero=False,
        )
        storage.schedule.begin(behavior)
        storage.save([behavior])
        seconds: list[float] = []
        profile = cProfile.Profile()
        for round_ in range(options.rounds + 1):
            behavior.step += 1
            started_s = time.perf_counter()
            if round_ == options.rounds:  # apart: a profile slows things down
                profile.runcall(storage.save, [behavior])
            else:
                storage.save([behavior])
                seconds.append(time.perf_counter() - started_s)
        size = (storage.folder.behavior(name) / "checkpoint.pt").stat().st_size
        behavior.metrics.close()
        storage.close()
    about = machine.describe()
    print(
        f"{about['cpu']}, {about['cores']} cores, {about['date']}; checkpoint {size / 1e6:.1f} MB"
    )
    print(
        f"a save stops the loop for {1000 * statistics.median(seconds):.0f} ms (median of "
        f"{len(seconds)}; {1000 * min(seconds):.0f} to {1000 * max(seconds):.0f})"
    )
    pstats.Stats(profile).sort_stats("cumulative").print_stats(28)


if __name__ == "__main__":
    main()
