# A thin front for Meson: everything is built in build/, the command is build/farwarp, the drop-in libraries are in build/lib.
#
#   make          build
#   make demo     install what is missing, build, diagnose this machine, run a CUDA program on the best GPU there is
#   make check    install what is missing, build, run all tests
#   make check-real   more real programs and NVIDIA's libraries (fetches them from PyPI into build/)
#   make check-clients   llama.cpp and PyTorch, unmodified (fetches some 6 GB into build/)
#   make check-gpu    the tests on this machine's own GPU: natively, behind farwarp's library, behind farwarp serve (skips without one)
#   make soak         behind farwarp serve: every suite, hundreds of deaths and silent links, millions of messages that no honest client sends
#   make check-vm     eight clients at once, and a client in a virtual machine (qemu without KVM) over its network
#   make asan, make tsan, make fuzz, make bench, make clean

BUILD ?= build
MESON ?= meson
SETUP_FLAGS ?=

.PHONY: all deps setup demo check check-real check-clients check-gpu check-vm soak asan tsan fuzz bench coverage clean

all: setup
	@ninja -C $(BUILD) $(NINJA_FLAGS)

setup: $(BUILD)/build.ninja

$(BUILD)/build.ninja:
	@$(MESON) setup $(BUILD) $(SETUP_FLAGS)

deps:
	@pkg/install-deps.sh build

demo: deps setup
	@ninja -C $(BUILD) $(NINJA_FLAGS) demo
	@BUILD=$(BUILD) sh examples/demo.sh

check:
	@pkg/install-deps.sh check
	@$(MAKE) --no-print-directory all
	@$(MESON) test -C $(BUILD) --print-errorlogs $(TEST_FLAGS)

check-real: all
	@python3 tests/real/run.py --build $(BUILD) --all
	@python3 tests/real/run.py --build $(BUILD) --server unix
	@python3 tests/real/libs/fetch.py --into $(BUILD)/real-libs
	@python3 tests/real/libs/run.py --build $(BUILD)
	@python3 tests/doctor/fetch_driver.py --into $(BUILD)/real-driver
	@python3 tests/doctor/test_places.py $(BUILD)/farwarp $(BUILD)/real-driver

check-clients: all
	@python3 tests/real/clients/fetch.py --into $(BUILD)/real-clients
	@python3 tests/real/clients/run.py --build $(BUILD)

check-gpu: all
	@python3 tests/gpu/run.py --build $(BUILD)

check-vm: all
	@python3 tests/e2e/places.py --build $(BUILD) crowd vm

KILLS ?= 300
MESSAGES ?= 2000000
soak: all
	@python3 tests/bridge/faults.py --build $(BUILD) --kills $(KILLS)
	@python3 tests/bridge/hostile.py --build $(BUILD) --messages $(MESSAGES) --seconds 60
	@python3 tests/bridge/suites.py --build $(BUILD) --all

# The suites under sanitizers, in build folders of their own. ThreadSanitizer has those in which threads meet, behind servers too: about ten
# minutes, of which ./tests/tsan.sh says more.
asan:
	@$(MESON) setup $(BUILD)-asan -Db_sanitize=address,undefined -Db_lundef=false -Disa_levels=false $(SETUP_FLAGS) 2>/dev/null || true
	@ninja -C $(BUILD)-asan
	@ASAN_OPTIONS=detect_leaks=0:handle_segv=0:allow_user_segv_handler=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
		$(MESON) test -C $(BUILD)-asan --print-errorlogs --timeout-multiplier 10 $(TEST_FLAGS)

tsan:
	@$(MESON) setup $(BUILD)-tsan -Db_sanitize=thread -Db_lundef=false -Disa_levels=false $(SETUP_FLAGS) 2>/dev/null || true
	@ninja -C $(BUILD)-tsan
	@MESON=$(MESON) TEST_FLAGS="$(TEST_FLAGS)" sh tests/tsan.sh $(BUILD)-tsan

# SECONDS of libFuzzer on each reader of foreign bytes.
SECONDS ?= 60
fuzz:
	@CC=$${CC:-clang-19} $(MESON) setup $(BUILD)-fuzz -Dfuzz=true -Db_lundef=false -Disa_levels=false $(SETUP_FLAGS) 2>/dev/null || true
	@ninja -C $(BUILD)-fuzz
	@sh tests/fuzz/run.sh $(BUILD)-fuzz $(SECONDS)

bench: all
	@python3 bench/run.py --build $(BUILD)

# docs/coverage.md is made from the table; a test keeps it equal.
coverage:
	@python3 api/gen.py --coverage docs/coverage.md

clean:
	@rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-fuzz
