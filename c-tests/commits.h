/*
 * Commits that follow from their number: what the programs that kill and fail a writer compare a
 * database with.
 *
 * next_change() says what the commit after a model's last one does, from the model's seed and state
 * alone. So two processes that agree on the seed and on how many commits there were agree on the
 * whole history. A commit that fails is tried again with another `attempt`, and other values: a
 * failed one that shows itself later is told from the one that took its place.
 *
 * Include harness.h first.
 */
#ifndef OURDB_TEST_COMMITS_H
#define OURDB_TEST_COMMITS_H

#define IDS 300
#define CHANGES_MAX 12
#define VALUE_MAX 20000

typedef struct version {
    uint64_t commit;
    uint32_t attempt;
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

static inline void
begin_model(model *made, uint64_t seed, int key_value)
{
    memset(made, 0, sizeof *made);
    made->seed = seed;
    made->key_value = key_value;
    made->next_id = 1;
}

static inline void
free_model(model *of)
{
    uint32_t id;

    for (id = 0; id < IDS; id++) {
        free(of->chains[id].versions);
    }
}

static inline int
is_live(const model *of, uint32_t id)
{
    const chain *at = &of->chains[id];

    return at->count > 0 && !at->versions[at->count - 1].deleted;
}

/* The value that a commit gives to `id`: mostly short, sometimes longer than a data file. */
static inline size_t
value_of(uint64_t seed, uint32_t id, uint64_t commit, uint32_t attempt, uint8_t out[VALUE_MAX])
{
    uint64_t state = seed ^ commit << 20 ^ id ^ (uint64_t)attempt << 48;
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
static inline int
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
static inline change
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

/* The next commit happened, at this attempt. */
static inline void
apply(model *to, const change *made, uint32_t attempt)
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
        at->versions[at->count].attempt = attempt;
        at->versions[at->count].deleted = made->kind == DELETE;
        at->count++;
        to->live += made->kind != DELETE;
        to->live -= was_live;
        if (made->kind == INSERT) {
            to->next_id++;
        }
    }
}

/* Asks the database for the model's next commit; the code that came. */
static inline int
ask_commit(ourdb *db, const model *before, const change *made, uint32_t attempt)
{
    uint8_t bytes[CHANGES_MAX][VALUE_MAX]; /* not static: threads ask at once */
    ourdb_slice slices[CHANGES_MAX];
    uint32_t given[CHANGES_MAX];
    int code;
    size_t i;

    for (i = 0; made->kind != DELETE && i < made->count; i++) {
        slices[i].len =
            value_of(before->seed, made->ids[i], before->last_commit + 1, attempt, bytes[i]);
        slices[i].data = bytes[i];
    }
    switch (made->kind) {
    case INSERT:
        code = made->many ? ourdb_insert_many(db, slices, made->count, given)
                          : ourdb_insert(db, slices[0].data, slices[0].len, given);
        VERIFY(code != OURDB_OK || memcmp(given, made->ids, made->count * sizeof given[0]) == 0);
        return code;
    case SET:
        return made->many ? ourdb_set_many(db, made->ids, slices, made->count)
                          : ourdb_set(db, made->ids[0], slices[0].data, slices[0].len);
    default:
        return made->many ? ourdb_delete_many(db, made->ids, made->count)
                          : ourdb_delete(db, made->ids[0]);
    }
}

/* Makes so many commits, all of which must succeed. */
static inline void
make_commits(ourdb *db, model *state, uint64_t count)
{
    while (count-- > 0) {
        change made = next_change(state);

        VERIFY_OK(ask_commit(db, state, &made, 0));
        apply(state, &made, 0);
    }
}

/* The newest `max` versions of `id`, all with 0, are the model's. */
static inline void
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
            size_t len = value_of(expected->seed, id, was->commit, was->attempt, value);

            CHECK_BYTES(item->data, item->len, value, len);
        }
    }
    ourdb_free_records(&records);
}

/* The live value of `id` in the model. */
static inline size_t
live_value(const model *of, uint32_t id, uint8_t out[VALUE_MAX])
{
    const chain *at = &of->chains[id];
    const version *newest = &at->versions[at->count - 1];

    return value_of(of->seed, id, newest->commit, newest->attempt, out);
}

/* The database is the model, in all that can be asked. */
static inline void
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
            size_t len = live_value(expected, id, value);

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

/* ---- how a database is opened -------------------------------------------------------------- */

typedef struct setup {
    const char *name;
    int key_value;
    uint32_t lookup;
    uint32_t sync;
    uint32_t io;
    uint32_t file_size;
    uint32_t commits; /* how many are made in a short while */
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

static inline ourdb_options
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

#endif
