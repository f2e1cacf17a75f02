"""Checkpoints played by themselves, in a process beside the trainer, to choose the best one.

    python -m trainer.checkpoint_evaluation results/run Walker 500000 20

plays 20 episodes with the checkpoint of step 500000 and prints their mean return as JSON. Actions
are the likeliest ones and every checkpoint meets the same seed, so what differs is the policy. It
starts a simulator of its own, as `ppo-train eval` does: a Unity build as well as `gym:`. Collection
never waits; of checkpoints that come while one is played, only the newest is played next.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainer.config.load import load_run
from trainer.config.settings import RunSettings
from trainer.run_folder import RunFolder

SEED_OFFSET = 1_000_003  # away from the seeds of the simulators that are learnt from
POLL_S = 0.2
END_LIMIT_S = 900.0  # for the checkpoint that a run ends with
KILL_WAIT_S = 5.0
LOGS = "evaluation"


@dataclass(frozen=True, slots=True)
class Played:
    """One checkpoint, and what it earned."""

    behavior: str
    step: int
    mean_return: float | None  # None: it could not be played
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Playing:
    behavior: str
    step: int
    process: subprocess.Popen[bytes]


class CheckpointEvaluation:
    """Plays one checkpoint at a time. Without `evaluation_episodes` it plays none."""

    def __init__(self, settings: RunSettings, run: Path) -> None:
        """Starts nothing yet.

        Args:
            settings: of the run.
            run: its folder.
        """
        self._episodes = settings.checkpoint_settings.evaluation_episodes
        self._run = run
        self._playing: _Playing | None = None
        self._failed: Played | None = None  # whose process did not even start
        self._next: dict[str, int] = {}  # newest step that waits, by behaviour

    @property
    def is_on(self) -> bool:
        """Whether checkpoints are chosen by episodes of their own."""
        return self._episodes is not None

    def held(self, behavior: str) -> set[int]:
        """Gives the steps whose checkpoints must not be deleted: they are played, or will be."""
        held = {self._next[behavior]} if behavior in self._next else set()
        if self._playing is not None and self._playing.behavior == behavior:
            held.add(self._playing.step)
        return held

    def ask_for(self, behavior: str, step: int) -> None:
        """Has a checkpoint played, once no other one is."""
        if self.is_on:
            self._next[behavior] = step
            self._start_next()

    def take(self) -> Played | None:
        """Gives what has been played since the last call; never waits."""
        if (failed := self._failed) is not None:
            self._failed = None
            return failed
        playing = self._playing
        if playing is None or playing.process.poll() is None:
            return None
        self._playing = None
        played = self._read(playing)
        self._start_next()
        return played

    def wait(self, deadline: float, must_stop: Callable[[], bool]) -> Played | None:
        """Waits for the next result, up to a time.monotonic(); None: nothing is played any more."""
        while self._playing is not None and not must_stop() and time.monotonic() < deadline:
            played = self.take()
            if played is not None:
                return played
            time.sleep(POLL_S)
        self.end()
        return None

    def end(self) -> None:
        """Ends what is being played; its simulator ends with it."""
        self._next.clear()
        if self._playing is None:
            return
        process, self._playing = self._playing.process, None
        process.terminate()
        try:
            process.wait(KILL_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin is not None
        process.stdin.close()

    def _start_next(self) -> None:
        if self._playing is not None or not self._next:
            return
        behavior = next(iter(self._next))
        step = self._next.pop(behavior)
        try:
            process = self._process(behavior, step)
        except OSError as error:
            self._failed = Played(behavior, step, None, str(error))
            return
        self._playing = _Playing(behavior, step, process)

    def _process(self, behavior: str, step: int) -> subprocess.Popen[bytes]:
        # -P: a folder named `trainer` where the run is started is none of ours.
        words = [str(self._run), behavior, str(step), str(self._episodes)]
        command = [sys.executable, "-P", "-m", "trainer.checkpoint_evaluation", *words]
        folder = self._run / "run_logs" / LOGS
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "said.log").open("wb") as said, self._answer.open("wb") as answer:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # its end tells that the trainer has ended
                stdout=answer,
                stderr=said,
                start_new_session=True,  # Ctrl-C is for the trainer
            )

    def _read(self, playing: _Playing) -> Played:
        behavior, step = playing.behavior, playing.step
        assert playing.process.stdin is not None
        playing.process.stdin.close()
        try:
            mean_return = float(json.loads(self._answer.read_bytes())["mean_return"])
        except (OSError, ValueError, KeyError, TypeError):
            said = (self._run / "run_logs" / LOGS / "said.log").read_text(errors="replace")
            lines = [line for line in said.splitlines() if line.strip()]
            problem = lines[-1] if lines else f"exit code {playing.process.returncode}"
            return Played(behavior, step, None, problem)
        return Played(behavior, step, mean_return)

    @property
    def _answer(self) -> Path:
        return self._run / "run_logs" / LOGS / "answer.json"


def mean_return(run: Path, behavior: str, step: int, episodes: int) -> float:
    """Plays a checkpoint; other behaviours of the scene act with their newest ones.

    Raises:
        UserError: there is no such checkpoint.
        SimulatorError: the simulator could not be started, or was lost.
    """
    from trainer.evaluation import Evaluation, evaluate, policies_of_run

    settings = load_run(run / "configuration.yaml")
    env = settings.env_settings
    own = env.model_copy(update={"base_port": None})  # the run's simulators have those ports
    settings = settings.model_copy(update={"env_settings": own})
    plan = Evaluation(env.env_path, episodes, deterministic=True, seed=env.seed + SEED_OFFSET)
    folder = RunFolder(run)
    others = [name for name in folder.saved_behaviors() if name != behavior]
    players = {
        **policies_of_run(folder, [behavior], use_onnx=False, from_step=step, plan=plan),
        **policies_of_run(folder, others, use_onnx=False, from_step=None, plan=plan),
    }
    played = evaluate(settings, folder.logs / LOGS, players, plan)[behavior]
    return sum(earned for earned, _ in played) / len(played)


def end_with_trainer() -> None:
    """Ends this process, and with it its simulator, when standard input ends."""
    while os.read(0, 1 << 12):  # the buffered stream must not be held at the end
        pass
    os._exit(1)


def main() -> int:
    """Plays one checkpoint and prints what it earned."""
    run, behavior, step, episodes = sys.argv[1:]
    threading.Thread(target=end_with_trainer, daemon=True).start()
    try:
        found = mean_return(Path(run), behavior, int(step), int(episodes))
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(json.dumps({"mean_return": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
