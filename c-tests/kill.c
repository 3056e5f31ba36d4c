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

#include <sys/mman.h>

#define IDS 300
#define CHANGES_MAX 12
#define VALUE_MAX 20000

/* Printed with every failure. */
static uint64_t base_seed;

/* ---- the model ----------------------------------------------------------------------------- */

typedef struct version {
    uint64_t commit;
    int deleted;
} version;

typedef struct chain {
    version *versions; /* oldest first */
    size_t count;
    size_t room;
} chain;

typedef struct model {
    uint64_t seed;
    int key_value;
    uint64_t last_commit;
    uint32_t next_id; /* incremental mode */
    uint32_t live;
    chain chains[IDS];
} model;

/* One commit: what it does to which records. */
typedef struct change {
    enum { INSERT, SET, DELETE } kind;
    int many;
    size_t count;
    uint32_t ids[CHANGES_MAX];
} change;

static int
is_live(const model *of, uint32_t id)
{
    const chain *at = &of->chains[id];

    return at->count > 0 && !at->versions[at->count - 1].deleted;
}

/* The value that commit `commit` gives to `id`: mostly short, sometimes longer than a data file. */
static size_t
value_of(uint64_t seed, uint32_t id, uint64_t commit, uint8_t out[VALUE_MAX])
{
    uint64_t state = seed ^ commit << 20 ^ id;
    uint64_t draw = test_random(&state) % 1000;
    size_t len;

    if (draw < 20) {
        len = 0;
    } else if (draw < 970) {
        len = test_random(&state) % 300;
    } else if (draw < 997) {
        len = test_random(&state) % 5000;
    } else {
        len = test_random(&state) % VALUE_MAX;
    }
    test_fill(out, len, state);
    return len;
}

/* A live id, or one that isn't, at or after `from`; `avoid` are ids that are taken already. */
static int
find_id(const model *in, uint32_t from, int live, const change *avoid, uint32_t *found)
{
    uint32_t step;
    size_t i;

    for (step = 0; step < IDS; step++) {
        uint32_t id = (from + step) % IDS;
        int taken = is_live(in, id) != live;

        for (i = 0; i < avoid->count; i++) {
            taken |= avoid->ids[i] == id;
        }
        if (!taken) {
            *found = id;
            return 1;
        }
    }
    return 0;
}

/* The commit after the model's last: it follows from its number and the state before it. */
static change
next_change(const model *before)
{
    uint64_t state = before->seed + (before->last_commit + 1) * 1000003;
    uint32_t draw = test_random_below(&state, 100);
    size_t count = draw % 4 == 0 ? 2 + test_random_below(&state, CHANGES_MAX - 1) : 1;
    change made;
    uint32_t id;

    made.many = draw % 4 == 0;
    made.count = 0;
    if (!before->key_value && before->next_id + count <= IDS && (draw < 30 || before->live < 50)) {
        made.kind = INSERT;
        for (id = before->next_id; made.count < count; id++) {
            made.ids[made.count++] = id;
        }
        return made;
    }
    made.kind = draw >= 90 && before->live > 100 ? DELETE : SET;
    while (made.count < count) {
        uint32_t from = test_random_below(&state, IDS);
        /* A delete needs a live record, a set in incremental mode too. */
        int live = made.kind == DELETE || !before->key_value || is_live(before, from);

        if (!find_id(before, from, live, &made, &id)) {
            break;
        }
        made.ids[made.count++] = id;
    }
    return made;
}

static void
apply(model *to, const change *made)
{
    size_t i;

    to->last_commit++;
    for (i = 0; i < made->count; i++) {
        uint32_t id = made->ids[i];
        chain *at = &to->chains[id];
        int was_live = is_live(to, id);

        if (at->count == at->room) {
            at->room = at->room * 2 + 8;
            at->versions = realloc(at->versions, at->room * sizeof *at->versions);
            VERIFY(at->versions != NULL);
        }
        at->versions[at->count].commit = to->last_commit;
        at->versions[at->count].deleted = made->kind == DELETE;
        at->count++;
        to->live += made->kind != DELETE;
        to->live -= was_live;
        if (made->kind == INSERT) {
            to->next_id++;
        }
    }
}

static void
free_model(model *of)
{
    uint32_t id;

    for (id = 0; id < IDS; id++) {
        free(of->chains[id].versions);
    }
}

/* ---- the child ----------------------------------------------------------------------------- */

typedef struct shared {
    volatile uint64_t asked;        /* the commit that was begun last */
    volatile uint64_t acknowledged; /* the commit that was returned from last */
    volatile uint64_t opens;
} shared;

/* How a database of this test is opened. */
typedef struct setup {
    const char *name;
    int key_value;
    uint32_t lookup;
    uint32_t sync;
    uint32_t io;
    uint32_t file_size;
    uint32_t commits; /* how many are likely before the kill */
} setup;

