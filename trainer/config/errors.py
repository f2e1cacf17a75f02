"""Mistakes of the user: printed without a stack trace, and the process exits with 2."""

from __future__ import annotations


class UserError(Exception):
    """Something only the user can put right; its text says where, what, and what to do."""


class ConfigError(UserError):
    """Settings that cannot be used; one line per problem, in the order of the file."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
