"""Packages that bring Gymnasium environments of their own: Atari games and robots.

An environment is in Gymnasium's registry only after its package was imported, which takes a while;
so it is imported when an id asks for it.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass

import gymnasium
import numpy as np

from envs.errors import SimulatorDidNotStartError


@dataclass(frozen=True, slots=True)
class Package:
    """One package, and which ids are its own."""

    name: str  # as it is installed
    module: str  # registers the ids when it is imported
    extra: str  # of ppo-train, which installs it
    ids: re.Pattern[str]


PACKAGES = (
    Package(
        "ale-py",
        "ale_py",
        "atari",
        # Two older spellings of the same games: PongNoFrameskip-v4, PongDeterministic-v4.
        re.compile(r"ALE/|[A-Z]\w+(NoFrameskip|Deterministic)-v\d"),
    ),
    Package(
        "gymnasium-robotics",
        "gymnasium_robotics",
        "robotics",
        re.compile(
            r"(Fetch(Reach|Push|Slide|PickAndPlace)|Hand(Reach|Manipulate)|AdroitHand"
            r"|(Point|Ant)Maze_|FrankaKitchen)"
        ),
    ),
)


def register_package_of(env: str) -> None:
    """Imports the package that an id belongs to, if it belongs to one.

    Raises:
        SimulatorDidNotStartError: the package is not installed, or cannot be imported.
    """
    for package in PACKAGES:
        if package.ids.match(env):
            try:
                _import(package)
            except ModuleNotFoundError as error:
                if error.name != package.module:
                    raise _broken(env, package, error) from error
                raise SimulatorDidNotStartError(
                    f"gym:{env} is an environment of the package {package.name}, which is not "
                    f"installed. Install it: pip install 'ppo-train[{package.extra}]'."
                ) from None
            except ImportError as error:
                raise _broken(env, package, error) from error


def register_installed() -> None:
    """Imports all packages that are there, so that an unknown id can be compared with theirs."""
    for package in PACKAGES:
        try:
            _import(package)
        except ImportError:
            continue  # nothing was asked of this package


def _import(package: Package) -> None:
    importlib.import_module(package.module)
    if package.module == "gymnasium_robotics":
        _compare_joint_types_with_numbers()


def _compare_joint_types_with_numbers() -> None:
    """Lets MuJoCo's joint types be compared with numpy's numbers from both sides.

    Since MuJoCo 3.12 (with pybind11 3.1) `mjJNT_HINGE == np.int32(3)` is false, though
    `np.int32(3) == mjJNT_HINGE` is true. gymnasium-robotics 1.4.2, the newest, looks for a joint's
    type in a tuple of the former, so that every Fetch environment ends with an AssertionError.
    Nothing is changed where the comparison holds.
    """
    import mujoco

    joint = mujoco.mjtJoint
    if joint.mjJNT_HINGE != np.int32(int(joint.mjJNT_HINGE)):
        joint.__eq__ = lambda self, other: int(self) == other
        joint.__ne__ = lambda self, other: int(self) != other


def _broken(env: str, package: Package, error: ImportError) -> SimulatorDidNotStartError:
    return SimulatorDidNotStartError(
        f"gym:{env} is an environment of the package {package.name}, and importing it failed: "
        f"{type(error).__name__}: {error}. Repair it: pip install --force-reinstall "
        f"'ppo-train[{package.extra}]'."
    )


def newest_version(env: str) -> str | None:
    """Gives the registered id of the same name with the highest version; None if it is `env`."""
    name, _, version = env.rpartition("-v")
    versions = [
        spec.version
        for spec in gymnasium.registry.values()
        if spec.version is not None and spec.id == f"{name}-v{spec.version}"
    ]
    newest = f"{name}-v{max(versions)}" if versions and version else None
    return newest if newest != env else None
