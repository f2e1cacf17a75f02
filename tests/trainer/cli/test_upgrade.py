from __future__ import annotations

from pathlib import Path

import pytest

from trainer.cli.main import main
from trainer.config.load import load_run
from trainer.config.samplers import UniformSampler

OLD = "Walker:\n  trainer: ppo   # the only one\n  batch_size: 64\n  model_path: x\n"


def test_upgrade_prints_the_new_file_and_tells_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old.yaml"
    old.write_text(OLD)
    assert main(["upgrade", str(old)]) == 0
    said = capsys.readouterr()
    assert said.out == (
        "behaviors:\n  Walker:\n    trainer_type: ppo  # the only one\n"
        "    hyperparameters:\n      batch_size: 64\n"
    )
    assert said.err == (
        f"{old}:4:3: model_path is left out: a run's files lie in its folder below results_dir.\n"
    )


def test_upgrade_writes_a_file_that_loads_and_never_overwrites(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(OLD)
    assert main(["upgrade", str(old), "-o", str(new)]) == 0
    assert f"Wrote {new} (from the format of ML-Agents 0.16 and older)" in capsys.readouterr().out
    assert load_run(new) == load_run(old)
    written = new.read_text()
    assert main(["upgrade", str(old), "-o", str(new)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert new.read_text() == written
    assert old.read_text() == OLD


def test_upgrade_takes_the_separate_files_of_old_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.yaml").write_text(OLD)
    (tmp_path / "s.yaml").write_text(
        "resampling-interval: 5  # unused\nmass: {sampler-type: uniform, max_value: 3}\n"
    )
    (tmp_path / "c.yaml").write_text("Walker: {thresholds: [], parameters: {height: [4]}}\n")
    words = [str(tmp_path / name) for name in ("old.yaml", "s.yaml", "c.yaml", "new.yaml")]
    assert (
        main(["upgrade", words[0], "--sampler", words[1], "--curriculum", words[2], "-o", words[3]])
        == 0
    )
    said = capsys.readouterr().err
    assert f"{words[1]}: its comments are not kept" in said
    parameters = load_run(Path(words[3])).environment_parameters
    mass = parameters["mass"]
    assert isinstance(mass, UniformSampler)
    assert mass.sampler_parameters.max_value == 3
    assert parameters["height"] == 4


def test_upgrade_says_what_the_new_file_still_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old.yaml"
    old.write_text("Walker: {trainer: sac, batch_size: 64}\n")
    assert main(["upgrade", str(old)]) == 0
    assert "still to do: " in capsys.readouterr().err


def test_file_of_today_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("behaviors: {A: {}}\n")
    assert main(["upgrade", str(path), "-o", str(tmp_path / "new.yaml")]) == 0
    assert "in today's format already" in capsys.readouterr().err
    assert not (tmp_path / "new.yaml").exists()


def test_key_given_twice_stops_the_upgrade(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old.yaml"
    old.write_text("A:\n  trainer: ppo\n  beta: 1\n  beta: 2\n")
    assert main(["upgrade", str(old)]) == 2
    assert f"{old}:4:3: A.beta is given twice" in capsys.readouterr().err
