"""Policies as ONNX files that Unity loads, and the proof that they act like the live policy.

Letters: B rows, C continuous action size, K discrete branches, L sum of branch sizes.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.batch import Observations
from envs.graph_policy import RECURRENT_OUT, open_session
from envs.spec import BehaviorSpec, sum_of_branches
from trainer.actor import to_simulator
from trainer.atomic_file import atomic_path, atomic_write
from trainer.config.errors import UserError
from trainer.nn.actor_critic import ActorCritic
from trainer.nn.memory import Sequences
from trainer.nn.sensors import Sensor, SensorKind
from trainer.onnx_graph import OPSET, build_model, with_outputs
from trainer.onnx_policy import OnnxPolicy

LIMIT = 1e-5  # largest difference between file and live policy
MEMORY_STEPS = 4  # decisions in a row that a policy with memory is compared in
FEWEST_ROWS = 16  # that a file is compared in, however large the images

Arrays = dict[str, NDArray[Any]]


class ExportError(UserError):
    """A policy that cannot be exported, or a file that acts differently from it."""


@dataclasses.dataclass(frozen=True, slots=True)
class ExportReport:
    """One file and how exactly it acts like the policy."""

    path: Path
    max_difference: float
    num_rows: int


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """How far a file is from the live policy."""

    max_difference: float  # of actions in -1..1, of probabilities, or of what is remembered
    where: str  # the output that differs most
    rounding: float | None  # the live policy's own float32 error; None: not needed to decide


def _require_finite(policy: ActorCritic) -> None:
    for name, tensor in policy.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise ExportError(
                f"Policy: {name} holds NaN or infinite numbers, so learning has diverged. Expected "
                f"finite weights: go on from an earlier checkpoint (--from-step) with a "
                f"lower learning_rate or with max_grad_norm."
            )


def export(
    policy: ActorCritic, spec: BehaviorSpec, path: Path, *, num_rows: int = 64, seed: int = 0
) -> ExportReport:
    """Writes `path` and, beside it, `<path>.json` with how exactly it acts like the policy.

    The file takes its name only after it has been verified; until then an older one stays.

    Raises:
        ExportError: weights are not finite, or the file acts differently from the policy.
    """
    started = time.perf_counter()
    # Fewer rows of very large images: they are computed together, on both sides.
    num_rows = min(num_rows, max(FEWEST_ROWS, policy.actor_body.rows_at_once))
    _require_finite(policy)
    model = build_model(policy)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        partial.write_bytes(model.SerializeToString())
        try:
            comparison = compare(partial, policy, spec, num_rows, seed)
        except UserError as error:
            raise ExportError(str(error).replace(str(partial), str(path))) from error
    report = {
        **dataclasses.asdict(comparison),
        "limit": LIMIT,
        "num_rows": num_rows,
        "seed": seed,
        "opset": OPSET,
        "created": time.time(),
        "seconds": time.perf_counter() - started,
    }
    atomic_write(report_path(path), json.dumps(report, indent=2).encode())
    return ExportReport(path, comparison.max_difference, num_rows)


def report_path(path: Path) -> Path:
    """Gives where `export` writes what it found about a file."""
    return path.with_name(f"{path.name}.json")


def compare(
    path: Path, policy: ActorCritic, spec: BehaviorSpec, num_rows: int, seed: int
) -> Comparison:
    """Runs a file in onnxruntime beside the live policy.

    Compared are what Unity receives, on a scale where actions reach from -1 to 1: the likeliest
    actions; drawn continuous actions, given the noise that the file drew; the probability of every
    discrete action under random masks. A likeliest discrete action that differs counts with the
    probability it gives away, so a tie counts nothing. Drawn discrete actions must be allowed ones.
    Batch 1, all zeros and everything forbidden, as Unity's newest loader runs it, must work too.
    With memory both sides make several decisions in a row, each with what it remembers itself,
    and what they remember is compared too.

    Observations are as large as the normaliser has met them, a few of them far outside; without
    normaliser they have mean 0 and deviation 1. Images are noise, variable-length observations have
    any number of entities from none to all. Both sides round to float32, in another order: with
    512 units and activations around 1 that is 1e-7 to 1e-6, well below the limit of 1e-5. Trained
    activations can be so large that float32 itself is coarser than that; so above 1e-5 the
    live policy is run in float64 too, and up to four times its own rounding error is let pass.

    Args:
        path: the file.
        policy: what it was made from; on any device, unchanged.
        spec: of its behaviour.
        num_rows: how many observations to try.
        seed: of observations and masks.

    Raises:
        ExportError: the difference is larger, or something else about the file is wrong.
    """
    obs, mask = _examples(policy, spec, num_rows, np.random.default_rng(seed))
    file = OnnxPolicy(path)
    _require_runs_on_zeros(file, spec)
    found = _run_file(file, policy, obs, mask)
    noise, likeliest = found.pop("noise", None), found.pop("deterministic_discrete_actions")
    if policy.branch_sizes:
        _require_allowed(path, policy, found.pop("discrete_actions"), mask)

    live = copy.deepcopy(policy).cpu()
    expected = _expected(live, obs, mask, noise)
    differences = _differences(found, expected)
    differences["deterministic_discrete_actions"] = _given_away(expected, likeliest)
    where = max(differences, key=lambda name: _or_infinite(differences[name]))
    worst = differences[where]
    if _or_infinite(worst) < LIMIT:
        return Comparison(worst, where, None)

    exact = _expected(live.double(), obs, mask, noise)
    rounding = max(_differences(expected, exact).values())
    if _or_infinite(worst) < 4 * rounding:
        return Comparison(worst, where, rounding)
    raise ExportError(
        f"{path}: {where} differs by {worst:.3g} from the live policy over {num_rows} rows (seed "
        f"{seed}); allowed is {LIMIT:g}, or four times what float32 itself rounds away "
        f"({rounding:.3g}). The file would not act as trained: this is a defect of ppo-train or of "
        f"onnxruntime {version('onnxruntime')}, please report it with the file."
    )


def _examples(
    policy: ActorCritic, spec: BehaviorSpec, num_rows: int, chance: np.random.Generator
) -> tuple[list[Observations], NDArray[np.bool_] | None]:
    """Gives observations (B, *shape) per sensor, the first all zero, and masks (B, L).

    With memory B is `num_rows` for each of several decisions in a row.
    """
    num_rows *= MEMORY_STEPS if policy.memory_size else 1
    joined = chance.standard_normal((num_rows, sum(policy.sensors.vector_sizes)))
    if policy.normalizer is not None:
        joined[1::8] *= 4  # every eighth row reaches the normaliser's clip
        scale = policy.normalizer.scale.double().cpu().numpy()
        joined = joined / scale + policy.normalizer.shift.double().cpu().numpy()
    joined[0] = 0
    ends = np.cumsum(policy.sensors.vector_sizes)[:-1]
    vectors = iter(np.split(joined, ends, axis=1))
    obs: list[Observations] = []
    for sensor in policy.sensors.all:
        if sensor.kind is SensorKind.VECTOR:
            obs.append(np.ascontiguousarray(next(vectors), np.float32))
        else:
            obs.append(_example_of(sensor, num_rows, chance))
    if not policy.branch_sizes:
        return obs, None
    mask = chance.random((num_rows, sum_of_branches(spec))) < 0.5
    mask[0] = False  # everything forbidden
    mask[1::4] = True
    return obs, mask


def _example_of(sensor: Sensor, num_rows: int, chance: np.random.Generator) -> Observations:
    """Gives images of every brightness, or crowds of 0 to all places; the first row is zero."""
    shape = (num_rows, *sensor.shape)
    if sensor.is_bytes:
        pixels = chance.integers(0, 256, shape, dtype=np.uint8)
        pixels[0] = 0
        return pixels
    if sensor.kind is SensorKind.IMAGE:
        image = chance.random(shape, dtype=np.float32)
        image[0] = 0
        return image
    crowd = chance.standard_normal(shape, dtype=np.float32)
    places = sensor.shape[0]
    present = chance.integers(0, places + 1, num_rows)
    present[0], present[1:2] = 0, places
    crowd[np.arange(places) >= present[:, None]] = 0  # (B, E) unused places, at the end
    return crowd


def _require_runs_on_zeros(file: OnnxPolicy, spec: BehaviorSpec) -> None:
    obs: list[Observations] = [
        np.zeros((1, *sensor.shape), np.float32) for sensor in spec.observation_specs
    ]
    length = sum_of_branches(spec)
    mask = np.zeros((1, length), np.bool_) if length else None
    for deterministic in (False, True):
        actions = file.act(obs, mask, deterministic)
        if not (np.abs(actions.continuous) <= 1).all():
            raise ExportError(
                f"{file.path}: a row of zeros gives the actions {actions.continuous[0]}, expected "
                f"-1 to 1. The policy's weights or the file are damaged: export again."
            )


def _decisions(policy: ActorCritic, num_rows: int) -> list[slice]:
    """Says which rows belong to the first decision of all agents, to the second, and so on."""
    size = num_rows // MEMORY_STEPS if policy.memory_size else num_rows
    return [slice(start, start + size) for start in range(0, num_rows, size)]


def _run_file(
    file: OnnxPolicy,
    policy: ActorCritic,
    obs: Sequence[Observations],
    mask: NDArray[np.bool_] | None,
) -> Arrays:
    """Gives what the file does with all rows, and noise and probabilities inside its graph."""
    inner, outer = [], []
    if policy.continuous_size:
        inner, outer = ["noise"], ["continuous_actions"]
    if policy.branch_sizes:
        inner += [f"branch_{k}.probabilities" for k in range(len(policy.branch_sizes))]
        outer += ["discrete_actions"]
    model = with_outputs(onnx.load(str(file.path)), inner)
    session = open_session(model.SerializeToString())
    steps: list[Arrays] = []
    memory: NDArray[np.float32] | None = None
    for rows in _decisions(policy, len(obs[0])):
        seen = [column[rows] for column in obs]
        allowed = None if mask is None else mask[rows]
        if memory is None:
            memory = file.no_memory(len(seen[0]))
        answers = session.run(inner + outer, file.feed(seen, allowed, memory))
        likeliest, memory = file.remember(seen, allowed, True, memory)
        steps.append(
            {
                **dict(zip(inner + outer, answers, strict=True)),
                "deterministic_continuous_actions": likeliest.continuous,
                "deterministic_discrete_actions": likeliest.discrete,
                RECURRENT_OUT: memory,
            }
        )
    return {name: np.concatenate([step[name] for step in steps]) for name in steps[0]}


@torch.no_grad()
def _expected(
    live: ActorCritic,
    obs: Sequence[Observations],
    mask: NDArray[np.bool_] | None,
    noise: NDArray[np.float32] | None,
) -> Arrays:
    """Asks the live policy for what the file is compared with, in the policy's own precision."""
    steps: list[Arrays] = []
    memory: Tensor | None = None
    for rows in _decisions(live, len(obs[0])):
        answers, memory = _expected_decision(
            live,
            [column[rows] for column in obs],
            None if mask is None else torch.from_numpy(mask[rows]),
            None if noise is None else torch.from_numpy(noise[rows]),
            memory,
        )
        steps.append(answers)
    return {name: np.concatenate([step[name] for step in steps]) for name in steps[0]}


