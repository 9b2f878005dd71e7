# Every word does all of its work: it makes the virtual environment, builds the C core and installs what it needs.

PYTHON ?= python3
BIN = .venv/bin
INSTALLED = .venv/.installed
C_SOURCES = $(wildcard csrc/*.c)
C_TESTS = $(wildcard tests/c/*.c tests/fuzz/*.c tests/fuzz/targets/*.c benchmarks/load/*.c)
C_WARNINGS = -std=c11 -Wall -Wextra -Werror -Wconversion -Wsign-conversion -Wshadow -Wstrict-prototypes \
             -Wmissing-prototypes -Wcast-align -Wcast-qual -Wpointer-arith -Wvla -Wundef

KILLS ?= 1000
SEED ?=

# Thousands of processes are started, and each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check check-c bench bench-check plots fuzz sanitize simulate torture

demo: $(INSTALLED)
	$(BIN)/durable-log demo

# The tests of the engine take every line and branch of it, by themselves. Two that take none alone are not counted in:
# it would take them thrice as long.
ENGINE_TESTS = tests/engine tests/forks tests/repair tests/store
UNCOUNTED = tests/engine/test_run_flipped_bytes.py tests/repair/test_repair_random.py
OTHER_TESTS = $(filter-out $(ENGINE_TESTS:%=%/) %__/,$(wildcard tests/*/)) $(wildcard tests/test_*.py) $(UNCOUNTED)
SIDE_BY_SIDE = $(BIN)/pytest --dist loadscope --no-loadscope-reorder -n
test: $(INSTALLED)
	$(SIDE_BY_SIDE) 3 --cov --cov-report=term $(UNCOUNTED:%=--ignore=%) $(ENGINE_TESTS)
	DURABLE_LOG_FUZZ_SECONDS=60 $(SIDE_BY_SIDE) 5 $(OTHER_TESTS)

check: $(INSTALLED) check-c
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict durable_log benchmarks
	$(BIN)/clang-format --dry-run -Werror $(wildcard csrc/*.[ch] tests/fuzz/*.h tests/faults/*.c benchmarks/load/*.h) $(C_TESTS)
	$(BIN)/pytest -q tests/test_layers.py

check-c:
	mkdir -p build/check
	for source in $(C_SOURCES); do \
	    $(CC) $(C_WARNINGS) -O3 -c $$source -o build/check/$$(basename $$source .c).o || exit 1; \
	done
	for source in $(C_TESTS); do \
	    $(CC) -std=gnu11 -Wall -Wextra -Werror -Icsrc -O1 -c $$source -o build/check/test.o || exit 1; \
	done

# PASSES=5, ONLY="append read", or any ARGS of `python -m benchmarks`.
bench: $(INSTALLED) .venv/.peers
	$(BIN)/python -m benchmarks $(if $(PASSES),--passes $(PASSES)) $(if $(ONLY),--only $(ONLY)) $(ARGS)

# Pictures of the results, and what the README shows of them.
plots: .venv/.peers
	$(BIN)/python -m benchmarks.plots
	$(BIN)/python -m benchmarks.summary

# How many instructions the hot paths take; UPDATE=1 writes that down.
bench-check: $(INSTALLED)
	sh benchmarks/install.sh valgrind
	$(BIN)/python -m benchmarks.instructions $(if $(UPDATE),--update)

# Contestants; one that cannot be had here is shown as such in the tables.
.venv/.peers: $(INSTALLED) benchmarks/package-lock.json benchmarks/install_servers.sh
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench]'
	sh benchmarks/install.sh redis-server || true
	sh benchmarks/install_servers.sh || true
	touch $@

# Servers and other processes are killed KILLS times; the same SEED plans the same again.
torture: $(INSTALLED)
	$(BIN)/python tests/torture --kills $(KILLS) $(if $(SEED),--seed $(SEED))

# So long for each target of tests/fuzz, as many at a time as there are processors.
SECONDS = 60
fuzz: $(INSTALLED)
	$(BIN)/python tests/fuzz/fuzzing.py --seconds $(SECONDS)

# SEEDS=10000 FROM=1 JOBS=2: so many seeds; SEED=123: one, told in full, or STEPS of it.
simulate: $(INSTALLED)
	$(BIN)/python tests/simulation/simulate.py $(if $(SEED),--seed $(SEED) $(if $(STEPS),--steps $(STEPS)),\
	    --seeds $(or $(SEEDS),1000) --from $(or $(FROM),1) --jobs $(or $(JOBS),2))

# Address, undefined behaviour and threads, each watching tests that exist anyway; valgrind.
sanitize: $(INSTALLED)
	$(BIN)/python tests/sanitizers/sanitize.py

$(INSTALLED): pyproject.toml setup.py durable_log/_build.py $(wildcard csrc/*.[ch])
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[server,test,dev]'
	touch $@
