"""mlagents-learn 1.1.0, whose last checkpoint packs into a few kilobytes; runs in its own venv.

Same arguments as mlagents-learn. The environment variable ANSWERS names a file that gets what its
ONNX and its checkpoint do not tell: what ML-Agents' critic says of random observations, and which
parameters its Adam counts.

Attention is 128 wide whatever the settings say, and a resnet has 100,000 parameters. So, right
before ML-Agents itself saves and exports, all but a few numbers of every large tensor become 0, and
those that stay are rounded, and grow so that features keep their size. The weights of heads and
convolutions, which begin small, grow so that actions differ. Names, shapes, order and file formats
are ML-Agents' own.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
import torch
import torch.onnx
from mlagents.trainers.learn import main  # type: ignore[import-not-found]  # peer's venv only
from mlagents.trainers.model_saver.torch_model_saver import (  # type: ignore[import-not-found]
    TorchModelSaver,
)

LARGE = 100
# Of a large tensor: one number in so many, and at most so many.
WEIGHTS, MOMENTS = (8, 160), (64, 8)
GROWTH = {"action_model.": 10, "value_heads.": 10, ".conv_layers.": 2.5}  # of weights
ROWS, SEQUENCES = 6, 2


def thin(tensor: Any, kept: tuple[int, int], seed: int, *, grows: bool) -> None:
    """Leaves a few random numbers of a large tensor, in bfloat16."""
    size = tensor.numel()
    if size <= LARGE:
        return
    one_in, most = kept
    num_kept = min(size // one_in, most)
    places = torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:num_kept]
    values = tensor.view(-1)[places] * ((size / num_kept) ** 0.5 if grows else 1)
    tensor.zero_()
    tensor.view(-1)[places] = values.bfloat16().float()


def observe(shape: tuple[int, ...], chance: Any) -> Any:
    """Gives (ROWS, *shape): bytes for an image, and entities of which some are missing."""
    if len(shape) == 3:
        return chance.randint(0, 256, (ROWS, *shape)).astype(np.uint8)
    noise = 5 * chance.normal(size=(ROWS, *shape))
    if len(shape) == 2:
        noise *= chance.uniform(size=(ROWS, shape[0], 1)) < 0.6
    return noise.astype(np.float32)


def ask_critic(critic: Any, specs: list[Any]) -> dict[str, Any]:
    """Gives observations, the memory before them if there is any, and values."""
    chance = np.random.RandomState(3)
    asked = {f"obs_{i}": observe(tuple(spec.shape), chance) for i, spec in enumerate(specs)}
    obs = [torch.tensor(column / 255 if column.dtype == np.uint8 else column).float()
           for column in asked.values()]  # fmt: skip
    memory, length = None, 1
    if critic.memory_size:
        asked["memory"] = chance.normal(size=(SEQUENCES, critic.memory_size)).astype(np.float32)
        memory, length = torch.tensor(asked["memory"]).unsqueeze(0), ROWS // SEQUENCES
    with torch.no_grad():
        values, _ = critic.critic_pass(obs, memory, length)
    asked["values"] = values["extrinsic"].reshape(-1).numpy()
    return asked


def names_in_order(modules: dict[str, Any], adam: Any) -> Any:
    """Gives "module name" of each parameter that Adam has, in its order."""
    names: dict[int, str] = {}
    for module in ("Policy", "Optimizer:critic"):
        for name, parameter in modules[module].named_parameters():
            names.setdefault(id(parameter), f"{module} {name}")
    return np.array([names[id(parameter)] for parameter in adam.param_groups[0]["params"]])


def thin_before_saving() -> None:
    """Makes ML-Agents' saver thin its networks, save, and answer."""
    save = TorchModelSaver.save_checkpoint

    def save_thinned(saver: Any, behavior: str, step: int) -> Any:
        critic, adam = (
            saver.modules[f"Optimizer:{name}"] for name in ("critic", "value_optimizer")
        )
        names = names_in_order(saver.modules, adam)
        with torch.no_grad():
            for seed, parameter in enumerate(adam.param_groups[0]["params"]):
                for part, growth in GROWTH.items():
                    if part in names[seed] and names[seed].endswith("weight"):
                        parameter.mul_(growth)
                thin(parameter, WEIGHTS, seed, grows=True)
                moments = adam.state.get(parameter, {})
                for key in ("exp_avg", "exp_avg_sq"):
                    if key in moments:
                        thin(moments[key], MOMENTS, seed, grows=False)
        saved = save(saver, behavior, step)
        specs = saver.policy.behavior_spec.observation_specs
        answers = ask_critic(critic, specs)
        np.savez_compressed(os.environ["ANSWERS"], parameters=names, **answers)
        return saved

    TorchModelSaver.save_checkpoint = save_thinned


if __name__ == "__main__":
    torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)
    thin_before_saving()
    main()