def _expected_decision(
    live: ActorCritic,
    obs: Sequence[Observations],
    mask: Tensor | None,
    noise: Tensor | None,
    memory: Tensor | None,
) -> tuple[Arrays, Tensor | None]:
    """Asks for one decision of B agents; gives also what they carry on, (B, W), with memory."""
    dtype = next(live.parameters()).dtype
    inputs = live.inputs([_exactly(column, dtype) for column in obs])
    num_rows = len(obs[0])
    sequences = None
    if live.memory_size:
        if memory is None:
            memory = torch.zeros((num_rows, live.memory_width), dtype=dtype)
        sequences = Sequences(torch.arange(num_rows + 1), memory, sequence_length=1)
    action = live.act(inputs, mask, torch.Generator(), True, memory)
    expected: Arrays = {"deterministic_continuous_actions": to_simulator(action).continuous}
    if noise is not None:
        log_std = live.distribution(inputs, mask, sequences).log_std
        assert log_std is not None
        drawn = action.continuous + noise.to(dtype) * log_std.exp()
        sampled = dataclasses.replace(action, continuous=drawn)
        expected["continuous_actions"] = to_simulator(sampled).continuous
    for k, size in enumerate(live.branch_sizes):
        expected[f"branch_{k}.probabilities"] = np.zeros((num_rows, size))
    for choice in range(max(live.branch_sizes, default=0)):
        capped = torch.tensor([min(choice, size - 1) for size in live.branch_sizes])
        discrete = capped.expand(num_rows, -1)  # (K,) -> (B, K)
        log_probs = live.evaluate(inputs, mask, action.continuous, discrete, sequences).log_probs
        for k, column in enumerate(capped.tolist()):
            probability = log_probs[:, live.continuous_size + k].exp().numpy()
            expected[f"branch_{k}.probabilities"][:, column] = probability
    carried = action.log_probs.new_zeros((num_rows, 0)) if action.memory is None else action.memory
    expected[RECURRENT_OUT] = carried[:, : live.memory_size].numpy()  # the critic's stays behind
    return expected, action.memory


