# Two commands on a fresh machine: `make demo` and `make test`. CI runs `make check`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := interp probes analyses tests benchmarks notebooks

.PHONY: demo install model test check format lint types contracts bench notebooks clean

demo: model
	$(BIN)/interp scan --out runs

install: $(VENV)/.installed

# torch goes first, by exact version: a range would pull another build with gigabytes of CUDA libraries.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

model: install
	$(BIN)/interp models fetch demo:base
	$(BIN)/interp models fetch demo:llava
	$(BIN)/interp scenes fetch

# Two workers, one thread each: threads of two processes that wait for each other on two cores lose most of the time.
test: model
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadgroup

check: format lint types contracts test

format: install
	$(BIN)/ruff format --check $(CODE)

lint: install
	$(BIN)/ruff check $(CODE)

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports --no-cache

bench: model
	$(BIN)/python benchmarks/harvest.py
	$(BIN)/python benchmarks/probes.py
	$(BIN)/python benchmarks/tga.py

clean:
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
