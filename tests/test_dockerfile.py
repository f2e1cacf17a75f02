"""No Docker engine runs in CI: the Dockerfile is linted, and installs what the Makefile does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HADOLINT = Path(sys.executable).parent / "hadolint"


def test_hadolint_finds_nothing_in_dockerfile() -> None:
    done = subprocess.run(
        [HADOLINT, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_dockerfile_installs_what_make_train_installs() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^\$\(VENV\)/\.installed: .*\n\t\$\(INSTALL\) (.*)$", makefile, re.M)
    flags = re.search(r"^INSTALL := \$\(BIN\)/pip install (.*)$", makefile, re.M)
    assert recipe is not None
    assert flags is not None
    dockerfile = (ROOT / "Dockerfile").read_text()
    installs = re.findall(r"^RUN \.venv/bin/pip install (.*)$", dockerfile, re.M)
    assert len(installs) == 2
    for install in installs:
        assert set(flags.group(1).split()) <= set(install.split()), install
    # The index of torch lacks the pinned versions of what it needs: those come with the rest.
    assert "--index-url" in installs[0]
    assert "--no-deps" in installs[0]
    assert "--index-url" not in installs[1]
    assert "--no-deps" not in installs[1]
    assert installs[1].endswith(recipe.group(1))


def test_dockerfile_copies_everything_that_the_default_job_needs() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")
    }
    copied = re.findall(r"^COPY (?!--from)(.*)$", (ROOT / "Dockerfile").read_text(), re.M)
    sources = {word for line in copied for word in line.split()[:-1] if not word.startswith("--")}
    assert sources <= allowed
    assert all((ROOT / source).exists() for source in sources)
