"""Files that are wrong in every way we know; what is said of them is pinned in messages.json.

`python tests/trainer/config/test_hostile_settings.py` writes the messages anew; read the diff.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from hostile_files import HOSTILE

from trainer.cli.main import main
from trainer.config import document
from trainer.config.document import parse_document, read_document
from trainer.config.errors import MOST_LINES_SHOWN, ConfigError
from trainer.config.load import resolve
from trainer.config.problems import program

MESSAGES = Path(__file__).parents[2] / "messages.json"
SECTION = "settings"


def text_of(name: str) -> str:
    text = HOSTILE[name]
    return textwrap.dedent(text).lstrip("\n") if text.startswith("\n ") else text


def problems_of(name: str) -> list[str]:
    """Gives the lines that the user sees."""
    with pytest.raises(ConfigError) as caught:
        resolve(parse_document(Path("run.yaml"), text_of(name)))
    # A new version does not change what is said.
    return str(caught.value).replace(program(), "ppo-train VERSION").split("\n")


def table_row(name: str) -> dict[str, list[str]]:
    """Gives a file and what is said of it, one beside the other, for the table of messages."""
    file = [line if len(line) <= 100 else f"{line[:100]}..." for line in text_of(name).split("\n")]
    return {"file": file[: MOST_LINES_SHOWN + 1], "said": problems_of(name)}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_gets_the_pinned_messages(name: str) -> None:
    if not hasattr(yaml, "CSafeLoader"):
        pytest.skip("the parser's own words are those of libyaml")
    table = json.loads(MESSAGES.read_text(encoding="utf-8"))[SECTION]
    assert table[name] == table_row(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_every_message_says_where_and_ends_as_a_sentence(name: str) -> None:
    for problem in problems_of(name):
        assert problem.startswith(("run.yaml:", "... and "))
        assert problem.endswith((".", "?"))


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_said_fits_on_one_screen(name: str) -> None:
    lines = [line for problem in problems_of(name) for line in textwrap.wrap(problem, 100)]
    assert len(lines) <= 50


@pytest.mark.parametrize("verb", ["check", "train"])
def test_command_ends_with_exit_code_2_and_the_file_named(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    for name in HOSTILE:
        path.write_text(text_of(name), encoding="utf-8")
        assert main([verb, str(path)]) == 2, name
        said = capsys.readouterr().err
        assert str(path) in said, name
        assert "Traceback" not in said, name


def test_there_are_more_than_a_hundred_kinds_of_mistakes() -> None:
    assert len(HOSTILE) > 150
    assert len({text_of(name) for name in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize("name", HOSTILE)
def test_parser_without_c_finds_the_same_lines(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def places() -> list[str]:
        return [":".join(problem.split(":")[:2]) for problem in problems_of(name)]

    with_c = places()
    monkeypatch.setattr(document, "Loader", yaml.SafeLoader)
    assert places() == with_c


def test_nesting_that_would_overflow_the_stack_is_refused() -> None:
    # In a process of its own: without the limit, the parser in C ends it with SIGSEGV.
    code = """
from pathlib import Path
from trainer.config.document import parse_document
parse_document(Path("run.yaml"), "[" * 200_000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "is nested more than 50 deep" in done.stderr


def test_aliases_that_multiply_are_refused() -> None:
    levels = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 9))
    with pytest.raises(ConfigError, match="aliases multiply to more than 100000 values"):
        parse_document(Path("run.yaml"), f"l0: &l0 x\n{levels}")


def test_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "walker.yaml").write_text("behaviors: {A: {}}")
    with pytest.raises(ConfigError, match=r"run\.yaml: no such file\. There is walker\.yaml in"):
        read_document(tmp_path / "run.yaml")


def test_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; expected a YAML file"):
        read_document(tmp_path)


def test_file_in_another_encoding_names_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"behaviors:\n  L\xe4ufer: {}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml:2: byte 0xe4 is not UTF-8"):
        read_document(path)


def test_utf16_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("behaviors: {A: {}}", encoding="utf-16")
    with pytest.raises(ConfigError, match="encoded as UTF-16; expected UTF-8"):
        read_document(path)


def test_byte_order_mark_of_windows_editors_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("behaviors: {A: {}}", encoding="utf-8-sig")
    assert list(resolve(read_document(path)).behaviors) == ["A"]


def test_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(bytes(2_000_000))
    with pytest.raises(ConfigError, match=r"is 2\.0 MB; expected settings in YAML"):
        read_document(path)


if __name__ == "__main__":
    pinned = json.loads(MESSAGES.read_text(encoding="utf-8")) if MESSAGES.exists() else {}
    pinned[SECTION] = {name: table_row(name) for name in HOSTILE}
    written = json.dumps(pinned, indent=2, ensure_ascii=False) + "\n"
    MESSAGES.write_text(written, encoding="utf-8")
