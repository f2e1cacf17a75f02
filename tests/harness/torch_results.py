"""Counts what torch makes, so that tests can bound operations and memory without a clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class LargestResults(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch has no types here
    """Notes the bytes of every new tensor of an operation inside the block; views are none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # likewise
        self.num_bytes: list[int] = []
        self.num_operations: int = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.num_operations += 1
        given = {_storage(item) for item in args if isinstance(item, Tensor)}
        for item in result if isinstance(result, tuple | list) else (result,):
            if isinstance(item, Tensor) and _storage(item) not in given:
                self.num_bytes.append(item.untyped_storage().nbytes())
        return result


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
