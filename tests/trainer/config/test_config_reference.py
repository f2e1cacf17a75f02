from __future__ import annotations

from pathlib import Path

from trainer.config.reference import render
from trainer.config.schema import walk

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_reference_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), (
        "python -m trainer.config.reference > docs/configuration.md"
    )


def test_every_key_has_a_sentence() -> None:
    for path, model in walk():
        for key, field in model.model_fields.items():
            assert field.description, f"{'.'.join(path)}.{key}"
            assert field.description.rstrip().endswith("."), f"{'.'.join(path)}.{key}"
