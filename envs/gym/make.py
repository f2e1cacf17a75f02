"""Builds a Gymnasium environment from the word after `gym:` and says clearly why it cannot."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import gymnasium
from gymnasium.vector import VectorEnv

from envs.errors import SimulatorDidNotStartError
from envs.gym.packages import newest_version, register_installed, register_package_of

Env: TypeAlias = gymnasium.Env[Any, Any]


def make_env(env: str, kwargs: Mapping[str, Any]) -> Env:
    """Builds one environment.

    Args:
        env: a registered id (`Walker2d-v5`), a callable or class that gives an environment
            (`my_package.my_env:MyEnv` or `my_package.my_env.MyEnv`), or, as Gymnasium itself has
            it, a module to import before looking for an id (`my_package:MyEnv-v0`).
        kwargs: arguments of the constructor.

    Raises:
        SimulatorDidNotStartError: nothing of that name, or it could not be built.
    """
    build = _builder(env)
    if _is_vector_env(build):
        raise SimulatorDidNotStartError(
            f"gym:{env} is a gymnasium.vector.VectorEnv, many environments in one; simulator "
            f"processes hold single ones. Run it in the trainer's process: --num-envs 0."
        )
    built = _built(env, build, build, kwargs)
    if not isinstance(built, gymnasium.Env):
        raise SimulatorDidNotStartError(
            f"gym:{env} gave a {type(built).__module__}.{type(built).__name__}, expected a "
            f"gymnasium.Env. Derive it from gymnasium.Env; an environment of the old gym package "
            f"has to be wrapped first (pip install shimmy)."
        )
    return built


def make_vector_env(
    env: str, num_envs: int, kwargs: Mapping[str, Any]
) -> VectorEnv[Any, Any, Any] | None:
    """Builds many environments in one, where there is such an implementation; else gives None.

    Args:
        env: an id that is registered with a `vector_entry_point`, or a class derived from
            `VectorEnv` that takes `num_envs`.
        num_envs: how many.
        kwargs: further arguments of the constructor.

    Raises:
        SimulatorDidNotStartError: nothing of that name, or it could not be built.
    """
    found = _builder(env)
    build: Callable[..., Any]
    if isinstance(found, partial):
        spec = gymnasium.registry[found.args[0]]
        if spec.vector_entry_point is None or spec.additional_wrappers:
            return None
        build = partial(gymnasium.make_vec, spec.id, vectorization_mode="vector_entry_point")
    elif _is_vector_env(found):
        build = found
    else:
        return None
    built: VectorEnv[Any, Any, Any] = _built(env, found, partial(build, num_envs=num_envs), kwargs)
    return built


def _is_vector_env(build: Callable[..., Any]) -> bool:
    return isinstance(build, type) and issubclass(build, VectorEnv)


def _built(
    env: str, found: Callable[..., Any], build: Callable[..., Any], kwargs: Mapping[str, Any]
) -> Any:
    try:
        return build(**kwargs)
    except Exception as error:
        raise SimulatorDidNotStartError(
            f"gym:{env} could not be built with {json.dumps(dict(kwargs), default=str)}: "
            f"{type(error).__name__}: {error}. {_advice(env, found, kwargs, error)}"
        ) from error


def _builder(env: str) -> Callable[..., Any]:
    if env not in gymnasium.registry:
        register_package_of(env)
    if env in gymnasium.registry:
        return _registered(env)
    look_where_the_user_stands()
    module_name, colon, attribute = env.partition(":")
    if not colon:
        module_name, _, attribute = env.rpartition(".")
        if "/" in env or not _is_module(module_name):
            register_installed()
            if env in gymnasium.registry:
                return _registered(env)
            raise SimulatorDidNotStartError(
                f"gym:{env}: Gymnasium knows no environment of this id. {_nearest(env)}"
                f"An environment of your own is named gym:package.module:ClassOrFunction."
            )
    module = module_named(module_name, f"gym:{env}")
    if hasattr(module, attribute):
        found = getattr(module, attribute)
        if not callable(found):
            raise SimulatorDidNotStartError(
                f"gym:{env}: {attribute} in {module.__file__} is a {type(found).__name__}, "
                f"expected a class or function that gives a gymnasium.Env."
            )
        return found  # type: ignore[no-any-return]  # callable is all that can be known
    if attribute in gymnasium.registry:  # importing the module has registered it
        return _registered(attribute)
    near = difflib.get_close_matches(attribute, [n for n in vars(module) if n[0] != "_"], n=3)
    raise SimulatorDidNotStartError(
        f"gym:{env}: {module.__file__ or module_name} has no {attribute!r}, and it has registered "
        f"no environment of that id. "
        + (f"Did you mean {' or '.join(near)}?" if near else "Check the name behind the colon.")
    )


def _registered(env: str) -> Callable[..., Any]:
    # The checker looks at every step's data again; it costs more than CartPole itself.
    return partial(gymnasium.make, env, disable_env_checker=True)


def _is_module(name: str) -> bool:
    try:
        return bool(name) and importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def look_where_the_user_stands() -> None:
    """Makes modules of the working directory importable, where a user's own ones lie."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def module_named(name: str, where: str) -> Any:
    """Imports a module of the user's; `where` begins the message if it cannot be.

    Raises:
        SimulatorDidNotStartError: there is none, or it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        # A module that exists but misses one of its own imports is another mistake.
        if missing is not None and (name == missing or name.startswith(f"{missing}.")):
            raise SimulatorDidNotStartError(
                f"{where}: there is no module {name!r}; looked in {os.getcwd()} and the "
                f"installed packages. Start ppo-train in the folder that holds it, or install it."
            ) from None
        raise SimulatorDidNotStartError(
            f"{where}: importing {name!r} failed: {type(error).__name__}: {error}. "
            f"Correct the module, or install what it needs."
        ) from error


def _nearest(env: str) -> str:
    by_lower_case = {known.lower(): known for known in gymnasium.registry}
    near = difflib.get_close_matches(env.lower(), by_lower_case, n=3, cutoff=0.6)
    if not near:
        return "All ids: python -c 'import gymnasium; gymnasium.pprint_registry()'. "
    return f"Did you mean {' or '.join(by_lower_case[name] for name in near)}? "


def _advice(
    env: str, build: Callable[..., Any], kwargs: Mapping[str, Any], error: Exception
) -> str:
    if isinstance(error, gymnasium.error.DependencyNotInstalled):
        if "mujoco_py" in str(error) and (newest := newest_version(env)) is not None:
            return f"That package is of the past: take the newest version, gym:{newest}."
        return (
            "Install what this environment needs; for MuJoCo: pip install 'ppo-train[mujoco]', for "
            "Box2D (LunarLander, BipedalWalker): pip install 'ppo-train[box2d]'."
        )
    if not isinstance(error, TypeError):
        return "Correct the environment's constructor, or env_settings.env_kwargs."
    taken = _signature(env, build)
    if "render_mode" in kwargs and "render_mode" not in taken and "**" not in taken:
        return (
            f"It takes {taken}; to be filmed (--video), it has to take render_mode too, and to "
            f"render 'rgb_array'."
        )
    return f"Correct env_settings.env_kwargs; it takes {taken}."


def _signature(env: str, build: Callable[..., Any]) -> str:
    constructor = build
    if env in gymnasium.registry:
        entry_point = gymnasium.registry[env].entry_point
        if isinstance(entry_point, str):
            constructor = gymnasium.envs.registration.load_env_creator(entry_point)
        elif entry_point is not None:
            constructor = entry_point
    return str(inspect.signature(constructor))
