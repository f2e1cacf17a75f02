"""Looks for inputs that break something, for as long as is asked; coverage leads the way.

    python tests/fuzz/fuzz_forever.py --minutes 10          # all targets in turn; `make fuzz`
    python tests/fuzz/fuzz_forever.py --minutes 10 later    # one

With atheris inputs that reach new code become the next ones to spoil; without it (it has no wheels
for some Pythons) they are spoilt at random. Inputs that break something are written to
tests/fuzz/corpus/found/<target>, where the tests run them from then on, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import random
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
NAMES = (
    "greeting", "first", "later", "played", "agents", "side_channel", "image", "http2", "yaml",
)  # fmt: skip
BUILD = HERE.parent.parent / "build" / "fuzz"
CPU_S = 20.0
LONGEST_INPUT = 100_000
MEMORY_MB = 4096  # of the whole process; atheris ends it beyond


def checked(name: str, check: Callable[[bytes, float], str], data: bytes) -> bool:
    """Runs an input; writes it down and says so when it breaks something."""
    try:
        check(data, CPU_S)
    except Exception:
        folder = HERE / "corpus" / "found" / name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
        path.write_bytes(data)
        print(f"{path} breaks something:\n{traceback.format_exc()}", flush=True)
        return False
    return True


def with_atheris(name: str, seconds: int) -> None:
    """Fuzzes a target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["envs", "trainer.config"]):
        import fuzz_mutations
        import fuzz_targets
    corpus = BUILD / name
    corpus.mkdir(parents=True, exist_ok=True)
    for data in fuzz_targets.seeds(name):
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    check = fuzz_targets.TARGETS[name].check

    def run(data: bytes) -> None:
        if not checked(name, check, data):
            os._exit(1)

    def spoil(data: bytes, max_size: int, seed: int) -> bytes:
        choose = random.Random(seed)
        if choose.randrange(3) == 0:
            size = min(len(data) + choose.randrange(1, 64), max_size)
            return bytes(atheris.Mutate(data[:max_size], size))[:max_size]
        return fuzz_mutations.spoilt(name, data, choose)[:max_size]

    words = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST_INPUT}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={BUILD}/{name}-",
        "-print_final_stats=1",
        "-verbosity=0",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *words], run, custom_mutator=spoil)
    atheris.Fuzz()


def without_atheris(name: str, seconds: int) -> int:
    """Fuzzes a target with inputs spoilt at random; gives how many broke something."""
    import fuzz_mutations
    import fuzz_targets

    choose = random.Random()
    check = fuzz_targets.TARGETS[name].check
    limit, num_inputs, num_broken = time.monotonic() + seconds, 0, 0
    while time.monotonic() < limit:
        num_inputs += 1
        num_broken += not checked(name, check, fuzz_mutations.any_input(name, choose))
    print(f"{name}: {num_inputs} inputs, {num_broken} broke something", flush=True)
    return num_broken


def main() -> int:
    """Fuzzes the targets one after the other, each in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of all targets together")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*", choices=[[], *NAMES], metavar="target")
    options = parser.parse_args()
    names = options.targets or list(NAMES)
    seconds = max(1, round(60 * options.minutes / len(names)))
    if options.here:
        logging.disable(logging.CRITICAL)
        warnings.simplefilter("ignore")
        if find_spec("atheris") is None:
            return int(without_atheris(names[0], seconds) > 0)
        with_atheris(names[0], seconds)
    broken = []
    for name in names if not options.here else []:
        print(f"---- {name}, {seconds} s", flush=True)
        words = ["--here", "--minutes", str(seconds / 60), name]
        if subprocess.run([sys.executable, __file__, *words]).returncode:
            broken.append(name)
    if broken:
        print(f"Something breaks in: {', '.join(broken)}.")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
