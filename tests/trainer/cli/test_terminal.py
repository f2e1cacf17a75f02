"""What a user at a terminal sees: a live view below the lines, and Ctrl-C that saves."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer_process import PATH, PATIENCE_S, PPO_TRAIN, checkpoint, tiny_build, tiny_yaml

ESCAPES = re.compile(rb"\x1b(\[[0-9;?]*[A-Za-z]|\([A-Z])")
CTRL_C = b"\x03"
# Makes its standard input the terminal that Ctrl-C comes from, then becomes the program.
BECOME = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], keyboard: int) -> None:
        self.process = process
        self._keyboard = keyboard
        self.raw = b""

    @property
    def text(self) -> str:
        """Everything that was shown, one after the other, without colours and movements."""
        return ESCAPES.sub(b"", self.raw).decode(errors="replace").replace("\r", "\n")

    def wait_for(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + PATIENCE_S
        while (found := re.search(pattern, self.text)) is None:
            assert self._read(deadline - time.monotonic()), f"{pattern!r} is not in\n{self.text}"
        return found

    def type(self, keys: bytes) -> None:
        os.write(self._keyboard, keys)

    def wait(self) -> int:
        deadline = time.monotonic() + PATIENCE_S
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(PATIENCE_S)

    def _read(self, left_s: float) -> bool:
        ready, _, _ = select.select([self._keyboard], [], [], max(left_s, 0.0))
        data = b""
        with suppress(OSError):  # Linux's way to say that nobody is at the other end any more
            data = os.read(self._keyboard, 1 << 16) if ready else b""
        self.raw += data
        return bool(data)


@contextmanager
def at_terminal(*words: object, cwd: Path) -> Iterator[Terminal]:
    keyboard, screen = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", BECOME, PPO_TRAIN, *map(str, words)],
        cwd=cwd,
        stdin=screen,
        stdout=screen,
        stderr=screen,
        env={**os.environ, "PATH": PATH, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"},
    )
    os.close(screen)
    try:
        yield Terminal(process, keyboard)
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)


def test_terminal_shows_a_live_view_and_ctrl_c_saves(tmp_path: Path) -> None:
    build = tiny_build(tmp_path, "--actions", "1,0")
    tiny_yaml(tmp_path, max_steps=1_000_000, summary_freq=100, checkpoint_interval=200)
    words = ("settings.yaml", "--env", build.name, "--num-envs", 2, "--run-id", "run")
    with at_terminal(*words, cwd=tmp_path) as terminal:
        terminal.wait_for(r"last checkpoint: results/run/1D/1D-\d+\.pt")
        # One picture of the view, from the bar to the checkpoint.
        view = terminal.wait_for(
            r"1D \S+ +(?P<percent>[\d.]+) %  step (?P<step>[\d,]+) of 1,000,000 *\n+"
            r"1D: mean reward -?[\d.]+   mean length \d+   \(last 100\) *\n+"
            r"[\d,]+ steps/s   elapsed 0:0\d:\d\d   left \d+:\d\d:\d\d   simulators 2 *\n+"
            r"simulators \d+ % · bridge \d+ % · inference \d+ % · learning \d+ % · saving \d+ % *"
            r"\n+"
            r"up to the last summary: [^\n]*learning \d+ %[^\n]*: [a-z]+(-bound)?"
        )
        assert float(view["percent"]) == round(int(view["step"].replace(",", "")) / 10_000, 1)
        # ML-Agents' line scrolls above it, in one colour: programs read captures of terminals too.
        assert re.search(rb"1D\. Step: \d+\. Time Elapsed: \d+\.\d{3} s\. ", terminal.raw)
        terminal.type(CTRL_C)
        assert terminal.wait() == 128 + signal.SIGINT
        step = checkpoint(tmp_path / "results" / "run", "1D")["step"]
        assert f"Exported results/run/1D/1D-{step}.onnx" in terminal.text
        assert "Run 'run' ended: interrupted by SIGINT." in terminal.text
        # The simulators have not heard of it: each is in a session of its own.
        assert "ended in the middle of the run" not in terminal.text