def _exactly(obs: Observations, dtype: torch.dtype) -> Tensor:
    """Gives floats in the policy's precision; bytes stay, the policy knows what they stand for."""
    column = torch.from_numpy(obs)
    return column if obs.dtype == np.uint8 else column.to(dtype)


def _differences(found: Arrays, expected: Arrays) -> dict[str, float]:
    """Gives the largest difference by name; nan if anything is."""
    return {
        name: float(np.abs(values - expected[name]).max(initial=0.0))
        for name, values in found.items()
    }


def _given_away(expected: Arrays, chosen: NDArray[np.int32]) -> float:
    """How much less likely than the likeliest the chosen discrete actions (B, K) are at most."""
    lost = [0.0]
    for k in range(chosen.shape[1]):
        probabilities = expected[f"branch_{k}.probabilities"]
        of_chosen = np.take_along_axis(probabilities, chosen[:, k : k + 1].astype(np.int64), 1)
        lost.append(float((probabilities.max(axis=1, keepdims=True) - of_chosen).max()))
    return max(lost)


def _require_allowed(
    path: Path, policy: ActorCritic, drawn: NDArray[np.int64], mask: NDArray[np.bool_] | None
) -> None:
    assert mask is not None
    start = 0
    for k, size in enumerate(policy.branch_sizes):
        allowed = mask[:, start : start + size]
        chosen = np.take_along_axis(allowed, drawn[:, k : k + 1], axis=1)[:, 0]
        wrong = np.flatnonzero(~chosen & allowed.any(axis=1))
        if len(wrong):
            raise ExportError(
                f"{path}: branch {k} drew action {drawn[wrong[0], k]}, which the mask "
                f"{allowed[wrong[0]].astype(int)} forbids. The file would break the game's rules: "
                f"this is a defect of ppo-train, please report it with the file."
            )
        start += size


def _or_infinite(difference: float) -> float:
    """Makes a nan larger than everything."""
    return float("inf") if np.isnan(difference) else difference
