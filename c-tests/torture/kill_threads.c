/*
 * kill_threads: the death of a process in which several threads write.
 *
 * Promise: after kill -9 at a random moment the database holds of each thread exactly what was
 * acknowledged to it, and at most the one commit more that was on its way, whole; and the history
 * is one in which each thread's commits stand in its own order.
 *
 *   kill_threads [rounds]      OURDB_TEST_SEED=N repeats a failure's choices
 *
 * Each thread has ids of its own, and makes the commits of a model of its own (see commits.h) on
 * them. What it asked for and what was acknowledged it counts in shared memory.
 */
#define _DEFAULT_SOURCE
#include "../harness.h"

#include "../commits.h"

#include <pthread.h>
#include <sys/mman.h>

#define WRITERS 4

typedef struct counter {
    volatile uint64_t acknowledged;
    char other_cache_line[120];
} counter;

typedef struct writer {
    ourdb *db;
    uint32_t number;
    model *state;
    counter *counts;
    uint64_t until;
} writer;

static uint64_t base_seed;

/* The id in the database of a thread's own `id`. */
static uint32_t
shared_id(uint32_t number, uint32_t id)
{
    return id * WRITERS + number;
}

/* The thread's next commit, with the ids that they have in the database. */
static change
next_shared_change(const writer *of, change *own)
{
    change made;
    size_t i;

    *own = next_change(of->state);
    made = *own;
    for (i = 0; i < made.count; i++) {
        made.ids[i] = shared_id(of->number, made.ids[i]);
    }
    return made;
}

static void *
write_in_thread(void *argument)
{
    writer *of = argument;

    while (of->state->last_commit < of->until) {
        change own;
        change made = next_shared_change(of, &own);

        VERIFY_OK(ask_commit(of->db, of->state, &made, 0));
        apply(of->state, &own, 0);
        of->counts->acknowledged = of->state->last_commit;
    }
    return NULL;
}

/* Writes with all threads until it is killed, and closes and opens in between. */
static void
write_on(const char *path, const ourdb_options *options, model *states, counter *counts,
         uint64_t random)
{
    writer writers[WRITERS];
    pthread_t threads[WRITERS];
    uint32_t i;
    int times;

    for (times = 0; times < 4; times++) {
        uint64_t more = 1 + test_random_below(&random, 200);
        ourdb *db = OPEN(path, options);

        for (i = 0; i < WRITERS; i++) {
            writers[i].db = db;
            writers[i].number = i;
            writers[i].state = &states[i];
            writers[i].counts = &counts[i];
            writers[i].until = states[i].last_commit + more;
            VERIFY(pthread_create(&threads[i], NULL, write_in_thread, &writers[i]) == 0);
        }
        for (i = 0; i < WRITERS; i++) {
            pthread_join(threads[i], NULL);
        }
        VERIFY_OK(ourdb_sync(db));
        VERIFY_OK(ourdb_close(db));
    }
    test_wait_to_be_killed();
}

/* ---- the one who kills --------------------------------------------------------------------- */

/* How many versions `id` has; 0 if none. */
static size_t
version_count(const ourdb *db, uint32_t id)
{
    ourdb_records records;
    size_t count;
    int code = ourdb_history(db, id, 0, &records);

    if (code == OURDB_NOT_FOUND) {
        return 0;
    }
    CHECK_CODE(code, OURDB_OK);
    count = records.count;
    ourdb_free_records(&records);
    return count;
}

/* Brings the model of one thread to what was acknowledged, and one further if that is there. */
static void
catch_up(const ourdb *db, writer *of)
{
    change own;
    change made;

    while (of->state->last_commit < of->counts->acknowledged) {
        own = next_change(of->state);
        apply(of->state, &own, 0);
    }
    made = next_shared_change(of, &own);
    if (version_count(db, made.ids[0]) > of->state->chains[own.ids[0]].count) {
        apply(of->state, &own, 0);
    }
}

/*
 * All versions of one id are the model's. `commits` says which commit of the database each of the
 * thread's own became, 0 where that isn't known yet.
 */
