"""Which probability ratio learns the tiny games better: that of the whole action, or one per part?

    python -m benchmarks.ratio --seeds 10

Trains every game with `ratio: joint` and `ratio: per_dimension`, set up as ML-Agents' own learning
tests are. A run passes when its last 5 episodes earn more than 0.9 in the mean; it has learned at
the first step from which on 20 episodes in a row do. Game and behaviour are in one process, without
a bridge between them, so a run takes seconds and equal seeds give equal figures; tests/learning
trains the same games through the command line. A game with one action dimension is not here: both
ratios are the same there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import describe
from benchmarks.report import RESULTS
from envs.batch import Decisions, Terminals
from envs.spec import (
    ActionSpec,
    BehaviorSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
)
from envs.testing.tiny import TinyEnv
from trainer.behavior import Behavior
from trainer.config.settings import BehaviorSettings

THRESHOLD = 0.9
EPISODES_IN_A_ROW = 20
FIRST_SEED = 1337


@dataclass(frozen=True, slots=True)
class Game:
    """One tiny game and how long it is trained."""

    num_continuous: int
    num_branches: int
    step_size: float
    batch_size: int
    buffer_size: int
    max_steps: int

    @property
    def name(self) -> str:
        """Action dimensions, as in the reference, and the settings."""
        sizes = f"batch {self.batch_size}, buffer {self.buffer_size}"
        return f"({self.num_continuous},{self.num_branches}), step {self.step_size}, {sizes}"

    @property
    def spec(self) -> BehaviorSpec:
        """What the simulator would tell."""
        goal = ObservationSpec((1,), (DimensionProperty.NONE,), ObservationType.DEFAULT, "goal")
        return BehaviorSpec([goal], ActionSpec(self.num_continuous, (2,) * self.num_branches))


GAMES = (
    Game(0, 2, 0.8, 64, 640, 10000),
    Game(2, 0, 0.8, 64, 640, 10000),
    Game(1, 1, 0.8, 64, 640, 10000),
    Game(1, 1, 0.2, 16, 64, 3000),
)


@dataclass(frozen=True, slots=True)
class Result:
    """What one run came to."""

    last_5: float
    steps: int | None
    """At which it had learned; None: never."""


def settings(game: Game, ratio: str) -> BehaviorSettings:
    """Gives ML-Agents' own test settings, with one ratio or the other."""
    hyperparameters = {
        "batch_size": game.batch_size,
        "buffer_size": game.buffer_size,
        "learning_rate": 5.0e-3,
        "learning_rate_schedule": "constant",
        "beta_schedule": "linear",
        "epsilon_schedule": "linear",
        "ratio": ratio,
    }
    return BehaviorSettings.model_validate(
        {
            "trainer_type": "ppo",
            "hyperparameters": hyperparameters,
            "network_settings": {"num_layers": 1, "hidden_units": 32},
            "max_steps": game.max_steps,
            "time_horizon": 64,
        }
    )


def columns(env: TinyEnv, lane: int, reward: float) -> dict[str, Any]:
    """Gives what a message says of the only agent."""
    ints = {name: np.zeros(1, np.int32) for name in ("agent_id", "simulator", "team", "group_id")}
    return {
        "obs": (np.full((1, 1), env.goal, np.float32),),
        "reward": np.full(1, reward, np.float32),
        "lane": np.full(1, lane, np.int64),
        "group_reward": np.zeros(1, np.float32),
        **ints,
    }


def train(game: Game, ratio: str, seed: int) -> Result:
    """Trains once; takes some seconds."""
    env = TinyEnv(game.num_continuous, game.num_branches, game.step_size, str(seed))
    with tempfile.TemporaryDirectory(prefix="ppo-train-ratio-") as folder:
        behavior = Behavior(
            "1D",
            game.spec,
            settings(game, ratio),
            Path(folder),
            seed=seed,
            device=torch.device("cpu"),
            is_training=True,
            state=None,
            starts_at_zero=True,
        )
        returns, ends = play(behavior, env)
        behavior.metrics.close()
    above = np.convolve(returns, np.ones(EPISODES_IN_A_ROW), "valid") / EPISODES_IN_A_ROW
    first = np.flatnonzero(above > THRESHOLD)
    steps = ends[first[0] + EPISODES_IN_A_ROW - 1] if len(first) else None
    return Result(float(np.mean(returns[-5:])), steps)


def play(behavior: Behavior, env: TinyEnv) -> tuple[list[float], list[int]]:
    """Collects and learns to the end; gives each episode's return, and the step at its end."""
    mask = np.ones((1, 2 * env.num_branches), np.bool_) if env.num_branches else None
    reward, episode = 0.0, 0
    returns, ends = [0.0], []
    while not behavior.is_finished:
        # An ended lane is free again with the next message, so two of them take turns.
        decisions = Decisions(**columns(env, episode % 2, reward), action_mask=mask)
        (actions,) = behavior.decide([decisions])
        outcome = env.step(actions.continuous[0].tolist(), actions.discrete[0].tolist())
        reward = outcome.reward
        returns[-1] += reward
        if outcome.terminated:
            last = columns(env, episode % 2, reward)
            behavior.end([Terminals(**last, truncated=np.zeros(1, np.bool_))])
            ends.append(behavior.step)
            returns.append(0.0)
            env.reset()
            reward, episode = 0.0, episode + 1
        if behavior.is_ready_to_learn:
            behavior.learn()
    return returns[:-1], ends


def row(game: Game, ratio: str, results: list[Result]) -> dict[str, object]:
    """Gives the figures of one game and ratio."""
    steps = [result.steps for result in results if result.steps is not None]
    last = [result.last_5 for result in results]
    return {
        "game": game.name,
        "ratio": ratio,
        "passed": sum(earned > THRESHOLD for earned in last),
        "seeds": len(results),
        "learned": len(steps),
        "median_steps": int(statistics.median(steps)) if steps else None,
        "most_steps": max(steps) if len(steps) == len(results) else None,
        "lowest_end": round(min(last), 3),
        "median_end": round(statistics.median(last), 3),
        "runs": [[round(result.last_5, 3), result.steps] for result in results],
    }


def table(rows: list[dict[str, object]]) -> str:
    """Writes the figures as a Markdown table."""
    columns = ("game", "ratio", "passed", "learned", "median_steps", "most_steps", "lowest_end")
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for figures in rows:
        shares = {name: f"{figures[name]}/{figures['seeds']}" for name in ("passed", "learned")}
        shown = {**figures, **shares}
        cells = ("not all" if shown[name] is None else str(shown[name]) for name in columns)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Trains everything, one run at a time, and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ratio", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--ratios", nargs="+", default=["joint", "per_dimension"])
    options = parser.parse_args()
    machine = describe()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for game in GAMES:
        for ratio in options.ratios:
            began = time.perf_counter()
            seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
            rows.append(row(game, ratio, [train(game, ratio, seed) for seed in seeds]))
            print(f"{game.name} {ratio}: {time.perf_counter() - began:.0f} s", flush=True)
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    print(table(rows))
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / "ratio.json"
    path.write_text(json.dumps({"benchmark": "ratio", "machine": machine, "rows": rows}, indent=1))
    print(f"written: {path}")


if __name__ == "__main__":
    main()
