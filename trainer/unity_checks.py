"""What Unity's loaders check of a model, restated: each check with its verdict.

Three generations read models: Barracuda (package 2.x), Sentis 1.x (3.0.0-exp.1) and Sentis 2 or
Inference Engine (3.0.0, 4.0). A warning is shown in the inspector and the console, and Unity still
tries to run the model; an error ends it. The checks and their order are those of the reference on
ML-Agents' exports, sections 2.1 to 2.3. No Unity was run for this.
"""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from envs.spec import BehaviorSpec
from trainer.onnx_policy import UNITY_FORMAT
from trainer.unity_model import IDENTITY, ModelFacts, TensorFacts

OPSET = 9
# All that ML-Agents' own exports hold, and Elu, which all three generations have too.
OPERATORS = frozenset(
    [
        "Add",
        "ArgMax",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "Conv",
        "Div",
        "Elu",
        "Exp",
        "Gemm",
        "Identity",
        "LSTM",
        "LeakyRelu",
        "Less",
        "Log",
        "MatMul",
        "MaxPool",
        "Mul",
        "Multinomial",
        "Pow",
        "RandomNormalLike",
        "ReduceMean",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
    ]
)
VERSION, MEMORY, MASKS = "version_number", "memory_size", "action_masks"
RECURRENT_IN, RECURRENT_OUT = "recurrent_in", "recurrent_out"
KINDS = ("continuous", "discrete")
# Inputs that Unity feeds besides obs_<i>.
FED = (
    "prev_action",
    "epsilon",
    MASKS,
    "sequence_length",
    "batch_size",
    RECURRENT_IN,
)
ACTIONS = ("action", *(f"{way}{kind}_actions" for kind in KINDS for way in ("", "deterministic_")))
SHAPES = tuple(f"{kind}_action_output_shape" for kind in KINDS)
MEANINGFUL = (VERSION, MEMORY, RECURRENT_OUT, *ACTIONS[1:], *SHAPES)
WARNS = "Unity warns and still tries to run it"
STOPS = "Unity warns, and looks no further"
REFUSES = "UnityAgentsException: no inference"


class Verdict(enum.IntEnum):
    """How bad a finding is; the number is the exit code."""

    OK = 0
    WARNING = 1
    ERROR = 2


@dataclass(frozen=True, slots=True)
class Check:
    """One question that Unity asks, and the answer."""

    verdict: Verdict
    found: str
    consequence: str = ""  # what Unity does about it; nothing if all is well


def check(model: ModelFacts, spec: BehaviorSpec | None = None) -> list[Check]:
    """Asks everything that Unity asks; with a behaviour's spec its sizes are compared too."""
    checks = [found for group in GROUPS for found in group(model)]
    if spec is not None:
        checks += [*_sensors(model, spec), *_actions_of(model, spec)]
    return checks


def _ok(found: str) -> Check:
    return Check(Verdict.OK, found)


def _warning(found: str, consequence: str = WARNS) -> Check:
    return Check(Verdict.WARNING, found, consequence)


def _error(found: str, consequence: str = REFUSES) -> Check:
    return Check(Verdict.ERROR, found, consequence)


def number(model: ModelFacts, name: str) -> float | None:
    """Gives a constant's first number, as the newest loader reads it; None if it cannot."""
    value = model.answer(name)
    return float(value.flat[0]) if value is not None and value.size else None


def observation_inputs(model: ModelFacts) -> dict[int, TensorFacts]:
    """Gives the inputs obs_<i> by i."""
    return {
        int(found[1]): tensor
        for tensor in model.inputs
        if (found := re.fullmatch(r"obs_(\d+)", tensor.name))
    }


# The file.


