"""What a YAML parser does not understand, in words that say what to do."""

from __future__ import annotations

from pathlib import Path

import yaml

from trainer.config.problems import shorten

# What libyaml says, and what it usually means.
MEANINGS = {
    "mapping values are not allowed in this context": (
        "a ':' stands where none can. Is one missing in the line above? Put a text that holds "
        "': ' in quotes"
    ),
    "found character that cannot start any token": (
        "a value cannot begin with this character. Put it in quotes"
    ),
    "did not find expected key": (
        "this line is not indented like those it belongs to. Line it up with them"
    ),
    "found unexpected end of stream": "a quote is opened and never closed. Close it",
    "did not find expected ',' or '}'": "a '{' is opened and not closed before this. Close it",
    "did not find expected ',' or ']'": "a '[' is opened and not closed before this. Close it",
    **dict.fromkeys(
        ("found unknown escape character", "did not find expected hexdecimal number"),
        "in double quotes a backslash begins an escape. Use single quotes",
    ),
    "found undefined alias": "this * names an anchor (&) that the file does not have",
    "found incompatible YAML document": "asks for another version of YAML; expected 1.1 or 1.2",
}
CONFLICT_MARKS = ("<<<<<<< ", "=======", ">>>>>>> ")


def explain_syntax(path: Path, text: str, error: yaml.YAMLError) -> str:
    """Puts a parser's error into one line with its place."""
    if isinstance(error, yaml.reader.ReaderError):
        character = error.character if isinstance(error.character, str) else chr(error.character)
        line = text[: max(0, text.find(character))].count("\n") + 1
        return f"{path}:{line}: holds the character {character!r}, which YAML does not allow."
    lines = text.splitlines()
    for number, line_text in enumerate(lines):
        if line_text.startswith(CONFLICT_MARKS):
            return (
                f"{path}:{number + 1}:1: {shorten(line_text)!r} is the mark of a merge that is not "
                "finished. Keep the lines of one side, and remove the marks."
            )
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return f"{path}: is not valid YAML: {shorten(str(error))}."
    where = f"{path}:{mark.line + 1}:{mark.column + 1}"
    found = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in found[: len(found) - len(found.lstrip())]:
        return f"{where}: a tab indents this line; YAML allows only spaces. Replace it by spaces."
    context, problem = getattr(error, "context", None), getattr(error, "problem", None)
    if "expected a single document" in str(context):
        return f"{where}: a second document begins (`---`); expected one. Put it into its own file."
    if problem in MEANINGS:
        return f"{where}: is not valid YAML: {MEANINGS[problem]}."
    reasons = ", ".join(reason for reason in (context, problem) if reason)
    return f"{where}: is not valid YAML: {reasons}."
