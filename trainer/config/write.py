"""Writes settings as the YAML that loads again to equal settings."""

from __future__ import annotations

from typing import Any

import yaml

from trainer.config.document import EXPONENT
from trainer.config.settings import RunSettings

LINE_BREAKS = frozenset("\x85\u2028\u2029\ufeff")  # PyYAML writes them bare and reads them as \n


class Dumper(yaml.SafeDumper):
    """Quotes texts that would be read as something else."""


def represent_text(dumper: Dumper, text: str) -> yaml.ScalarNode:
    """Writes a text, in quotes when it looks like 1e5 or holds an odd line break."""
    odd = EXPONENT.fullmatch(text) or not LINE_BREAKS.isdisjoint(text)
    style = '"' if odd else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def represent_tuple(dumper: Dumper, items: tuple[Any, ...]) -> yaml.SequenceNode:
    """Writes a tuple as a list."""
    return dumper.represent_list(list(items))


Dumper.add_representer(str, represent_text)
Dumper.add_representer(tuple, represent_tuple)


def dump(settings: RunSettings) -> str:
    """Gives the complete settings as YAML, in ML-Agents' order of keys."""
    values = settings.model_dump()
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
