# make demo [DATA=folder]   pretrain, fine-tune and evaluate in minutes, on made-up sound or on your own folder
# make test                 all tests;   make check: style and types;   make format: put the style right
# make bench-check          count the instructions of fixed workloads beside those expected (needs valgrind)
# make docs                 the documentation site, into site/
# Each sets up .venv on its first call. PYTHON=python3.12 chooses the interpreter.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
SOURCES := src tests $(wildcard examples benchmarks tools)

.PHONY: demo test check bench-check docs format clean

demo: $(INSTALLED)
	$(BIN)/melpatch demo --out demo $(if $(DATA),--data "$(DATA)")

# Byte code is kept; otherwise both workers, and every process that a test starts, compile all modules.
test: $(INSTALLED)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

check: $(INSTALLED)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/python tools/style.py

bench-check: $(INSTALLED)
	$(BIN)/python benchmarks/instructions.py

docs: $(INSTALLED)
	$(BIN)/zensical build --strict --clean

format: $(INSTALLED)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

clean:
	rm -rf .venv build demo site .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; \
	  sys.version_info >= (3, 11) or sys.exit(f"melpatch needs Python 3.11 or newer, this is {v}; try make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing melpatch and its tools into .venv; torch makes the first time take some minutes."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' --constraint constraints.txt
	@touch $@
