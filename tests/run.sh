#!/usr/bin/env bash
# Runs all tests and adds them up; `make test` calls this. The last line is the total.
#
# A test that can't run on this machine prints `SKIPPED: what: why` and returns. It counts as
# skipped and not as passed; with CI=true, where nothing may be missing, as failed. What a test that
# passes has to say besides is a line `NOTE: …`.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TERM_COLOR=never
# Most tests wait for a disk, or for a process of theirs, for half of their time.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$((3 * $(getconf _NPROCESSORS_ONLN)))}"
target="${CARGO_TARGET_DIR:-target}"
run() { # run ARGUMENTS of cargo test, with every check on and optimized
    "${CARGO:-cargo}" test --profile checked --no-fail-fast "$@" -- --show-output 2>&1 ||
        echo "cargo test: status $?"
}
{
    run
    # The campaigns in their short form; then each planted bug, which one of them must find; then the
    # engine under schedulers that choose which thread goes on.
    run --test torture
    RUSTFLAGS='--cfg ourdb_planted' run --target-dir "$target/planted" --test torture teeth
    export OURDB_SCHEDULES="${OURDB_SCHEDULES:-300}" RUSTFLAGS='--cfg ourdb_shuttle'
    # Both are built before one runs: side by side.
    run --target-dir "$target/shuttle" --lib --test interleavings --no-run
    run --target-dir "$target/shuttle" --lib interleavings
    run --target-dir "$target/shuttle" --test interleavings
} | awk '
    # A test program that crashes has no result line of its own.
    function end_of_target() {
        if (target != "") { print "no result: " target; failed++ }
        target = ""
    }
    /^ +(Running|Doc-tests) / { end_of_target(); target = $2 " " $3 }
    /^successes:$/ { section = "successes" }
    /^failures:$/  { section = "failures" }
    /^test result: / {
        passed += $4; failed += $6; skipped += $8
        section = ""; target = ""
    }
    /^test .* \.\.\. ignored/ {
        why = $0; sub(/^test /, "", why); sub(/ \.\.\. ignored,? ?/, ": ", why)
        ignored[++ignored_count] = why
    }
    /^---- .* stdout ----$/ { counted = 0 }
    section == "successes" && /^SKIPPED: / {
        skips[++skip_count] = substr($0, 10)
        if (!counted) { passed--; if (ENVIRON["CI"] == "true") failed++; else skipped++ }
        counted = 1
    }
    section == "successes" && /^NOTE: / { notes[++note_count] = substr($0, 7) }
    section != "successes" { print; fflush() }
    /^cargo test: status / { status = $4 }
    END {
        end_of_target()
        if (status != 0 && failed == 0) failed = 1
        if (skip_count) print "\nSkipped" (ENVIRON["CI"] == "true" ? ", a failure with CI=true:" : ":")
        for (i = 1; i <= skip_count; i++) print "  " skips[i]
        if (ignored_count) print "\nIgnored, run with `cargo test -- --ignored`:"
        for (i = 1; i <= ignored_count; i++) print "  " ignored[i]
        if (note_count) print "\nTo be noted:"
        for (i = 1; i <= note_count; i++) print "  " notes[i]
        printf "\n%d passed, %d failed, %d skipped\n", passed, failed, skipped
        exit (failed > 0)
    }'
