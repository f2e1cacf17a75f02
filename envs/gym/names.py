"""Names that follow from the word after `gym:`; needs no Gymnasium."""

from __future__ import annotations

import re


def default_behavior_name(env: str) -> str:
    """Gives the behaviour name of an environment: its id without namespace and version.

    `Walker2d-v5` -> `Walker2d`, `ALE/Pong-v5` -> `Pong`, `my_package.my_env:MyEnv` -> `MyEnv`.
    """
    last = re.split(r"[:/]", env)[-1]
    if ":" not in env and re.fullmatch(r"\w+(\.\w+)+", last):
        last = last.rpartition(".")[2]
    return re.sub(r"-v\d+$", "", last)
