"""What all settings have in common: frozen, no unknown keys, a sentence for every key."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A mapping of the YAML file as a typed object; its attributes are the keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=False
    )
