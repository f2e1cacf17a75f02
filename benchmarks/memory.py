"""Resident memory of the trainer process over time: Walker.yaml and 8 null simulators.

    python -m benchmarks.memory [--minutes 30] [--only ppo-train | mlagents-learn]

Without --only both are measured, mlagents-learn for `--peer-minutes`. The trainer is
ended with SIGINT, as a user would. What counts is the most that was resident within each interval,
which the kernel keeps (VmHWM, set back after every reading): an update takes 200 MB and gives them
back, so single readings say where in an update they fell. Prints start, end, largest and slope. The
first 20 % of the time do not count for the slope: buffers and the network's own memory are still
growing there.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from benchmarks import machine, report, trainers
from benchmarks.trainers import Trainer
from benchmarks.unity_shaped import CONFIGS, WALKER, make_job

NUM_SIMULATORS = 8
MUST_MB = 700.0
# 10 MB in 30 minutes is what an allocator's own wandering looks like.
FLAT_MB_PER_HOUR = 20.0
WARM_UP = 0.2


@dataclass(frozen=True, slots=True)
class Memory:
    """The most that was resident of one trainer's main process, interval by interval."""

    minutes: list[float]
    peaks_mb: list[float]

    def settled(self) -> tuple[np.ndarray, np.ndarray]:
        """Gives minutes and megabytes without the warm-up."""
        minutes, peaks = np.array(self.minutes), np.array(self.peaks_mb)
        late = minutes >= WARM_UP * minutes[-1]
        return minutes[late], peaks[late]

    def slope_mb_per_hour(self) -> float:
        """Gives the median of the slopes between any two intervals behind the warm-up.

        Of Theil and Sen: an interval in which no update fell says nothing of growth.
        """
        minutes, peaks = self.settled()
        first, second = np.triu_indices(len(minutes), k=1)
        slopes = (peaks[second] - peaks[first]) / (minutes[second] - minutes[first])
        return float(np.median(slopes)) * 60.0

    def to_json(self) -> dict[str, object]:
        """Gives the figures, and at most 60 peaks."""
        stride = max(1, len(self.minutes) // 60)
        return {
            "start_mb": round(float(self.settled()[1][0]), 1),
            "end_mb": round(self.peaks_mb[-1], 1),
            "max_mb": round(max(self.peaks_mb), 1),
            "slope_mb_per_hour": round(self.slope_mb_per_hour(), 2),
            "minutes": [round(minute, 2) for minute in self.minutes[::stride]],
            "peaks_mb": [round(value, 1) for value in self.peaks_mb[::stride]],
        }


def resident_mb(pid: int, field: str = "VmRSS") -> float:
    """Reads the resident memory of a process, in 1e6 bytes: now, or with VmHWM the most so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"process {pid} has no {field}; it has ended")


def take_peak_mb(pid: int) -> float:
    """Reads the most that was resident of a process since the last call, in 1e6 bytes."""
    peak_mb = resident_mb(pid, "VmHWM")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # sets the mark back; see proc(5)
    return peak_mb


def measure(trainer: Trainer, minutes: float, configs: Path, sample_s: float) -> Memory:
    """Trains for some minutes and samples; waits for the trainer's end.

    Raises:
        RuntimeError: the trainer ended early; the end of its output is in the message.
    """
    with make_job(WALKER, NUM_SIMULATORS, configs) as job, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = folder / "settings.yaml"
        settings.write_text(yaml.safe_dump(job.changed(max_steps=trainers.ENDLESS)))
        command = trainers.command_line(trainer, settings, job)
        output = folder / "output.txt"
        with output.open("w") as stream:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                return _sample(process, minutes * 60.0, sample_s, output)
            finally:
                trainers.end(process)


def _sample(
    process: subprocess.Popen[bytes], duration_s: float, sample_s: float, output: Path
) -> Memory:
    """Samples the peaks of a running process for `duration_s`."""
    memory = Memory([], [])
    started_s = time.monotonic()
    while (passed_s := time.monotonic() - started_s) < duration_s:
        if process.poll() is not None:
            tail = "\n  ".join(output.read_text().splitlines()[-30:])
            raise RuntimeError(f"the trainer ended after {passed_s:.0f} s:\n  {tail}")
        time.sleep(sample_s)
        memory.minutes.append(passed_s / 60.0)
        memory.peaks_mb.append(take_peak_mb(process.pid))
    return memory


def table_rows(measured: dict[str, Memory]) -> list[report.TableRow]:
    """Writes the lines: how much, and whether it grows."""
    ours = measured["ppo-train"]
    largest, slope = max(ours.peaks_mb), ours.slope_mb_per_hour()
    peer = measured.get("mlagents-learn")
    shown = "" if peer is None else f"mlagents-learn {max(peer.peaks_mb):,.0f} MB"
    return [
        report.TableRow(
            work=f"memory of the trainer process, Walker.yaml, {NUM_SIMULATORS} simulators",
            ours=f"{largest:,.0f} MB",
            peer=shown,
            ratio=None,
            must=f"< {MUST_MB:.0f} MB",
            met=largest < MUST_MB,
        ),
        report.TableRow(
            work=f"its growth over {ours.minutes[-1]:.0f} minutes",
            ours=f"{slope:+.1f} MB per hour",
            peer="" if peer is None else f"{peer.slope_mb_per_hour():+.1f} MB per hour",
            ratio=None,
            must="flat",
            met=slope < FLAT_MB_PER_HOUR,
        ),
    ]


def main() -> None:
    """Measures and publishes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--peer-minutes", type=float, default=3.0, help="0: without the peer")
    parser.add_argument("--sample-s", type=float, default=15.0)
    parser.add_argument("--only", choices=["ppo-train", "mlagents-learn"], help="prints, no JSON")
    parser.add_argument("--mlagents-venv", type=Path, default=Path(".venv-mlagents"))
    parser.add_argument("--configs", type=Path, default=CONFIGS)
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    options = parser.parse_args()

    peer = trainers.mlagents_learn(options.mlagents_venv)
    about = machine.describe(**{peer.name: peer.python})
    measured: dict[str, Memory] = {}
    for name, minutes in (
        ("ppo-train", options.minutes),
        ("mlagents-learn", options.peer_minutes),
    ):
        if minutes <= 0 or options.only not in (None, name):
            continue
        trainer = trainers.ppo_train() if name == "ppo-train" else peer
        measured[name] = measure(trainer, minutes, options.configs, options.sample_s)
        figures = measured[name].to_json()
        print(name, {key: figures[key] for key in list(figures)[:4]}, flush=True)
    if not options.only:
        raw = {name: memory.to_json() for name, memory in measured.items()}
        report.publish("memory", about, table_rows(measured), raw, options.results)


if __name__ == "__main__":
    main()