def _file(model: ModelFacts) -> Iterator[Check]:
    if model.flaw is not None:
        yield _error(f"no valid ONNX: {model.flaw}", "Unity's importer may refuse the file")
    else:
        yield _ok("valid ONNX, by onnx.checker")
    opset = model.opsets.get("", 0)
    if opset == OPSET:
        yield _ok(f"opset {OPSET}")
    else:
        yield _warning(
            f"opset {opset}, expected {OPSET}, the only one that ML-Agents writes",
            "some generations of Unity may not import it",
        )
    strange = sorted(set(model.operators) - OPERATORS)
    foreign = [name for name in strange if "." in name]
    if foreign:
        yield _error(f"operators that are not ONNX' own: {', '.join(foreign)}", "import fails")
    elif strange:
        yield _warning(
            f"operators that ML-Agents never writes: {', '.join(strange)}",
            "some generations of Unity may not import them",
        )
    else:
        yield _ok(f"{len(model.operators)} operators, all known to every generation of Unity")
    if model.subgraphs:
        yield _warning(
            f"graphs inside {', '.join(model.subgraphs)}; expected one flat graph",
            "some generations of Unity may not import it",
        )
    if model.external_data:
        yield _error(
            f"weights outside the file: {', '.join(model.external_data[:3])}; expected all inside",
            "import fails, or the weights are missing",
        )
    if not model.subgraphs and not model.external_data:
        yield _ok("one graph, all weights inside the file")


# Unity's checks 1 to 6.


def _constants(model: ModelFacts) -> Iterator[Check]:
    for name in (VERSION, MEMORY):
        if model.output(name) is None:
            yield _warning(f"{name} is missing", STOPS)
    for name in (VERSION, MEMORY, *SHAPES):
        declared = model.output(name)
        if declared is None:
            continue
        if declared.dtype != "float":
            yield _error(
                f"{name} is {declared.dtype}, expected float",
                "the newest loader casts it to Tensor<float>, which raises",
            )
        elif model.origins[name] != IDENTITY:
            yield _warning(
                f"{name} is made by: {model.origins[name]}; expected {IDENTITY}",
                "older loaders look for it among the constants and may not find it",
            )
        else:
            value = model.answer(name)
            shown = "" if value is None else f" = {', '.join(f'{x:g}' for x in value.flat)}"
            yield _ok(f"{name}{shown}, float, {IDENTITY}")


def _action_outputs(model: ModelFacts) -> Iterator[Check]:
    names = [name for name in ACTIONS if model.output(name) is not None]
    if not names:
        yield _warning("no action output: none of " + ", ".join(ACTIONS), STOPS)
        return
    yield _ok(f"actions: {', '.join(names)}")
    for kind, shape in zip(KINDS, SHAPES, strict=True):
        if model.output(f"{kind}_actions") is None:
            continue
        if model.output(shape) is None:
            yield _warning(f"{kind}_actions without {shape}", STOPS)
        size, name = number(model, shape), f"deterministic_{kind}_actions"
        if model.output(name) is None or (size is not None and size <= 0):
            why = "missing" if model.output(name) is None else f"there, but {shape} is {size:g}"
            yield _warning(
                f"{name} is {why}",
                "with Deterministic Inference ticked Unity warns, and looks no further",
            )
        else:
            yield _ok(f"{name} is there, for Deterministic Inference")


def _version_and_memory(model: ModelFacts) -> Iterator[Check]:
    version, memory = number(model, VERSION), number(model, MEMORY)
    if version is not None:
        if not 2 <= version <= UNITY_FORMAT:
            yield _error(f"{VERSION} is {version:g}, expected {UNITY_FORMAT:g} (or 2)")
        elif version < UNITY_FORMAT and memory is not None and memory > 0:
            yield _error(f"{VERSION} {version:g} with memory, expected {UNITY_FORMAT:g}")
        elif version < UNITY_FORMAT:
            yield _warning(
                f"{VERSION} is {version:g}, of packages 1.x; its inputs are not checked here",
                "Unity reads it by the rules of its own version; export it with a current trainer",
            )
        else:
            yield _ok(f"{VERSION} {version:g} is read by packages 2.0 and newer")
    if memory is not None and memory == -1:
        yield _warning(f"{MEMORY} is -1, expected 0 or more")


# Checks 7, 8 and 10, and what happens when the model runs.


