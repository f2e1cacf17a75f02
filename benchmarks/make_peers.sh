#!/bin/sh
# Installs the peers that ppo-train is measured against, each in a venv of its own.
#
#   benchmarks/make_peers.sh [mlagents|sb3|skrl|rsl_rl|cleanrl|all]     (default: all)
#
# Environment: PEER_PYTHON   a Python 3.11 (default: python3.11)
#              MLAGENTS_VENV folder for mlagents-learn (default: .venv-mlagents)
#              SB3_VENV      folder for Stable-Baselines3 (default: .venv-sb3)
#              SKRL_VENV, RSL_RL_VENV, CLEANRL_VENV    the same (default: .venv-skrl, ...)
#
# CleanRL is no package: its venv gets what its scripts import, and benchmarks.gym_peers is told where
# they are. PufferLib cannot be installed without more of the web than a package index, and Sample
# Factory 2 wants a Gymnasium before 1.0.
#
# mlagents 1.1.0 declares Python 3.10.1 to 3.10.12 and protobuf below 3.21. Here it gets Python 3.11,
# torch 2.13 (the same as ours) and protobuf 4 with its C implementation (upb), which is not slower
# than the C++ implementation of protobuf 3.20; its communicator_objects are regenerated for it.
set -eu

cd "$(dirname "$0")/.."
what="${1:-all}"
python="${PEER_PYTHON:-python3.11}"
mlagents_venv="${MLAGENTS_VENV:-.venv-mlagents}"
sb3_venv="${SB3_VENV:-.venv-sb3}"

make_mlagents() {
    "$python" -m venv "$mlagents_venv"
    pip="$mlagents_venv/bin/pip"
    $pip install --ignore-requires-python --no-deps mlagents==1.1.0 mlagents-envs==1.1.0
    # The declared dependencies, at the declared versions where a wheel for this Python exists.
    $pip install torch==2.13.0 numpy==1.23.5 protobuf==4.25.8 grpcio==1.62.3 grpcio-tools==1.62.3 \
        attrs==23.2.0 "cattrs<1.7,>=1.5" "h5py<3.12" onnx==1.15.0 gym==0.26.2 \
        "tensorboard>=2.14" "huggingface-hub<0.30" "Pillow<12" "pyyaml>=6" six cloudpickle \
        filelock importlib_metadata "setuptools<81"
    $pip install --ignore-requires-python --no-deps pettingzoo==1.15.0
    "$mlagents_venv/bin/python" benchmarks/peers/regenerate_communicator.py
    "$mlagents_venv/bin/python" benchmarks/peers/mlagents_learn.py --help > /dev/null
}

make_sb3() {
    "$python" -m venv "$sb3_venv"
    # Same torch, numpy, Gymnasium and MuJoCo as ours.
    "$sb3_venv/bin/pip" install -c constraints.txt torch "gymnasium[mujoco]" \
        "stable-baselines3>=2.9,<2.10"
    "$sb3_venv/bin/python" -c "import stable_baselines3, gymnasium, mujoco"
}

# Same torch, numpy, Gymnasium and MuJoCo as ours.
make_gym_peer() {
    venv="$1"
    shift
    "$python" -m venv "$venv"
    "$venv/bin/pip" install -c constraints.txt torch "gymnasium[mujoco]" "$@"
}

make_skrl() {
    make_gym_peer "${SKRL_VENV:-.venv-skrl}" "skrl==2.1.1"
    "${SKRL_VENV:-.venv-skrl}/bin/python" -c "import skrl.agents.torch.ppo, mujoco"
}

make_rsl_rl() {
    make_gym_peer "${RSL_RL_VENV:-.venv-rsl_rl}" "rsl-rl-lib==5.5.1" tensordict
    "${RSL_RL_VENV:-.venv-rsl_rl}/bin/python" -c "import rsl_rl.runners, tensordict, mujoco"
}

make_cleanrl() {
    make_gym_peer "${CLEANRL_VENV:-.venv-cleanrl}" tensorboard tyro
    "${CLEANRL_VENV:-.venv-cleanrl}/bin/python" -c "import tyro, torch.utils.tensorboard, mujoco"
}

case "$what" in
mlagents) make_mlagents ;;
sb3) make_sb3 ;;
skrl) make_skrl ;;
rsl_rl) make_rsl_rl ;;
cleanrl) make_cleanrl ;;
all) make_mlagents && make_sb3 && make_skrl && make_rsl_rl && make_cleanrl ;;
*)
    echo "make_peers.sh: unknown peer '$what'; one of mlagents, sb3, skrl, rsl_rl, cleanrl, all" >&2
    exit 2
    ;;
esac
