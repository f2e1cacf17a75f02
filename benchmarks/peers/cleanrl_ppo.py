"""Runs a script of CleanRL unchanged and prints what it measured; runs in the peer's own venv.

    python benchmarks/peers/cleanrl_ppo.py --scripts FOLDER --env Walker2d-v5 --updates 20

`--scripts` is the folder `cleanrl` of a copy of CleanRL outside this repository. It was measured
with commit fe8d8a03c41a7ef5b523e2e354bd01c363e786bb: ppo.py for discrete actions,
ppo_continuous_action.py for others. Both have 2 layers of 64 and nothing else. An update has ended
when the script prints its SPS; nothing else is listened to, and one argument that Gymnasium 1.0
made compulsory is given.
"""

from __future__ import annotations

import argparse
import builtins
import functools
import os
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

import gymnasium
import torch
from peer_clock import Clock, parse


def main() -> None:
    """Trains and prints the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scripts", type=Path, required=True)
    options = parse(parser)
    if (options.layers, options.hidden) != (2, 64):
        sys.exit("CleanRL's scripts have 2 layers of 64; --layers and --hidden cannot be others")
    per_update = options.envs * options.steps
    clock = Clock(per_update)
    write = builtins.print

    def listening(*words: Any, **named: Any) -> None:
        if words and words[0] == "SPS:":
            clock.update_ended()
        elif not str(words[0] if words else "").startswith("global_step"):
            write(*words, **named)

    spec = gymnasium.make(options.env)
    is_discrete = isinstance(spec.action_space, gymnasium.spaces.Discrete)
    spec.close()
    script = options.scripts.resolve() / ("ppo.py" if is_discrete else "ppo_continuous_action.py")
    words = ["--env-id", options.env, "--num-envs", str(options.envs), "--no-cuda"]
    words += ["--num-steps", str(options.steps), "--update-epochs", str(options.epochs)]
    words += ["--num-minibatches", str(per_update // options.batch)]
    words += ["--total-timesteps", str((1 + options.updates) * per_update)]
    torch.set_num_threads(1)
    wrappers: Any = gymnasium.wrappers
    wrappers.TransformObservation = functools.partial(
        wrappers.TransformObservation, observation_space=None
    )
    sys.argv = [str(script), *words]
    builtins.print = listening  # a narrower signature is all it needs
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # it writes runs/
        runpy.run_path(str(script), run_name="__main__")
        os.chdir("/")
    builtins.print = write
    clock.print_result()


if __name__ == "__main__":
    main()
