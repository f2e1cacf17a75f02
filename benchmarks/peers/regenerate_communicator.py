"""Regenerates mlagents_envs' protobuf modules for protobuf 4; runs in the peer's own venv.

The modules that mlagents-envs 1.1.0 ships were written for protobuf 3 and refuse to load under the
fast C implementation of protobuf 4. Their descriptors are complete, so protoc can write them anew.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "mlagents_envs/communicator_objects"

# The pure-Python implementation still loads the old modules.
_DESCRIBE = """
import importlib, pathlib, sys
from google.protobuf import descriptor_pb2, any_pb2
files = descriptor_pb2.FileDescriptorSet()
seen = set()
def add(descriptor):
    if descriptor.name in seen:
        return
    seen.add(descriptor.name)
    for dependency in descriptor.dependencies:
        add(dependency)
    files.file.add().ParseFromString(descriptor.serialized_pb)
for name in sorted(p.stem for p in pathlib.Path(sys.argv[1]).glob("*_pb2.py")):
    add(importlib.import_module(f"mlagents_envs.communicator_objects.{name}").DESCRIPTOR)
pathlib.Path(sys.argv[2]).write_bytes(files.SerializeToString())
print(*sorted(n for n in seen if n.startswith("mlagents_envs")))
"""


def main() -> None:
    """Writes the modules in place, unless they load already."""
    spec = importlib.util.find_spec("mlagents_envs")
    assert spec is not None and spec.submodule_search_locations, "mlagents_envs is not installed"
    site_packages = Path(next(iter(spec.submodule_search_locations))).parent
    folder = site_packages / PACKAGE
    if "AddSerializedFile" in (folder / "unity_message_pb2.py").read_text():
        print("communicator_objects are up to date")
        return
    with tempfile.TemporaryDirectory() as scratch:
        described = Path(scratch) / "descriptors.pb"
        names = subprocess.run(
            [sys.executable, "-c", _DESCRIBE, str(folder), str(described)],
            env={**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        command = [sys.executable, "-m", "grpc_tools.protoc"]
        command += [f"--descriptor_set_in={described}", f"--python_out={site_packages}", *names]
        subprocess.run(command, check=True)
    print(f"regenerated {len(names)} modules in {folder}")


if __name__ == "__main__":
    main()
