#!/bin/sh
# Makes the referee: a venv with mlagents-envs 0.28 and the old protobuf that its messages need.
#
#   tests/compliance/make_referee.sh .venv-referee
#
# The tests in tests/compliance run its own UnityEnvironment and its own gRPC stubs against us.
# Does nothing when the folder is complete. PYTHON names another interpreter than python3.
set -eu

target=${1:?usage: make_referee.sh FOLDER}
python=${PYTHON:-python3}
check='import numpy, mlagents_envs.environment, mlagents_envs.communicator_objects.unity_to_external_pb2_grpc; numpy.bool'

if [ -x "$target/bin/python" ] && "$target/bin/python" -c "$check" 2>/dev/null; then
    exit 0
fi
"$python" -m venv --clear "$target"
# protobuf 3.20 reads the generated messages of 0.28; numpy 1.24 to 1.26 lack np.bool, which it uses.
"$target/bin/python" -m pip install --quiet --disable-pip-version-check \
    "mlagents-envs==0.28.0" "protobuf==3.20.3" "numpy>=2" "grpcio>=1.60" \
    "pillow" "pyyaml" "cloudpickle" \
    "setuptools" # has distutils, which 0.28 imports and Python 3.12 lacks
"$target/bin/python" -c "$check"