def _inputs(model: ModelFacts) -> Iterator[Check]:
    if number(model, VERSION) not in (None, UNITY_FORMAT):
        return
    observations = observation_inputs(model)
    missing = [i for i in range(max(observations, default=-1) + 1) if i not in observations]
    if not observations or missing:
        gap = f"obs_{missing[0]}" if missing else "obs_0"
        yield _warning(f"input {gap} is missing; expected obs_0, obs_1, ... without a gap")
    else:
        yield _ok(f"inputs obs_0 to obs_{len(observations) - 1}")
    strange = [
        tensor.name
        for tensor in model.inputs
        if tensor.name not in FED and tensor not in observations.values()
    ]
    for name in strange:
        yield _error(
            f"unexpected input {name}",
            'Unity warns, then raises "Unknown tensorProxy expected as input" when it runs',
        )
    for tensor in model.inputs:
        if tensor.dtype != "float":
            yield _error(f"input {tensor.name} is {tensor.dtype}, expected float", "running fails")
    for i, tensor in observations.items():
        if tensor.rank not in (2, 3, 4):
            yield _warning(
                f"obs_{i} has shape {shown(tensor)}; expected (batch, n), (batch, count, size) or "
                f"(batch, C, H, W)"
            )
    unread = [name for name in model.unread_inputs if name not in strange]
    if unread:
        yield _warning(
            f"nothing reads the input {', '.join(unread)}; ML-Agents leaves such inputs out",
            "Unity's importer may drop it, and then feed a name that is gone",
        )


def _memory_and_masks(model: ModelFacts) -> Iterator[Check]:
    memory = number(model, MEMORY) or 0
    if any(model.output(name) is not None for name in ACTIONS if "discrete" in name):
        if model.input(MASKS) is None:
            yield _warning(f"discrete actions without the input {MASKS}")
        else:
            yield _ok(f"{MASKS} for discrete actions")
    if memory <= 0:
        return
    for name, tensor in (
        (RECURRENT_IN, model.input(RECURRENT_IN)),
        (RECURRENT_OUT, model.output(RECURRENT_OUT)),
    ):
        if tensor is None:
            yield _warning(f"memory of {memory:g} numbers without {name}")
        elif tensor.shape[1:] != (1, memory):
            yield _warning(f"{name} has shape {shown(tensor)}, expected (batch, 1, {memory:g})")
        else:
            yield _ok(f"{name} for {memory:g} numbers of memory")


def _names(model: ModelFacts) -> Iterator[Check]:
    """The newest loader asks whether any output's name *contains* the one it looks for."""
    by_accident = [
        (tensor.name, name)
        for tensor, name in itertools.product(model.outputs, MEANINGFUL)
        if tensor.name not in MEANINGFUL and name in tensor.name
    ]
    for output, name in by_accident:
        yield _warning(f"output {output} contains {name}", f"Unity may take it for {name}")
    if not by_accident:
        yield _ok("no output's name contains another one's by accident")


def _runs(model: ModelFacts) -> Iterator[Check]:
    for batch, consequence in (
        (1, "the newest loader runs it on zeros before it does anything else: no inference"),
        (4, "as many agents as decide in a frame are one batch: running fails"),
    ):
        answers = model.answers[batch]
        what = f"on zeros, nothing allowed, batch {batch}"
        if isinstance(answers, str):
            yield _error(f"does not run {what}: {answers}", consequence)
            continue
        few = [
            name
            for name in (*ACTIONS, RECURRENT_OUT)
            if name in answers and (answers[name].ndim == 0 or len(answers[name]) != batch)
        ]
        if few:
            shape = answers[few[0]].shape
            yield _error(f"{few[0]} has shape {shape} {what}, expected {batch} rows", consequence)
        else:
            yield _ok(f"runs {what}")
    fixed = [
        tensor.name
        for tensor in model.inputs
        if not tensor.shape or not isinstance(tensor.shape[0], str)
    ]
    if fixed:
        yield _error(
            f"axis 0 of {', '.join(fixed)} has a fixed size, expected an open one (`batch`)",
            "it runs for that many agents only",
        )
    else:
        yield _ok("axis 0 of every input is open")


