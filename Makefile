# Two commands do everything on a fresh machine: `make train` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
REFEREE := .venv-referee
INSTALL := $(BIN)/pip install --quiet --constraint constraints.txt

.PHONY: train test test-learning fuzz bench lint format types layers proto docs clean

train: $(VENV)/.installed
	$(BIN)/ppo-train behaviors.yaml $(ARGS)

# Files of tests side by side; ARGS="-n 0" runs them one after the other.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist loadfile
test: $(VENV)/.installed-test $(REFEREE)/.installed
	$(BIN)/pytest $(SIDE_BY_SIDE) $(ARGS)

# Learning tests that need minutes; the figures of the last run are in docs/learning.md.
test-learning: $(VENV)/.installed-test
	$(BIN)/pytest -m slow --timeout 7200 $(ARGS)

# Looks for inputs that break something (tests/fuzz); with atheris, where there is a wheel of it.
MINUTES ?= 10
fuzz: $(VENV)/.installed-test
	-$(INSTALL) --editable '.[fuzz]'
	$(BIN)/python tests/fuzz/fuzz_forever.py --minutes $(MINUTES) $(ARGS)

# More than an hour on a machine that does nothing else; benchmarks/make_peers.sh comes first.
bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.run_all $(ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-test
	$(BIN)/mypy

layers: $(VENV)/.installed-test
	$(BIN)/pytest tests/test_layers.py

# Python code of the wire protocol, from envs/bridge/proto/*.proto.
proto: $(VENV)/.installed-test
	$(BIN)/python -m envs.bridge.proto.generate

docs: $(VENV)/.installed-test
	$(BIN)/python -m trainer.config.reference > docs/configuration.md
	$(BIN)/ppo-train schema > configs/behaviors.schema.json

$(BIN)/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ppo-train needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) --editable '.[mujoco,video,remote]'
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(INSTALL) --editable '.[mujoco,video,test]'
	touch $@

# ML-Agents' own Python client, with the old protobuf that it needs, as a referee of our protocol.
$(REFEREE)/.installed: tests/compliance/make_referee.sh | $(BIN)/pip
	PYTHON=$(BIN)/python sh $< $(REFEREE)
	touch $@

clean:
	rm -rf $(VENV) $(REFEREE) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
