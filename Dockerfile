# ppo-train: small, non-root, CPU by default.
#
#   docker build -t ppo-train .
#   docker run --rm -v "$PWD/results:/app/results" ppo-train
#
# With CUDA: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 and `docker run --gpus all`.
# The install steps are the Makefile's (`make train` installs the same extras under the same
# constraints); tests/test_dockerfile.py keeps the two equal.

FROM python:3.11-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /app
RUN python3 -m venv .venv
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY trainer trainer
COPY envs envs
# torch comes first, from its own index: the ordinary one has only builds with CUDA. It comes alone:
# that index holds few versions of what torch needs, and the pinned ones are on the ordinary one.
RUN .venv/bin/pip install --quiet --no-cache-dir --constraint constraints.txt --no-deps --index-url "$TORCH_INDEX" torch
# hadolint ignore=DL3059 # a layer of its own: torch is large and seldom changes
RUN .venv/bin/pip install --quiet --no-cache-dir --constraint constraints.txt --editable '.[mujoco,video,remote]'

FROM python:3.11-slim
# MuJoCo films off screen through EGL.
# hadolint ignore=DL3008 # Debian keeps no older versions that could be pinned
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libegl1 libgl1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 trainer \
    && install --directory --owner trainer --group trainer /app /app/results
COPY --from=build --chown=trainer:trainer /app /app
COPY --chown=trainer:trainer behaviors.yaml /app/
COPY --chown=trainer:trainer configs /app/configs
USER 1000:1000
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 MUJOCO_GL=egl
VOLUME /app/results
# A run rewrites timers.json every half minute; one that has not for ten minutes is stuck.
HEALTHCHECK --interval=60s --timeout=10s --start-period=300s --retries=3 \
    CMD ["sh", "-c", "find results/*/run_logs -name timers.json -mmin -10 | grep -q ."]
ENTRYPOINT ["ppo-train"]
CMD ["behaviors.yaml"]