static void
check_id(const ourdb *db, const writer *of, uint32_t own_id, uint64_t *commits)
{
    static uint8_t value[VALUE_MAX];
    uint32_t id = shared_id(of->number, own_id);
    const chain *at = &of->state->chains[own_id];
    ourdb_records records;
    size_t i;

    CHECK_NUMBER(version_count(db, id), at->count);
    CHECK_CODE(ourdb_contains(db, id), is_live(of->state, own_id) ? OURDB_OK : OURDB_NOT_FOUND);
    if (at->count == 0) {
        return;
    }
    CHECK_OK(ourdb_history(db, id, 0, &records));
    for (i = 0; i < at->count; i++) {
        const ourdb_record *item = &records.items[i];
        const version *was = &at->versions[at->count - 1 - i];

        CHECK_NUMBER(item->flags, was->deleted ? OURDB_RECORD_DELETED : 0);
        if (commits[was->commit] == 0) {
            commits[was->commit] = item->commit;
        }
        CHECK_NUMBER(item->commit, commits[was->commit]);
        if (!was->deleted) {
            size_t len = value_of(of->state->seed, id, was->commit, 0, value);

            CHECK_BYTES(item->data, item->len, value, len);
        }
    }
    ourdb_free_records(&records);
}

static void
check_writer(const ourdb *db, writer *of)
{
    uint64_t *commits;
    uint64_t i;
    uint32_t id;

    catch_up(db, of);
    commits = calloc((size_t)of->state->last_commit + 1, sizeof *commits);
    CHECK(commits != NULL);
    for (id = 0; id < IDS; id++) {
        check_id(db, of, id, commits);
    }
    for (i = 1; i <= of->state->last_commit; i++) {
        CHECK(commits[i] > commits[i - 1]);
    }
    free(commits);
}

/* One database, killed `rounds` times. */
static void
kill_again_and_again(const setup *with, unsigned long rounds, uint64_t seed, counter *counts)
{
    const char *path = test_path("killed");
    setup key_value = *with;
    ourdb_options options;
    model states[WRITERS];
    unsigned long round;
    uint32_t i;

    key_value.key_value = 1;
    options = options_of(&key_value, 0);
    for (i = 0; i < WRITERS; i++) {
        begin_model(&states[i], seed + i, 1);
    }
    for (round = 1; round <= rounds; round++) {
        uint64_t random = seed * 7919 + round;
        uint64_t commits = 0;
        pid_t child;
        ourdb *db;

        test_phase("%s, round %lu of %lu, seed %" PRIu64, with->name, round, rounds, base_seed);
        for (i = 0; i < WRITERS; i++) {
            counts[i].acknowledged = states[i].last_commit;
        }
        child = test_fork();
        if (child == 0) {
            write_on(path, &options, states, counts, random);
        }
        test_sleep_us(test_random_below(&random, with->sync == OURDB_SYNC_COMMIT ? 60000 : 15000));
        test_kill(child);
        db = OPEN(path, &options);
        for (i = 0; i < WRITERS; i++) {
            writer of = {NULL, 0, NULL, NULL, 0};

            of.number = i;
            of.state = &states[i];
            of.counts = &counts[i];
            check_writer(db, &of);
            commits += states[i].last_commit;
        }
        CHECK_LAST_COMMIT(db, commits);
        CHECK_OK(ourdb_close(db));
    }
    for (i = 0; i < WRITERS; i++) {
        free_model(&states[i]);
    }
    test_remove(path);
}

int
main(int argc, char **argv)
{
    unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 30;
    const unsigned long each = 10;
    const char *seed_text = getenv("OURDB_TEST_SEED");
    unsigned long done = 0;
    counter *counts;
    size_t i;

    test_begin("kill_threads");
    base_seed = seed_text == NULL ? test_now_us() : strtoull(seed_text, NULL, 10);
    alarm((unsigned)(TEST_TIMEOUT_SECONDS + rounds));
    counts = mmap(NULL, WRITERS * sizeof *counts, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(counts != MAP_FAILED);
    for (i = 0; done < rounds; i++) {
        unsigned long now = rounds - done < each ? rounds - done : each;

        kill_again_and_again(&setups[i % SETUP_COUNT], now, base_seed + i * 100, counts);
        done += now;
    }
    return test_end();
}
