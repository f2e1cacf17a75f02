"""Films an environment: every frame of every episode, into one video file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import gymnasium

from envs.errors import SimulatorError

DEFAULT_FRAMES_PER_S = 30


def prepare_rendering() -> None:
    """Has MuJoCo render off screen where there is no display. Call before importing it."""
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


class Film(gymnasium.Wrapper[Any, Any, Any, Any]):  # type: ignore[misc] # gymnasium is untyped here
    """Passes everything through and writes what `render` shows after each reset and step."""

    def __init__(self, env: gymnasium.Env[Any, Any], path: Path) -> None:
        """Opens the video.

        Args:
            env: made with `render_mode="rgb_array"`.
            path: a file that ffmpeg can write, such as `walk.mp4`; its folder is created.

        Raises:
            SimulatorError: the packages for writing videos are missing.
        """
        super().__init__(env)
        try:
            import imageio.v2 as imageio
        except ImportError as error:
            raise SimulatorError(
                f"{path} cannot be filmed: {error}. Install what writes videos: "
                f"pip install 'ppo-train[video]'."
            ) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        frames_per_s = env.metadata.get("render_fps", DEFAULT_FRAMES_PER_S)
        # macro_block_size 2: sizes need only be even, not multiples of 16.
        self._writer = imageio.get_writer(path, fps=frames_per_s, macro_block_size=2)

    def reset(self, **kwargs: Any) -> Any:
        """Resets, and films the first frame."""
        result = self.env.reset(**kwargs)
        self._shoot()
        return result

    def step(self, action: Any) -> Any:
        """Steps, and films the frame after it."""
        result = self.env.step(action)
        self._shoot()
        return result

    def close(self) -> None:
        """Ends the video, then the environment."""
        self._writer.close()
        self.env.close()

    def _shoot(self) -> None:
        frame = self.env.render()
        if frame is None:
            raise SimulatorError(
                f"{self.env} shows nothing in render_mode 'rgb_array'; it cannot be filmed."
            )
        self._writer.append_data(frame)
