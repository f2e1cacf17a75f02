"""Steps per second of ppo-train and of other trainers on the same Gymnasium work, in turns.

    python -m benchmarks.gym_peers --peers skrl rsl_rl cleanrl [--rows walker-64 ...] [--rounds 3]

Peers live outside this repository: benchmarks/make_peers.sh makes a venv for each. CleanRL is
scripts and no package; a copy has to be there, whose folder --cleanrl-scripts names (see
peers/cleanrl_ppo.py). Not measured: PufferLib has no wheel, and its sources fetch parts from the
web while they are built; Sample Factory 2 wants a Gymnasium before 1.0, which has no Walker2d-v5.
Takes about 2 minutes for a row and a peer.

`PEERS`, `Work` and `measure` are for other benchmarks, too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import gym_shaped, machine, report, trainers
from benchmarks.trainers import Job

SCRIPTS = trainers.REPOSITORY / "benchmarks" / "peers"


@dataclass(frozen=True, slots=True)
class Work:
    """What everybody trains; fields are the arguments of the runners in peers/."""

    env: str
    updates: int
    """Of one run; some 10 to 20 s."""
    envs: int = 8
    steps: int = 256
    """Of each environment, per update."""
    batch: int = 64
    epochs: int = 10
    layers: int = 2
    hidden: int = 64

    @property
    def title(self) -> str:
        """What stands in the table."""
        net = f"{self.layers}x{self.hidden}"
        return (
            f"{self.env}, {self.envs} envs, {self.steps} steps, batch {self.batch}, "
            f"{self.epochs} epochs, {net}"
        )


@dataclass(frozen=True, slots=True)
class Peer:
    """A trainer that runs in a venv of its own."""

    name: str
    script: str
    """Of benchmarks/peers."""
    has_discrete: bool = True
    any_network: bool = True
    """Whether --layers and --hidden may be others than 2 and 64."""

    def can(self, work: Work) -> bool:
        """Whether it can do this work."""
        is_discrete = work.env.startswith("CartPole")
        is_usual = (work.layers, work.hidden) == (2, 64)
        return (self.has_discrete or not is_discrete) and (self.any_network or is_usual)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("cleanrl", "cleanrl_ppo.py", any_network=False),
        Peer("skrl", "skrl_ppo.py"),
        Peer("rsl_rl", "rsl_rl_ppo.py", has_discrete=False),
    )
}
ROWS = {
    "cartpole-256": Work("CartPole-v1", updates=150, steps=128, batch=256, epochs=4),
    "cartpole-64": Work("CartPole-v1", updates=30),
    "walker-64": Work("Walker2d-v5", updates=20),
    "walker-2048": Work("Walker2d-v5", updates=5, steps=2048, batch=2048, epochs=3),
    "walker-2048-3x512": Work(
        "Walker2d-v5", updates=3, steps=2048, batch=2048, epochs=3, layers=3, hidden=512
    ),
}


def python_of(peer: str, venvs: Path) -> Path:
    """Finds a peer's interpreter.

    Raises:
        SystemExit: its venv is not there.
    """
    python = trainers.REPOSITORY / venvs / f".venv-{peer}" / "bin" / "python"
    if not python.exists():
        sys.exit(f"{python} is not there; benchmarks/make_peers.sh {peer} makes it.")
    return python


def measure(peer: Peer, work: Work, python: Path, extra: list[str]) -> float:
    """Trains once with a peer and gives its steps per second; waits for it.

    Args:
        peer: which.
        work: what it `can` do.
        python: of its venv.
        extra: more arguments of its runner.

    Raises:
        RuntimeError: it failed; the end of what it said is in the message.
    """
    command = [str(python), str(SCRIPTS / peer.script), *extra]
    for name, value in asdict(work).items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith('{"steps_per_s"')]
    if done.returncode or not found:
        tail = "\n  ".join((done.stdout + done.stderr).splitlines()[-20:])
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode} and no result:\n  {tail}"
        )
    return float(json.loads(found[-1])["steps_per_s"])


def measure_ours(work: Work) -> float:
    """Trains once over the bridge: two simulators, half of the environments each."""
    buffer = work.envs * work.steps
    settings = gym_shaped.settings(work.env)
    (behavior,) = settings["behaviors"].values()  # type: ignore[attr-defined] # a mapping
    behavior["hyperparameters"] |= {
        "batch_size": work.batch,
        "buffer_size": buffer,
        "num_epoch": work.epochs,
    }
    behavior["network_settings"] |= {"hidden_units": work.hidden, "num_layers": work.layers}
    behavior["time_horizon"] = work.steps
    job = Job(settings, f"gym:{work.env}", 2, work.envs // 2, buffer)
    # Odd; short cycles have a summary only every few of them.
    per_mark = 5 if work.updates >= 20 else 1
    return trainers.end_to_end(trainers.ppo_train(), job, work.updates, per_mark)


def table_row(row: str, measured: dict[str, list[float]]) -> report.TableRow:
    """Writes the line of one work, against the fastest peer; all of them are named."""
    rates = {name: report.median(runs) for name, runs in measured.items()}
    ours = rates.pop("ppo-train")
    best = max(rates.values(), default=0.0)
    return report.TableRow(
        work=ROWS[row].title,
        ours=f"{ours:,.0f} steps/s",
        peer=", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()),
        ratio=round(ours / best, 2) if best else None,
        must="> 1 x" if best else "",
        met=ours > best if best else None,
    )


def main() -> None:
    """Measures the rows and publishes them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=["skrl", "rsl_rl"])
    parser.add_argument("--venvs", type=Path, default=Path(), help="folder of .venv-skrl, ...")
    parser.add_argument("--cleanrl-scripts", type=Path, help="CleanRL's folder cleanrl/")
    parser.add_argument("--updates", type=int, help="of one run; default: 10 to 20 s of work")
    parser.add_argument("--results", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    if "cleanrl" in options.peers and options.cleanrl_scripts is None:
        parser.error("cleanrl wants --cleanrl-scripts, the folder cleanrl/ of a copy of it")

    pythons = {name: python_of(name, options.venvs) for name in options.peers}
    extra = {"cleanrl": ["--scripts", str(options.cleanrl_scripts)]}
    about = machine.describe(**pythons)
    report.warn_if_busy(about)
    measured: dict[str, dict[str, list[float]]] = {}
    for row in options.rows:
        work = ROWS[row]
        if options.updates:
            work = Work(**{**asdict(work), "updates": options.updates})
        able = [name for name in options.peers if PEERS[name].can(work)]
        own = measured[row] = {name: [] for name in ("ppo-train", *able)}
        for _ in range(options.rounds):
            for name, rates in own.items():
                if name == "ppo-train":
                    rates.append(measure_ours(work))
                else:
                    rates.append(measure(PEERS[name], work, pythons[name], extra.get(name, [])))
                print(f"{row:18} {name:10} {rates[-1]:10,.0f}", flush=True)
    lines = [table_row(row, runs) for row, runs in measured.items()]
    report.publish("gym_peers", about, lines, measured, options.results)


if __name__ == "__main__":
    main()
