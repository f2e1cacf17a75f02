from __future__ import annotations

import importlib.metadata
import subprocess
import sysconfig
from pathlib import Path

import pytest

from trainer.cli import install_alias
from trainer.cli.main import main
from trainer.config.errors import UserError


def test_alias_starts_this_program_as_a_training_run(tmp_path: Path) -> None:
    path = install_alias.install(tmp_path)
    assert path.name == "mlagents-learn"
    # A file called like a verb is a file: mlagents-learn has no verbs.
    (tmp_path / "trainer").mkdir()  # what lies around must not be taken for ours
    (tmp_path / "trainer" / "__init__.py").write_text("raise RuntimeError")
    done = subprocess.run([path, "check"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: check: no such file.")
    assert install_alias.install(tmp_path) == path  # again, after an update


def test_alias_is_removed_again(tmp_path: Path) -> None:
    path = install_alias.install(tmp_path)
    install_alias.remove(tmp_path)
    assert not path.exists()
    with pytest.raises(UserError, match="nothing to remove"):
        install_alias.remove(tmp_path)


def test_program_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "mlagents-learn"
    other.write_text("#!/bin/sh\n")
    with pytest.raises(UserError, match="is another program"):
        install_alias.install(tmp_path)
    with pytest.raises(UserError, match="is another program"):
        install_alias.remove(tmp_path)
    assert other.read_text() == "#!/bin/sh\n"


def test_name_is_ml_agents_own_while_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(
        install_alias, "version", lambda name: "1.1.0" if name == "mlagents" else real(name)
    )
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert main(["install-alias"]) == 2
    assert "mlagents 1.1.0 is installed in" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
