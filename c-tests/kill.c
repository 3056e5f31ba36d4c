/*
 * kill: the death of the process, at any instruction.
 *
 * Promise: after kill -9 at a random moment - while writing, rolling over, syncing, closing,
 * opening, or recovering from the kill before - the database opens and holds exactly the history up
 * to the last acknowledged commit, or up to the one that was on its way when the process died:
 * nothing lost, nothing invented, no commit of several records by halves. A read-only open of what
 * the kill left sees the same and changes no byte.
 *
 *   kill [rounds]    30 rounds without the argument; OURDB_TEST_SEED=N repeats a failure's choices
 *
 * A child makes commits that follow from their number alone, and counts in shared memory what it
 * asked for and what was acknowledged. The parent kills it, and compares the database with a model
 * in which it makes the same commits.
 */
#include "harness.h"

#include "commits.h"

#include <sys/mman.h>

/* Printed with every failure. */
static uint64_t base_seed;

/* ---- the child ----------------------------------------------------------------------------- */

typedef struct shared {
    volatile uint64_t asked;        /* the commit that was begun last */
    volatile uint64_t acknowledged; /* the commit that was returned from last */
    volatile uint64_t opens;
} shared;

/* Writes until it is killed; now and then it syncs, or closes and opens again. */
static void
write_on(const char *path, const setup *with, shared *counters, model *state, uint64_t seed)
{
    ourdb_options options = options_of(with, 0);
    int reopens = test_random_below(&seed, 3) == 0;
    uint32_t stay = reopens ? 20 + test_random_below(&seed, 200) : UINT32_MAX;
    uint64_t limit = state->last_commit + with->commits * 20;
    ourdb *db;

    for (;;) {
        uint32_t done;

        db = OPEN(path, &options);
        counters->opens++;
        VERIFY(test_last_commit(db) == state->last_commit);
        for (done = 0; done < stay; done++) {
            counters->asked = state->last_commit + 1;
            make_commits(db, state, 1);
            counters->acknowledged = state->last_commit;
            if (test_random_below(&seed, 200) == 0) {
                VERIFY_OK(ourdb_sync(db));
            }
            if (state->last_commit >= limit) {
                test_wait_to_be_killed(); /* far ahead of the one who kills: spare the disk */
            }
        }
        VERIFY_OK(ourdb_close(db));
    }
}

/* ---- the parent ---------------------------------------------------------------------------- */

/* Waits until the child has come to a moment that nobody could have chosen. */
static void
wait_for_a_moment(pid_t child, const setup *with, const shared *counters, uint64_t *random)
{
    uint64_t acknowledged = counters->acknowledged;
    uint64_t until = test_monotonic_ns() + UINT64_C(20000000000);
    uint64_t more = 0;
    uint64_t begin;
    uint64_t linger;
    int status;

    switch (test_random_below(random, 4)) {
    case 0: /* at once, or while it opens and recovers */
        break;
    case 1: /* in its first commits */
        more = 1 + test_random_below(random, 10);
        break;
    default:
        more = 1 + test_random_below(random, (uint32_t)test_scaled(with->commits));
        break;
    }
    while (counters->acknowledged < acknowledged + more && test_monotonic_ns() < until) {
        VERIFY(waitpid(child, &status, WNOHANG) == 0);
        test_sleep_us(20);
    }
    if (more == 0 && test_random_below(random, 2) == 0) {
        while (counters->opens == 0 && test_monotonic_ns() < until) {
            VERIFY(waitpid(child, &status, WNOHANG) == 0);
        }
    }
    /* A sleep ends when the scheduler likes; this ends between any two instructions. */
    begin = test_monotonic_ns();
    linger = test_random_below(random, 1500000);
    while (test_monotonic_ns() < begin + linger) {
    }
}

/* One database, killed `rounds` times. */
static void
kill_again_and_again(const setup *with, unsigned long rounds, uint64_t seed, shared *counters)
{
    char path[TEST_PATH_MAX];
    model state;
    unsigned long round;
    ourdb *db;

    begin_model(&state, seed, with->key_value);
    test_join_into(path, test_directory, "killed");
    for (round = 1; round <= rounds; round++) {
        uint64_t random = seed * 7919 + round;
        ourdb_options options = options_of(with, 0);
        uint64_t digest = 0;
        int reading;
        pid_t child;

        test_phase("%s, round %lu of %lu, seed %" PRIu64, with->name, round, rounds, base_seed);
        counters->asked = state.last_commit;
        counters->acknowledged = state.last_commit;
        counters->opens = 0;
        child = test_fork();
        if (child == 0) {
            write_on(path, with, counters, &state, random);
        }
        wait_for_a_moment(child, with, counters, &random);
        test_kill(child);

        /* Two rounds of three leave it as the kill did: the next child has to recover from it. */
        reading = round % 3 != 0 && test_exists(test_join(path, "MANIFEST"));
        if (reading) {
            test_phase("%s, round %lu of %lu, seed %" PRIu64 ": read-only", with->name, round,
                       rounds, base_seed);
            digest = test_digest(path);
            options = options_of(with, OURDB_OPEN_READ_ONLY);
        }
        db = OPEN(path, &options);
        CHECK(test_last_commit(db) >= counters->acknowledged);
        CHECK(test_last_commit(db) <= counters->asked);
        while (state.last_commit < test_last_commit(db)) {
            change made = next_change(&state);

            apply(&state, &made, 0);
        }
        check_all(db, &state, &random);
        CHECK_OK(ourdb_close(db));
        CHECK(!reading || test_digest(path) == digest);
    }
    test_phase("%s, after all rounds, seed %" PRIu64, with->name, base_seed);
    db = OPEN(path, NULL);
    check_all(db, &state, &seed);
    CHECK_OK(ourdb_destroy(db));
    CHECK(!test_exists(path));
    free_model(&state);
}

int
main(int argc, char **argv)
{
    unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 30;
    const unsigned long each = 5;
    const char *seed_text = getenv("OURDB_TEST_SEED");
    unsigned long done = 0;
    size_t i;
    shared *counters;
    FILE *file;

    test_begin("kill");
    base_seed = seed_text == NULL ? test_now_us() : strtoull(seed_text, NULL, 10);
    alarm((unsigned)(TEST_TIMEOUT_SECONDS + rounds));
    test_phase("shared memory");
    file = fopen(test_path("counters"), "w+b");
    CHECK(file != NULL && ftruncate(fileno(file), sizeof *counters) == 0);
    counters = mmap(NULL, sizeof *counters, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
    CHECK(counters != MAP_FAILED);
    fclose(file);
    for (i = 0; done < rounds; i++) {
        unsigned long now = rounds - done < each ? rounds - done : each;

        kill_again_and_again(&setups[i % SETUP_COUNT], now, base_seed + i, counters);
        done += now;
    }
    CHECK(munmap(counters, sizeof *counters) == 0);
    return test_end();
}
