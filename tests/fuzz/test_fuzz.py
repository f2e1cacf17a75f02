"""Spoilt inputs at every door: each works, or gets the error that its door documents.

The budgets are small and the inputs always the same; `make fuzz` looks for new ones.
"""

from __future__ import annotations

import logging
import random
import tracemalloc
import warnings
from collections.abc import Iterator

import pytest
from fuzz_mutations import any_input, parsed, spoilt, written
from fuzz_targets import CORPUS, TARGETS, seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envs.bridge.proto.communicator_pb2 import UnityMessageProto

# Processor time of one input; a thousand times what it usually takes.
CPU_S = 20.0
# Inputs of each target; those that begin a conversation each time cost the most.
NUM_INPUTS = {
    "greeting": 150,
    "first": 250,
    "later": 250,
    "played": 300,
    "agents": 300,
    "side_channel": 500,
    "image": 600,
    "http2": 400,
    "yaml": 400,
}
# Memory that an input may cost while it is read: so much, and so many times its own size.
MEMORY_BYTES, MEMORY_MULTIPLE = 4 << 20, 100
NUM_MEASURED = 60


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of images that are wrong but readable
        yield
    logging.disable(logging.NOTSET)


def test_every_target_has_a_corpus_and_a_budget() -> None:
    assert set(NUM_INPUTS) == set(TARGETS)
    for name in TARGETS:
        assert seeds(name), name


@pytest.mark.parametrize(
    "name", ["greeting", "first", "later", "played", "agents", "image", "http2"]
)
def test_recorded_inputs_work_as_they_are(name: str) -> None:
    broke = {path.read_bytes() for path in (CORPUS / "found" / name).glob("*")}
    for data in seeds(name):
        if data not in broke:
            assert TARGETS[name].check(data, CPU_S) == "works"


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_that_once_broke_something_do_no_more(name: str) -> None:
    for path in sorted((CORPUS / "found" / name).glob("*")):
        TARGETS[name].check(path.read_bytes(), CPU_S)


@pytest.mark.parametrize("name", TARGETS)
def test_spoilt_inputs_work_or_are_refused_in_the_documented_way(name: str) -> None:
    outcomes: dict[str, int] = {}

    @settings(
        max_examples=NUM_INPUTS[name],
        deadline=None,  # `check` counts processor time, which a busy machine does not change
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def fuzz(choose: random.Random) -> None:
        data = any_input(name, choose)
        try:
            outcome = TARGETS[name].check(data, CPU_S)
        except BaseException as error:
            error.add_note(f"target {name}, input {data.hex()}")
            raise
        outcomes[outcome] = outcomes.get(outcome, 0) + 1

    fuzz()
    assert sum(outcomes.values()) >= NUM_INPUTS[name] // 2
    assert len(outcomes) > 1, "inputs that are all refused, or all fine, look nowhere"


@pytest.mark.parametrize("name", TARGETS)
def test_memory_stays_within_a_multiple_of_the_input(name: str) -> None:
    for data in seeds(name)[:3]:
        TARGETS[name].check(data, CPU_S)  # what is imported and remembered once does not count
    choose = random.Random(3)
    tracemalloc.start()
    try:
        for _ in range(NUM_MEASURED):
            data = any_input(name, choose)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            TARGETS[name].check(data, CPU_S)
            _, peak = tracemalloc.get_traced_memory()
            limit = MEMORY_BYTES + MEMORY_MULTIPLE * len(data)
            assert peak - before <= limit, f"target {name}, input {data.hex()}"
    finally:
        tracemalloc.stop()


def test_messages_can_be_taken_apart_and_put_together_again() -> None:
    for data in seeds("first"):
        message = data[1:]
        assert written(parsed(message, UnityMessageProto.DESCRIPTOR)) == message


@pytest.mark.parametrize("name", TARGETS)
def test_spoiling_changes_most_inputs(name: str) -> None:
    choose = random.Random(0)
    data = seeds(name)[0]
    assert sum(spoilt(name, data, choose) != data for _ in range(100)) > 60