static const setup setups[] = {
    {"plain", 0, OURDB_LOOKUP_MEMORY, OURDB_SYNC_OS, OURDB_IO_AUTO, 0, 3000},
    {"small data files", 1, OURDB_LOOKUP_MEMORY, OURDB_SYNC_OS, OURDB_IO_AUTO, 3000, 600},
    {"lookup on disk", 0, OURDB_LOOKUP_DISK, OURDB_SYNC_OS, OURDB_IO_AUTO, 60000, 2000},
    {"by system calls", 1, OURDB_LOOKUP_MEMORY, OURDB_SYNC_OS, OURDB_IO_FILE, 60000, 2000},
    {"sync at each commit", 0, OURDB_LOOKUP_MEMORY, OURDB_SYNC_COMMIT, OURDB_IO_AUTO, 20000, 60},
    {"sync at intervals", 1, OURDB_LOOKUP_DISK, OURDB_SYNC_INTERVAL, OURDB_IO_FILE, 20000, 1000}
};
#define SETUP_COUNT (sizeof setups / sizeof setups[0])

static ourdb_options
options_of(const setup *of, uint32_t flags)
{
    ourdb_options options = test_options(NULL, flags);

    if (of->key_value && (flags & OURDB_OPEN_READ_ONLY) == 0) {
        options.flags |= OURDB_OPEN_KEY_VALUE;
    }
    options.lookup = of->lookup;
    options.sync = of->sync;
    options.sync_interval_ms = of->sync == OURDB_SYNC_INTERVAL ? 2 : 0;
    options.io = of->io;
    options.file_size = of->file_size;
    return options;
}

static void
commit(ourdb *db, const model *before, const change *made)
{
    static uint8_t bytes[CHANGES_MAX][VALUE_MAX];
    ourdb_slice slices[CHANGES_MAX];
    uint32_t given[CHANGES_MAX];
    size_t i;

    if (made->kind != DELETE) {
        for (i = 0; i < made->count; i++) {
            slices[i].len = value_of(before->seed, made->ids[i], before->last_commit + 1, bytes[i]);
            slices[i].data = bytes[i];
        }
    }
    if (made->kind == INSERT && made->many) {
        VERIFY_OK(ourdb_insert_many(db, slices, made->count, given));
        VERIFY(memcmp(given, made->ids, made->count * sizeof given[0]) == 0);
    } else if (made->kind == INSERT) {
        VERIFY_OK(ourdb_insert(db, slices[0].data, slices[0].len, given));
        VERIFY(given[0] == made->ids[0]);
    } else if (made->kind == SET && made->many) {
        VERIFY_OK(ourdb_set_many(db, made->ids, slices, made->count));
    } else if (made->kind == SET) {
        VERIFY_OK(ourdb_set(db, made->ids[0], slices[0].data, slices[0].len));
    } else if (made->many) {
        VERIFY_OK(ourdb_delete_many(db, made->ids, made->count));
    } else {
        VERIFY_OK(ourdb_delete(db, made->ids[0]));
    }
}

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
            change made = next_change(state);

            counters->asked = state->last_commit + 1;
            commit(db, state, &made);
            counters->acknowledged = state->last_commit + 1;
            apply(state, &made);
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

static void
check_versions(const ourdb *db, const model *expected, uint32_t id, size_t max)
{
    static uint8_t value[VALUE_MAX];
    const chain *at = &expected->chains[id];
    size_t count = max == 0 || max > at->count ? at->count : max;
    uint64_t time_us = UINT64_MAX;
    ourdb_records records;
    size_t i;

    if (at->count == 0) {
        CHECK_CODE(ourdb_history(db, id, max, &records), OURDB_NOT_FOUND);
        return;
    }
    CHECK_OK(ourdb_history(db, id, max, &records));
    CHECK_NUMBER(records.count, count);
    for (i = 0; i < count; i++) {
        const ourdb_record *item = &records.items[i];
        const version *was = &at->versions[at->count - 1 - i];

        CHECK_NUMBER(item->commit, was->commit);
        CHECK_NUMBER(item->flags, was->deleted ? OURDB_RECORD_DELETED : 0);
        CHECK(item->time_us <= time_us);
        time_us = item->time_us;
        if (!was->deleted) {
            size_t len = value_of(expected->seed, id, was->commit, value);

            CHECK_BYTES(item->data, item->len, value, len);
        }
    }
    ourdb_free_records(&records);
}

/* The database is the model, in all that can be asked. */
static void
check_all(const ourdb *db, const model *expected, uint64_t *random)
{
    static uint8_t value[VALUE_MAX];
    uint32_t walked = UINT32_MAX;
    uint32_t id;

    CHECK_LAST_COMMIT(db, expected->last_commit);
    CHECK_COUNT(db, expected->live);
    if (!expected->key_value) {
        CHECK_NEXT_ID(db, expected->next_id);
    }
    for (id = 0; id < IDS; id++) {
        if (is_live(expected, id)) {
            const chain *at = &expected->chains[id];
            size_t len = value_of(expected->seed, id, at->versions[at->count - 1].commit, value);

            CHECK_VALUE(db, id, value, len);
            CHECK_OK(walked == UINT32_MAX ? ourdb_first(db, &walked)
                                          : ourdb_above(db, walked, &walked));
            CHECK_NUMBER(walked, id);
        } else {
            CHECK_ABSENT(db, id);
        }
        check_versions(db, expected, id, test_random_below(random, 30) == 0 ? 0 : 3);
    }
    CHECK_CODE(walked == UINT32_MAX ? ourdb_first(db, &walked) : ourdb_above(db, walked, &walked),
               OURDB_NOT_FOUND);
}

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

    memset(&state, 0, sizeof state);
    state.seed = seed;
    state.key_value = with->key_value;
    state.next_id = 1;
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

            apply(&state, &made);
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
