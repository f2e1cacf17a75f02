"""One moment of a reproducible run: the checkpoints of all behaviours, valid only together.

In reproducible mode all behaviours are saved at the same turn of the loop, and a run that goes on
from there equals one that was never interrupted. A kill between the saves of two of them must not
bring together what never was together, so a moment counts once this record of it is written, after
all of its checkpoints, and checkpoints of the moment before are deleted only then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.atomic_file import atomic_write
from trainer.checkpoint import CheckpointError

FORMAT = 1


@dataclass(frozen=True, slots=True)
class MomentFile:
    """`run_logs/moment.json`; one writer at a time."""

    path: Path

    def read(self) -> Mapping[str, int] | None:
        """Gives the step of every behaviour that there was; None without a moment.

        Raises:
            CheckpointError: the file is damaged.
        """
        if not self.path.is_file():
            return None
        try:
            document = json.loads(self.path.read_bytes())
            if document["format"] != FORMAT:
                raise ValueError(f"format {document['format']}, expected {FORMAT}")
            return {str(name): int(step) for name, step in document["steps"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{self.path} cannot be read ({error}). Expected the steps at which all behaviours "
                f"were saved together: restore it from a copy, or delete it and choose a step that "
                f"all of them have with --from-step."
            ) from error

    def write(self, steps: Mapping[str, int]) -> None:
        """Makes checkpoints of these steps the moment that a resumed run goes on from."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        document = {"format": FORMAT, "steps": dict(steps)}
        atomic_write(self.path, json.dumps(document, indent=2).encode())

    def clear(self) -> None:
        """Forgets the moment: from now on every behaviour goes by itself."""
        self.path.unlink(missing_ok=True)
