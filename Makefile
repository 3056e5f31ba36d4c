# OurDB.
#
#   make                   the shared and the static library, in target/release
#   make demo [FILE=text]  stores the lines of a text, revises them, verifies every version
#   make test              all tests; the last line is the total
#   make torture           the campaigns in full, and their table: an hour or so
#   make interleavings     the threads of a handle under schedulers that choose whose turn it is
#   make tsan              races in memory; needs a nightly compiler
#   make bench             OurDB beside other stores, 1,000,000 records: 15 minutes or more; see
#                          bench/README.md [ARGS="--engines OurDB,LMDB"]
#   make bench-full        the same with 10,000,000 records: some hours, 20 GB of disk
#   make bench-100m        OurDB and LMDB with 100,000,000 records: some hours, 60 GB of disk
#   make bench-plot        draws the plots of all results in bench/results anew
#   make bench-quick       the basic speeds, as a table [ARGS="--ids-disk RECORDS ROUNDS"]
#   make bench-versions    compactions beside writers, scans, large commits, check
#                          [ARGS="RECORDS ROUNDS"]
#   make install           library, header and ourdb.pc below PREFIX; make uninstall takes them away
#   make check             formatting, lints, documentation; make check-bench for the benchmark
#   make record-instructions  writes c-bench/instructions.txt anew: what operations cost, for make test
#   make header            writes include/ourdb.h anew from src/ffi; make check-header compares
#   make clean

PREFIX     ?= /usr/local
INCLUDEDIR ?= $(PREFIX)/include
LIBDIR     ?= $(PREFIX)/lib
PCLIBDIR   ?= $(LIBDIR)/pkgconfig

CARGO   ?= cargo
CFLAGS  ?= -O2 -g
INSTALL ?= install

CARGO_TARGET_DIR ?= target
export CARGO_TARGET_DIR

# SOVERSION is that of build.rs.
VERSION   := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
SOVERSION := 0
LIB       := $(CARGO_TARGET_DIR)/release

C_COMPILE = $(CC) -std=c99 -Wall -Wextra $(CFLAGS) -Iinclude
C_LINK    = $(LDFLAGS) -L$(LIB) -lourdb -Wl,-rpath,$(abspath $(LIB))