def _answers(model: ModelFacts) -> Iterator[Check]:
    """Whether action outputs can be read, and hold as many actions as the file says."""
    for kind, name in itertools.product(KINDS, ("{}_actions", "deterministic_{}_actions")):
        name = name.format(kind)
        values, sizes = model.answer(name), model.answer(f"{kind}_action_output_shape")
        declared = model.output(name)
        if values is None or declared is None:
            continue
        wanted = ("float",) if kind == "continuous" else ("int64", "int32")
        if declared.dtype not in wanted:
            cast = "float" if kind == "continuous" else "int"
            yield _error(
                f"{name} is {declared.dtype}, expected {wanted[0]}",
                f"Unity reads it as Tensor<{cast}>, which raises",
            )
            continue
        expected = None
        if sizes is not None and sizes.size:
            expected = f"{sizes.flat[0]:g}" if kind == "continuous" else f"{sizes.size}"
        if values.ndim != 2 or (expected is not None and f"{values.shape[1]}" != expected):
            yield _error(
                f"{name} has shape {values.shape} on one row, expected (1, {expected})",
                "Unity reads beyond its end, or leaves actions out",
            )
            continue
        if not np.isfinite(values).all():
            yield _warning(f"{name} is {values[0].tolist()} on zeros", "agents receive it as it is")
        elif (
            kind == "discrete"
            and sizes is not None
            and _beyond(values[0].tolist(), sizes.ravel().tolist())
        ):
            yield _error(
                f"{name} is {values[0].tolist()} on zeros, of branches with {sizes.ravel()}",
                "agents receive actions that do not exist",
            )
        else:
            yield _ok(f"{name} has {values.shape[1]} numbers per agent, {declared.dtype}")


def _beyond(chosen: Sequence[int], sizes: Sequence[float]) -> bool:
    return any(not 0 <= choice < size for choice, size in zip(chosen, sizes, strict=True))


GROUPS: tuple[Callable[[ModelFacts], Iterator[Check]], ...] = (
    _file,
    _constants,
    _action_outputs,
    _version_and_memory,
    _inputs,
    _memory_and_masks,
    _names,
    _runs,
    _answers,
)


# Checks 7 to 9 again, against the component's own sensors and actions.


def _sensors(model: ModelFacts, spec: BehaviorSpec) -> Iterator[Check]:
    observations = observation_inputs(model)
    for i, sensor in enumerate(spec.observation_specs):
        tensor = observations.pop(i, None)
        name = f"sensor {i} ({sensor.name})"
        if tensor is None:
            yield _warning(f"{name} has no input obs_{i}")
        elif tensor.shape[1:] != tuple(sensor.shape):
            yield _warning(
                f"obs_{i} has shape {shown(tensor)}, {name} {tuple(sensor.shape)}",
                "Unity warns, and running fails",
            )
        else:
            yield _ok(f"obs_{i} fits {name} {tuple(sensor.shape)}")
    for i in observations:
        yield _error(
            f"obs_{i} belongs to no sensor; the behaviour has {len(spec.observation_specs)}",
            'Unity warns, then raises "Unknown tensorProxy expected as input" when it runs',
        )


def _actions_of(model: ModelFacts, spec: BehaviorSpec) -> Iterator[Check]:
    actions = spec.action_spec
    wanted = {
        "continuous": [actions.continuous_size] if actions.continuous_size else [],
        "discrete": list(actions.discrete_branches),
    }
    for kind, shape in zip(KINDS, SHAPES, strict=True):
        value = model.answer(shape)
        found = [] if value is None else [_whole(size) for size in value.ravel().tolist()]
        if found == wanted[kind]:
            yield _ok(f"{shape} fits the behaviour: {found or 'none'}")
        else:
            yield _warning(
                f"{shape} is {found or 'none'}, the behaviour has {wanted[kind] or 'none'}",
                "Unity warns, and running probably fails",
            )
    masks = model.input(MASKS)
    total = sum(actions.discrete_branches)
    if masks is not None and masks.shape[1:] != (total,):
        yield _warning(
            f"{MASKS} has shape {shown(masks)}, the branches have {total} actions together",
            "running fails",
        )


def _whole(size: float) -> float:
    """Gives a size without a fraction, if it is one; a file from anywhere may say NaN."""
    return int(size) if float(size).is_integer() else size


def shown(tensor: TensorFacts) -> str:
    """Gives a shape as people write it."""
    inner = ", ".join(map(str, tensor.shape))
    return f"({inner},)" if tensor.rank == 1 else f"({inner})"
