# The front door: each target is a line or two that calls CMake or a script. `make help` lists them.
BUILD  := build
JOBS   := $(shell nproc)
PREFIX ?= /usr/local
MPICC  ?= mpicc
B      ?=

CONFIGURE := cmake --preset release --log-level=WARNING
COMPILE   := cmake --build $(BUILD) -j $(JOBS)

.PHONY: build demo demo-s3 test test-long bench bench-peers cuda mpi install dist lint format clean help

build:
	@scripts/setup build
	@$(CONFIGURE) -DTRAINRUN_TESTS=OFF -DTRAINRUN_BENCH=OFF >/dev/null
	@$(COMPILE)

demo:
	@scripts/setup demo
	@scripts/demo

demo-s3:
	@scripts/setup demo-s3
	@scripts/demo-s3

test test-long:
	@scripts/setup test
	@scripts/servers
	@$(CONFIGURE) -DTRAINRUN_TESTS=ON >/dev/null
	@$(COMPILE)
	@scripts/test --build $(BUILD) $(if $(filter test-long,$@),--long)

bench:
	@scripts/setup bench
	@$(CONFIGURE) -DTRAINRUN_TESTS=OFF -DTRAINRUN_BENCH=ON >/dev/null
	@$(COMPILE)
	@scripts/bench $(B)

bench-peers:
	@scripts/setup peers
	@scripts/bench_peers

cuda:
	@echo "make cuda: planned, not in this version" >&2; exit 69

mpi:
	@scripts/setup build
	@command -v $(MPICC) >/dev/null || { echo "make mpi: no $(MPICC) here; name yours with MPICC=..., or: sudo apt-get install libopenmpi-dev" >&2; exit 69; }
	@$(CONFIGURE) -DTRAINRUN_TESTS=OFF -U 'MPI_*' -DMPI_C_COMPILER=$(MPICC) >/dev/null
	@cmake --build $(BUILD) --target trainrun_mpi
	@echo "$(BUILD)/libtrainrun_mpi.so is built with $(MPICC)"

install: build
	@cmake --install $(BUILD) --prefix $(PREFIX)

dist: build
	@scripts/dist

lint:
	@scripts/setup lint
	@$(CONFIGURE) -DTRAINRUN_TESTS=ON >/dev/null
	@$(COMPILE)
	@scripts/lint --build $(BUILD)

format:
	@scripts/setup lint
	@git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	@rm -rf build build-dev build-asan build-tsan build-coverage

help:
	@echo "make demo         set up, build, train the main example with two workers on real data"
	@echo "make demo-s3      the same from a bucket to a bucket of a MinIO of its own (needs Go)"
	@echo "make test         set up, build, run the tests (make test-long: the long suites whole)"
	@echo "make build        a release into build/"
	@echo "make bench        measure against the peers (B=collective for one); make bench-peers installs the Python ones"
	@echo "make mpi          the MPI module against a site's MPI (MPICC=...)"
	@echo "make install      PREFIX=$(PREFIX);  make dist: a relocatable tarball"
	@echo "make lint, make format, make clean"
