"""What the words after `--env` mean, as a command that launches a simulator."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from envs.errors import SimulatorDidNotStartError
from envs.fleet import Fleet, FleetPlan, LaunchPlan
from envs.in_process.copies import InProcessPlan
from envs.simulators import Simulators

GYM = "gym:"
UNITY_SUFFIX = re.compile(r"\.(app|exe|x86_64|x86)")


def resolve(
    env: str | None,
    *,
    env_args: Sequence[str] = (),
    num_areas: int = 1,
    env_kwargs: Mapping[str, object] | None = None,
    env_wrappers: Sequence[Mapping[str, object]] = (),
    behavior_name: str | None = None,
    no_graphics: bool = False,
    no_graphics_monitor: bool = False,
    video: Path | None = None,
    platform: str = sys.platform,
) -> LaunchPlan | None:
    """Gives the command that launches a simulator; None means: wait for the Unity Editor.

    Args:
        env: None for the Editor, `gym:<id>`, `gym:<module>:<callable>`, or a Unity build's path.
        env_args: further arguments of a Unity build.
        num_areas: agents per simulator of a Gymnasium environment.
        env_kwargs: constructor arguments of a Gymnasium environment.
        env_wrappers: wrappers of a Gymnasium environment, each a name with its arguments.
        behavior_name: what a Gymnasium environment's behaviour is called; None for its id.
        no_graphics: run a Unity build without a window.
        no_graphics_monitor: run all Unity builds but the first without a window.
        video: file that a Gymnasium environment films its episodes into.
        platform: as `sys.platform` has it.

    Raises:
        SimulatorDidNotStartError: no such build, or an argument of the other kind of simulator.
    """
    if env is None or not env.startswith(GYM):
        _require_nothing_of_gymnasium(env or "the Unity Editor", env_kwargs, env_wrappers, video)
        if env is None:
            return None
        return LaunchPlan(
            command=(str(find_unity_build(env, platform)),),
            kind="unity",
            no_graphics=no_graphics,
            no_graphics_monitor=no_graphics_monitor,
            env_args=tuple(env_args),
        )
    _require_no_words(env, env_args)
    name = env.removeprefix(GYM)
    command = _gym_command(name, num_areas, env_kwargs or {}, env_wrappers, behavior_name)
    if video is not None:
        command = (*command, "--video", str(video))
    return LaunchPlan(
        command=command, kind="gym", no_graphics=False, no_graphics_monitor=False, env_args=()
    )


def resolve_in_process(
    env: str,
    *,
    env_args: Sequence[str] = (),
    env_kwargs: Mapping[str, object] | None = None,
    env_wrappers: Sequence[Mapping[str, object]] = (),
    behavior_name: str | None = None,
    video: Path | None = None,
) -> InProcessPlan:
    """Gives what to build in this process; arguments as those of `resolve`.

    Args:
        env: `gym:<id>` or `gym:<module>:<callable>`.
        env_args: must be empty.
        env_kwargs: constructor arguments.
        env_wrappers: each a name with its arguments.
        behavior_name: None for the environment's id.
        video: file that the first environment films its episodes into.

    Raises:
        SimulatorDidNotStartError: no name behind `gym:`, no Gymnasium, or `env_args`.
    """
    _require_no_words(env, env_args)
    name = env.removeprefix(GYM)
    _require_gymnasium(name)
    return InProcessPlan(
        env=name,
        kwargs=dict(env_kwargs or {}),
        wrappers=cast("Sequence[Mapping[str, Mapping[str, Any]]]", env_wrappers),
        behavior_name=behavior_name,
        video=video,
    )


def open_simulators(plan: FleetPlan) -> Simulators:
    """Gives the simulators of a plan; use them as a context manager.

    Raises:
        SimulatorDidNotStartError: environments in this process cannot be built.
    """
    if plan.in_process is None:
        return Fleet(plan)
    from envs.gym.in_process import open_in_process  # Gymnasium is an extra

    return open_in_process(plan)


def _require_no_words(env: str, env_args: Sequence[str]) -> None:
    """Raises SimulatorDidNotStartError for words that are meant for a Unity build."""
    if env_args:
        raise SimulatorDidNotStartError(
            f"--env-args {' '.join(env_args)} is meant for a Unity build, but {env} is a Gymnasium "
            f"environment. Give it constructor arguments (env_settings.env_kwargs) or wrappers "
            f"(env_settings.env_wrappers)."
        )


def _require_nothing_of_gymnasium(
    env: str,
    env_kwargs: Mapping[str, object] | None,
    env_wrappers: Sequence[Mapping[str, object]],
    video: Path | None,
) -> None:
    """Raises SimulatorDidNotStartError for what only Gymnasium environments have."""
    if env_kwargs:
        raise SimulatorDidNotStartError(
            f"env_settings.env_kwargs is {json.dumps(dict(env_kwargs), default=str)}, but "
            f"{env} is no Gymnasium environment. Give arguments to a Unity build with --env-args, "
            f"or train a Gymnasium environment: --env gym:<id>."
        )
    if env_wrappers:
        raise SimulatorDidNotStartError(
            f"env_settings.env_wrappers is {json.dumps(list(env_wrappers), default=str)}, but "
            f"{env} is no Gymnasium environment. Leave env_wrappers out, or train a Gymnasium "
            f"environment: --env gym:<id>."
        )
    if video is not None:
        raise SimulatorDidNotStartError(
            f"{video} cannot be filmed: {env} is no Gymnasium environment. Record Unity with its "
            f"own Recorder, or leave the video out."
        )


def _require_gymnasium(name: str) -> None:
    """Raises SimulatorDidNotStartError without a name, or without Gymnasium."""
    if not name:
        raise SimulatorDidNotStartError(
            "--env gym: names no environment. Write gym:<id>, such as gym:CartPole-v1, or "
            "gym:package.module:ClassOrFunction."
        )
    if importlib.util.find_spec("gymnasium") is None:
        raise SimulatorDidNotStartError(
            f"--env gym:{name} needs the package gymnasium, which is not installed. "
            f"Install it: pip install 'ppo-train[mujoco]', or pip install gymnasium."
        )


def _gym_command(
    name: str,
    num_areas: int,
    env_kwargs: Mapping[str, object],
    env_wrappers: Sequence[Mapping[str, object]],
    behavior_name: str | None,
) -> tuple[str, ...]:
    _require_gymnasium(name)
    command = [sys.executable, "-m", "envs.gym", "--env", name, "--num-areas", str(num_areas)]
    if env_kwargs:
        command += ["--kwargs", _as_json(dict(env_kwargs), f"env_kwargs of gym:{name}")]
    if env_wrappers:
        command += ["--wrappers", _as_json(list(env_wrappers), f"env_wrappers of gym:{name}")]
    if behavior_name is not None:
        command += ["--behavior", behavior_name]
    return tuple(command)


def _as_json(value: object, what: str) -> str:
    try:
        return json.dumps(value)
    except TypeError as error:
        raise SimulatorDidNotStartError(
            f"env_settings.{what} cannot be handed to another process: {error}. Use text, numbers, "
            f"true or false, lists and mappings of these."
        ) from error


def find_unity_build(env: str, platform: str = sys.platform) -> Path:
    """Gives the executable of a Unity build, found by the rules of ML-Agents.

    Raises:
        SimulatorDidNotStartError: there is none, or it may not be executed.
    """
    looked_for = list(dict.fromkeys(_unity_candidates(env, platform)))
    for candidate in looked_for:
        if not candidate.is_file():
            continue
        if not os.access(candidate, os.X_OK):
            raise SimulatorDidNotStartError(
                f"--env {env}: {candidate} may not be executed. Allow it: chmod -R 755 {candidate}"
            )
        return candidate.absolute()
    raise SimulatorDidNotStartError(
        f"--env {env}: there is no Unity build. Looked for "
        f"{', '.join(str(path) for path in looked_for)}. {_advice(env)}"
    )


def _unity_candidates(env: str, platform: str) -> Iterator[Path]:
    """Lists where an executable may be, the likeliest first."""
    bare = Path(UNITY_SUFFIX.sub("", env.strip()))
    if platform == "darwin":
        folder = bare.with_name(bare.name + ".app") / "Contents" / "MacOS"
        yield folder / bare.name
        yield from sorted(path for path in folder.glob("*") if path.is_file())
    elif platform == "win32":
        yield bare.with_name(bare.name + ".exe")
        yield from sorted(
            path for path in bare.glob("*.exe") if not path.name.startswith("UnityCrashHandler")
        )
    else:
        for suffix in (".x86_64", ".x86"):
            yield bare.with_name(bare.name + suffix)
        yield bare
        yield Path(env)


def _advice(env: str) -> str:
    if re.fullmatch(r"([\w.]+[/:])?[\w.:]+(-v\d+)?", env) and ("-v" in env or ":" in env):
        return f"For a Gymnasium environment write --env gym:{env}."
    near = Path(env) if Path(env).is_dir() else Path(env).parent
    builds = [
        str(path)
        for pattern in ("*.x86_64", "*.x86", "*.exe", "*.app")
        for path in sorted(near.glob(pattern))
    ]
    if builds:
        return f"There is {' and '.join(builds[:3])}."
    return (
        "Give the path of the file that Unity's File > Build wrote, or leave --env away to wait "
        "for Play in the Unity Editor."
    )
