"""How long a checkpoint stops the loop: Walker.yaml's 3x512 networks, saved as a run saves them.

    python -m benchmarks.saving [--rounds 20]

A save is a copy of the state, which the loop waits for, and then, in a thread, export and its
check in onnxruntime, files and fsyncs, manifest. Both are printed; together they are what the loop
waits for at the end of a run. The first save, which imports onnx, is left out.
"""

from __future__ import annotations

import argparse
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
        stops: list[float] = []
        wholes: list[float] = []
        for _ in range(options.rounds):
            behavior.step += 1
            started_s = time.perf_counter()
            storage.save([behavior], in_background=True)
            stops.append(time.perf_counter() - started_s)
            storage.save([])  # waits for it
            wholes.append(time.perf_counter() - started_s)
        size = (storage.folder.behavior(name) / "checkpoint.pt").stat().st_size
        behavior.metrics.close()
        storage.close()
    about = machine.describe()
    print(
        f"{about['cpu']}, {about['cores']} cores, {about['date']}; checkpoint {size / 1e6:.1f} MB"
    )
    for what, seconds in (("the loop stands still", stops), ("until it is saved", wholes)):
        print(
            f"{what}: {1000 * statistics.median(seconds):.0f} ms (median of {len(seconds)}; "
            f"{1000 * min(seconds):.0f} to {1000 * max(seconds):.0f})"
        )


if __name__ == "__main__":
    main()
