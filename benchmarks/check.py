"""How long `ppo-train check behaviors.yaml` takes, from the start of the process to its end.

    python -m benchmarks.check [--rounds 10]

The peer has no such command. What a user has instead is `mlagents-learn` itself, which names a
misspelled key when it has started far enough; both are timed on a file with a misspelled key too.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks import machine, report, trainers

MUST_S = 0.5
MISSPELLED = "behaviors:\n  Walker:\n    trainer_type: ppo\n    time_horizn: 1000\n"


def seconds(command: list[str], expect_success: bool) -> float:
    """Times one process; waits for its end.

    Raises:
        RuntimeError: it succeeded where it should have failed, or the other way round.
    """
    started_s = time.perf_counter()
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    took_s = time.perf_counter() - started_s
    if (process.returncode == 0) != expect_success:
        raise RuntimeError(
            f"{' '.join(command)} ended with exit code {process.returncode}:\n"
            f"{process.stdout}{process.stderr}"
        )
    if not expect_success and "time_horizn" not in process.stdout + process.stderr:
        raise RuntimeError(f"{' '.join(command)} failed, but not for the misspelled key:")
    return took_s


def main() -> None:
    """Measures and publishes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--settings", default=str(trainers.REPOSITORY / "behaviors.yaml"))
    parser.add_argument("--mlagents-venv", type=Path, default=Path(".venv-mlagents"))
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    options = parser.parse_args()

    ours = trainers.ppo_train()
    peer = trainers.mlagents_learn(options.mlagents_venv)
    about = machine.describe(**{peer.name: peer.python})
    report.warn_if_busy(about)
    took: dict[str, list[float]] = {"check": [], "misspelled": [], "peer misspelled": []}
    with tempfile.TemporaryDirectory(prefix="ppo-train-bench-") as folder:
        misspelled = str(Path(folder) / "misspelled.yaml")
        Path(misspelled).write_text(MISSPELLED)
        # What the peer would launch, if it got so far.
        nowhere = ["--env", "nowhere", "--results-dir", folder]
        for _ in range(options.rounds):
            took["check"].append(seconds([*ours.command, "check", options.settings], True))
            took["misspelled"].append(seconds([*ours.command, "check", misspelled], False))
            took["peer misspelled"].append(seconds([*peer.command, misspelled, *nowhere], False))
    middle = {name: sorted(values)[len(values) // 2] for name, values in took.items()}
    rows = [
        report.TableRow(
            work="`ppo-train check behaviors.yaml`",
            ours=f"{middle['check']:.2f} s",
            peer="no such command",
            ratio=None,
            must=f"< {MUST_S} s",
            met=middle["check"] < MUST_S,
        ),
        report.TableRow(
            work="time to learn of a misspelled key",
            ours=f"{middle['misspelled']:.2f} s",
            peer=f"mlagents-learn {middle['peer misspelled']:.2f} s",
            ratio=round(middle["peer misspelled"] / middle["misspelled"], 2),
            must="",
            met=None,
        ),
    ]
    raw = {name: [round(value, 4) for value in values] for name, values in took.items()}
    report.publish("check", about, rows, raw, options.results)


if __name__ == "__main__":
    main()