# The largest of some texts that many systems have, or our own.
FILE ?= $(shell ls -LS /usr/share/dict/words /usr/share/perl/*/Unicode/Collate/allkeys.txt \
	/usr/share/common-licenses/GPL-3 docs/FORMAT.md README.md 2>/dev/null | head -n 1)

.PHONY: lib demo test test-build torture interleavings tsan bench bench-full bench-100m bench-plot \
	bench-quick bench-versions bench-build install uninstall check check-bench record-instructions \
	header check-header clean

# Both libraries at once, and no rlib, with which there is no link-time optimization. cargo decides
# whether there is anything to do.
lib:
	$(CARGO) rustc --release --lib --crate-type cdylib,staticlib
	@ln -sf libourdb.so $(LIB)/libourdb.so.$(SOVERSION)

demo: lib
	$(C_COMPILE) examples/demo.c -o $(LIB)/demo $(C_LINK)
	$(LIB)/demo '$(FILE)' $(CARGO_TARGET_DIR)/demo.db

# Linking the library keeps one processor busy: meanwhile the tests are compiled.
test:
	@$(MAKE) --no-print-directory -j2 lib test-build
	CARGO='$(CARGO)' OURDB_LIB_DIR='$(abspath $(LIB))' tests/run.sh

test-build:
	$(CARGO) test --profile checked --no-run
	$(CARGO) test --profile checked --no-run --test torture

# A package of its own, which nothing else builds. Needs what bench/README.md names.
BENCH = OURDB_LIB_DIR='$(abspath $(LIB))' $(CARGO)
BENCH_RUN = $(CARGO_TARGET_DIR)/peers/ourdb-bench --directory $(CARGO_TARGET_DIR)/bench-data
bench-build: lib
	$(BENCH) build --package ourdb-bench --profile peers

bench: bench-build
	$(BENCH_RUN) $(ARGS)

bench-full: bench-build
	$(BENCH_RUN) --records 10000000 --time-ms 1000 --kill-mb 500 --limit-s 3600 $(ARGS)

bench-100m: bench-build
	$(BENCH_RUN) --records 100000000 --time-ms 1000 --kill-mb 500 --limit-s 7200 \
		--engines OurDB,LMDB,LMDB-writemap $(ARGS)

bench-plot: bench-build
	$(CARGO_TARGET_DIR)/peers/ourdb-bench plot

bench-quick: lib
	$(C_COMPILE) -pthread c-bench/quick.c -o $(LIB)/quick $(C_LINK)
	cd $(CARGO_TARGET_DIR) && release/quick $(ARGS)

bench-versions: lib
	$(C_COMPILE) -pthread c-bench/versions.c -o $(LIB)/versions $(C_LINK)
	cd $(CARGO_TARGET_DIR) && release/versions $(ARGS)

# Not built again here: whoever installs may be root, and have no cargo.
$(LIB)/libourdb.so:
	$(MAKE) lib

install: $(LIB)/libourdb.so
	$(INSTALL) -d $(DESTDIR)$(LIBDIR) $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(PCLIBDIR)
	$(INSTALL) -m 755 $(LIB)/libourdb.so $(DESTDIR)$(LIBDIR)/libourdb.so.$(VERSION)
	ln -sf libourdb.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libourdb.so.$(SOVERSION)
	ln -sf libourdb.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/libourdb.so
	$(INSTALL) -m 644 $(LIB)/libourdb.a $(DESTDIR)$(LIBDIR)/libourdb.a
	$(INSTALL) -m 644 include/ourdb.h $(DESTDIR)$(INCLUDEDIR)/ourdb.h
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
		-e 's|@VERSION@|$(VERSION)|' ourdb.pc.in > $(DESTDIR)$(PCLIBDIR)/ourdb.pc

uninstall:
	rm -f $(DESTDIR)$(LIBDIR)/libourdb.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libourdb.so.$(SOVERSION) \
		$(DESTDIR)$(LIBDIR)/libourdb.so $(DESTDIR)$(LIBDIR)/libourdb.a \
		$(DESTDIR)$(INCLUDEDIR)/ourdb.h $(DESTDIR)$(PCLIBDIR)/ourdb.pc

# Rows of the table are left by each campaign; one that fails leaves none, and stops the rest.
ROWS = $(CARGO_TARGET_DIR)/tmp/torture
torture: lib
	rm -rf $(ROWS)
	OURDB_TORTURE=1 OURDB_LIB_DIR='$(abspath $(LIB))' \
		$(CARGO) test --profile checked --test torture -- --nocapture
	$(MAKE) interleavings
	$(PLANTED) --nocapture
	@echo; cat tests/torture/table.md $(ROWS)/* $(CARGO_TARGET_DIR)/planted/tmp/torture/*

# The engine with a bug in it, one after the other, and the campaigns that must find it.
PLANTED = RUSTFLAGS='--cfg ourdb_planted' $(CARGO) test --profile checked \
	--target-dir $(CARGO_TARGET_DIR)/planted --test torture teeth --

# What threads may do to each other: the engine under schedulers that choose whose turn it is, with
# SCHEDULES schedules of each kind for each model.
SCHEDULES ?= 10000
EXPLORE = RUSTFLAGS='--cfg ourdb_shuttle' OURDB_SCHEDULES=$(SCHEDULES) \
	$(CARGO) test --profile checked --target-dir $(CARGO_TARGET_DIR)/shuttle
interleavings:
	$(EXPLORE) --lib interleavings
	$(EXPLORE) --test interleavings

# Races in memory, as ThreadSanitizer sees them. Needs a nightly compiler.
TSAN = RUSTFLAGS='-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer --cfg ourdb_tsan' \
	TSAN_OPTIONS='suppressions=$(abspath tests/tsan.txt)' \
	$(CARGO) +nightly test --profile checked --target-dir $(CARGO_TARGET_DIR)/tsan \
	--target $(shell $(CARGO) -vV | sed -n 's/^host: //p')
tsan:
	$(TSAN) --test engine concurrency::
	$(TSAN) --test torture readers
	OURDB_TORTURE=1 $(TSAN) --test torture compactions_beside

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --test torture -- -D warnings
	RUSTFLAGS='--cfg ourdb_shuttle --cfg ourdb_planted' $(CARGO) clippy \
		--target-dir $(CARGO_TARGET_DIR)/lint --lib --test interleavings --test torture -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --document-private-items

# Apart from check, because it builds the other stores.
check-bench: lib
	$(CARGO) fmt --package ourdb-bench --check
	$(BENCH) clippy --package ourdb-bench --profile peers --all-targets -- -D warnings
	$(BENCH) test --package ourdb-bench --profile peers

record-instructions: lib
	OURDB_RECORD_INSTRUCTIONS=1 OURDB_LIB_DIR='$(abspath $(LIB))' \
		$(CARGO) test --profile checked --test instructions

header:
	OURDB_UPDATE_HEADER=1 $(CARGO) test --test header

check-header:
	$(CARGO) test --test header

clean:
	$(CARGO) clean
