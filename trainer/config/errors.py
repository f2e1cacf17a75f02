"""What the user can put right: printed without a stack trace, each kind with its exit code."""

from __future__ import annotations

MOST_LINES_SHOWN = 12


class UserError(Exception):
    """Something only the user can put right; its text says where, what, and what to do."""

    exit_code = 2
    """What the process ends with; kinds that a program may want to tell apart have another."""


class ConfigError(UserError):
    """Settings that cannot be used; one line per problem, in the order of the file."""

    def __init__(self, *problems: str) -> None:
        shown = problems[:MOST_LINES_SHOWN]
        left = len(problems) - len(shown)
        rest = (f"... and {left} more. Put these right first.",) if left else ()
        super().__init__("\n".join((*shown, *rest)))
        self.problems = problems
