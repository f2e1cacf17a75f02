"""Writes the `*_pb2.py` and `*_pb2.pyi` files beside the `.proto` files.

Run `python -m envs.bridge.proto.generate` after a change of a `.proto` file (needs grpcio-tools);
a test proves that the committed files are what this program writes.
"""

from __future__ import annotations

import sys
from pathlib import Path

PROTO_DIRECTORY = Path(__file__).parent
ROOT = PROTO_DIRECTORY.parent.parent.parent
SCHEMAS = ("communicator", "columns")


def generate(target: Path) -> list[Path]:
    """Writes the generated files under `target` and gives their paths.

    Args:
        target: the folder that holds the package `envs`; files land in its `envs/bridge/proto`.

    Raises:
        RuntimeError: the compiler refused a schema; it has printed why.
    """
    from grpc_tools import protoc  # type: ignore[import-untyped]  # it ships no stubs

    schemas = [f"envs/bridge/proto/{name}.proto" for name in SCHEMAS]
    arguments = ["protoc", f"-I{ROOT}", f"--python_out={target}", f"--pyi_out={target}", *schemas]
    if protoc.main(arguments) != 0:
        raise RuntimeError(f"protoc could not compile {schemas}; see its message above")
    folder = target / "envs" / "bridge" / "proto"
    for stub in folder.glob("*_pb2.pyi"):
        # protoc leaves the type arguments out, which `mypy --strict` refuses.
        stub.write_text(stub.read_text().replace("_Mapping]", "_Mapping[str, object]]"))
    return [folder / f"{name}_pb2{suffix}" for name in SCHEMAS for suffix in (".py", ".pyi")]


if __name__ == "__main__":
    for path in generate(ROOT):
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
