"""Mistakes of the user: printed without a stack trace, and the process exits with 2."""

from __future__ import annotations

MOST_LINES_SHOWN = 12


class UserError(Exception):
    """Something only the user can put right; its text says where, what, and what to do."""


class ConfigError(UserError):
    """Settings that cannot be used; one line per problem, in the order of the file."""

    def __init__(self, *problems: str) -> None:
        shown = problems[:MOST_LINES_SHOWN]
        left = len(problems) - len(shown)
        rest = (f"... and {left} more. Put these right first.",) if left else ()
        super().__init__("\n".join((*shown, *rest)))
        self.problems = problems
