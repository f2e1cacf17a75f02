"""Puts wrappers around an environment, by name: Gymnasium's own, or a user's.

A list of what to put around it, the innermost first, as it stands under `env_wrappers` in YAML:

    [{"AtariPreprocessing": {"noop_max": 30}}, {"FrameStackObservation": {"stack_size": 4}}]

Lists among the arguments arrive as tuples, which is what Gymnasium's wrappers take for sizes.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import gymnasium
import gymnasium.wrappers

from envs.errors import SimulatorDidNotStartError
from envs.gym.make import Env, look_where_the_user_stands, make_env, module_named

KEY = "env_settings.env_wrappers"

# Each holds one name and its arguments.
Wrappers: TypeAlias = Sequence[Mapping[str, Mapping[str, Any]]]


def make_wrapped_env(env: str, kwargs: Mapping[str, Any], wrappers: Wrappers) -> Env:
    """Builds one environment and puts the wrappers around it.

    Args:
        env: the word after `gym:`, see `make_env`.
        kwargs: arguments of the environment's constructor.
        wrappers: the innermost first.

    Raises:
        SimulatorDidNotStartError: one of them is unknown, or could not be built.
    """
    built = make_env(env, kwargs)
    for index, wrapper in enumerate(wrappers):
        ((name, arguments),) = wrapper.items()
        built = _wrapped(built, f"{KEY}[{index}] {name}", name, _with_tuples(dict(arguments)))
    return built


def gymnasium_wrappers() -> dict[str, Callable[..., Any]]:
    """Gives Gymnasium's wrappers of single environments, by name."""
    return {
        name: found
        for name, found in vars(gymnasium.wrappers).items()
        if isinstance(found, type) and issubclass(found, gymnasium.Wrapper)
    }


def _wrapped(env: Env, where: str, name: str, arguments: Mapping[str, Any]) -> Env:
    build = _own(where, name) if ":" in name else _of_gymnasium(where, name)
    _require_arguments(build, where, arguments)
    try:
        wrapped = build(env, **arguments)
    except Exception as error:
        raise SimulatorDidNotStartError(
            f"{where} with {json.dumps(dict(arguments))} could not be put around {env}: "
            f"{type(error).__name__}: {error}. {_advice(build, error)}"
        ) from error
    if not isinstance(wrapped, gymnasium.Env):
        raise SimulatorDidNotStartError(
            f"{where} gave a {type(wrapped).__module__}.{type(wrapped).__name__}, expected a "
            f"gymnasium.Env. Derive it from gymnasium.Wrapper."
        )
    return wrapped


def _of_gymnasium(where: str, name: str) -> Callable[..., Any]:
    known = gymnasium_wrappers()
    if name in known:
        return known[name]
    by_lower_case = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=3, cutoff=0.6)
    advice = f"Did you mean {' or '.join(by_lower_case[other] for other in near)}?"
    raise SimulatorDidNotStartError(
        f"{where}: gymnasium.wrappers has no such wrapper of numpy observations. "
        + (advice if near else f"It has {', '.join(sorted(known))}.")
        + " A wrapper of your own is named package.module:ClassOrFunction."
    )


def _own(where: str, name: str) -> Callable[..., Any]:
    look_where_the_user_stands()
    module_name, _, attribute = name.partition(":")
    module = module_named(module_name, where)
    found = getattr(module, attribute, None)
    if callable(found):
        return found  # type: ignore[no-any-return]  # callable is all that can be known
    near = difflib.get_close_matches(attribute, [n for n in vars(module) if n[0] != "_"], n=3)
    raise SimulatorDidNotStartError(
        f"{where}: {module.__file__ or module_name} has no class or function {attribute!r}. "
        + (f"Did you mean {' or '.join(near)}?" if near else "Check the name behind the colon.")
    )


def _require_arguments(build: Callable[..., Any], where: str, arguments: Mapping[str, Any]) -> None:
    """Raises SimulatorDidNotStartError for arguments that it does not take, or that are missing."""
    signature = inspect.signature(build)
    try:
        signature.bind(None, **arguments)
    except TypeError as error:
        taken = list(signature.parameters)[1:]  # the first is the environment
        unknown = next((name for name in arguments if name not in taken), None)
        problem = str(error)
        if unknown is not None:
            near = difflib.get_close_matches(unknown, taken, n=1)
            problem = f"no argument is called {unknown!r}"
            problem += f". Did you mean {near[0]!r}?" if near else ""
        raise SimulatorDidNotStartError(
            f"{where}: {problem}{'' if problem.endswith('?') else '.'} It takes {_taken(build)}."
        ) from None


def _advice(build: Callable[..., Any], error: Exception) -> str:
    text = str(error)
    if isinstance(error, gymnasium.error.DependencyNotInstalled):
        if "opencv" in text:
            return "It resizes images with OpenCV. Install it: pip install 'ppo-train[atari]'."
        return "Install what this wrapper needs."
    if "frame-skip" in text:
        return "The game skips frames already: add env_settings.env_kwargs: {frameskip: 1}."
    return f"Correct its arguments, or what it is put around; it takes {_taken(build)}."


def _taken(build: Callable[..., Any]) -> str:
    """Writes what a wrapper takes beside the environment, without the types."""
    parameters = list(inspect.signature(build).parameters.values())[1:]
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    return str(inspect.Signature(bare)) if bare else "no arguments"


def _with_tuples(value: Any) -> Any:
    match value:
        case dict():
            return {key: _with_tuples(item) for key, item in value.items()}
        case list():
            return tuple(_with_tuples(item) for item in value)
        case _:
            return value
