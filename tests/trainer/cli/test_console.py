"""What the console shows of what is logged."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from trainer.cli.console import make_reporter


@pytest.fixture
def root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("root_as_it_was")
def test_debug_shows_our_details_and_not_those_of_http2_headers() -> None:
    with make_reporter(debug=True):
        assert logging.getLogger("trainer.run").isEnabledFor(logging.DEBUG)
        assert not logging.getLogger("hpack.hpack").isEnabledFor(logging.DEBUG)
