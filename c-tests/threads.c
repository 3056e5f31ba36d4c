/*
 * threads: any call from any thread at any time.
 *
 * Promise: readers beside a writer see only whole values that were written, never an older one
 * after a newer one, and all records of a commit or none; writers side by side lose nothing:
 * inserts get ids of their own, sets of one record make one version each, of several deletes one
 * succeeds; concurrent commits with OURDB_SYNC_COMMIT are all there; messages belong to the thread
 * that failed; databases of their own don't disturb each other.
 *
 * Checks inside threads are VERIFY: they count nothing, so that threads meet in the library only.
 */
#include "harness.h"

#include <pthread.h>

#define THREADS_MAX 8

/* Runs `body` in `count` threads, with the elements of `arguments` (each `size` bytes). */
static void
run(unsigned count, void *(*body)(void *), void *arguments, size_t size)
{
    pthread_t threads[THREADS_MAX];
    unsigned i;

    for (i = 0; i < count; i++) {
        CHECK(pthread_create(&threads[i], NULL, body, (char *)arguments + i * size) == 0);
    }
    for (i = 0; i < count; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
}

/* ---- values that prove themselves ---------------------------------------------------------- */

#define PROOF_MAX 300

/* Id and version, then bytes that follow from them; so does the length. */
static size_t
proof(uint32_t id, uint32_t version, uint8_t out[PROOF_MAX])
{
    uint64_t seed = (uint64_t)version << 32 | id;
    size_t len = 8 + (size_t)(test_random(&seed) % (PROOF_MAX - 8));

    memcpy(out, &id, 4);
    memcpy(out + 4, &version, 4);
    test_fill(out + 8, len - 8, seed);
    return len;
}

/* The version of a value, after proving that it is whole and belongs to `id`. */
static uint32_t
proven(uint32_t id, const uint8_t *data, size_t len)
{
    uint8_t expected[PROOF_MAX];
    uint32_t version;
    uint32_t found_id;

    VERIFY(data != NULL && len >= 8);
    memcpy(&found_id, data, 4);
    memcpy(&version, data + 4, 4);
    VERIFY(found_id == id);
    VERIFY(proof(id, version, expected) == len);
    VERIFY(memcmp(data, expected, len) == 0);
    return version;
}

/* ---- readers beside a writer --------------------------------------------------------------- */

#define GROUPS 16
#define GROUP_SIZE 8
#define SOLO_FIRST 1000
#define SOLOS 32
#define FLICKER_FIRST 2000
#define FLICKERS 16

/* What readers and writer share. The flag is under a mutex: C99 has nothing lighter. */
typedef struct scene {
    ourdb *db;
    unsigned long commits;
    pthread_mutex_t mutex;
    int over;
} scene;

typedef struct role {
    scene *scene;
    int writes;
    uint64_t seed;
    unsigned long reads;
} role;

static int
is_over(scene *in)
{
    int over;

    pthread_mutex_lock(&in->mutex);
    over = in->over;
    pthread_mutex_unlock(&in->mutex);
    return over;
}

static void
write_group(ourdb *db, uint32_t group, uint32_t version)
{
    uint8_t bytes[GROUP_SIZE][PROOF_MAX];
    ourdb_slice slices[GROUP_SIZE];
    uint32_t ids[GROUP_SIZE];
    uint32_t i;

    for (i = 0; i < GROUP_SIZE; i++) {
        ids[i] = group + i * GROUPS; /* spread, so that neighbours belong to different commits */
        slices[i].len = proof(ids[i], version, bytes[i]);
        slices[i].data = bytes[i];
    }
    VERIFY_OK(ourdb_set_many(db, ids, slices, GROUP_SIZE));
}

static void
write_one(ourdb *db, uint32_t id, uint32_t version)
{
    uint8_t bytes[PROOF_MAX];
    size_t len = proof(id, version, bytes);

    VERIFY_OK(ourdb_set(db, id, bytes, len));
}

static void *
writer(void *argument)
{
    role *self = argument;
    scene *in = self->scene;
    int flickering[FLICKERS] = {0};
    uint32_t version;

    for (version = 2; version < 2 + in->commits; version++) {
        uint32_t draw = test_random_below(&self->seed, 100);

        if (draw < 40) {
            write_group(in->db, test_random_below(&self->seed, GROUPS), version);
        } else if (draw < 80) {
            write_one(in->db, SOLO_FIRST + test_random_below(&self->seed, SOLOS), version);
        } else {
            uint32_t k = test_random_below(&self->seed, FLICKERS);

            if (flickering[k]) {
                VERIFY_OK(ourdb_delete(in->db, FLICKER_FIRST + k));
            } else {
                write_one(in->db, FLICKER_FIRST + k, version);
            }
            flickering[k] = !flickering[k];
        }
    }
    pthread_mutex_lock(&in->mutex);
    in->over = 1;
    pthread_mutex_unlock(&in->mutex);
    return NULL;
}

/* All records of a group are of one version: that of the newest commit, or of one before it. */
static void
read_group(const ourdb *db, uint32_t group, uint32_t *seen)
{
    ourdb_records records;
    uint32_t ids[GROUP_SIZE];
    uint32_t version = 0;
    uint32_t i;

    for (i = 0; i < GROUP_SIZE; i++) {
        ids[i] = group + i * GROUPS;
    }
    VERIFY_OK(ourdb_get_many(db, ids, GROUP_SIZE, &records));
    VERIFY(records.count == GROUP_SIZE);
    for (i = 0; i < GROUP_SIZE; i++) {
        const ourdb_record *item = &records.items[i];
        uint32_t found;

        VERIFY(item->id == ids[i] && item->flags == 0);
        found = proven(ids[i], item->data, item->len);
        VERIFY(i == 0 || found == version);
        VERIFY(item->commit == records.items[0].commit);
        version = found;
    }
    VERIFY(version >= *seen);
    *seen = version;
    ourdb_free_records(&records);
}

static void
read_solo(const ourdb *db, uint32_t id, uint32_t *seen, int into)
{
    uint32_t version;

    if (into) {
        uint8_t bytes[PROOF_MAX];
        size_t len;

        VERIFY_OK(ourdb_get_into(db, id, bytes, sizeof bytes, &len));
        version = proven(id, bytes, len);
    } else {
        ourdb_buf buf;

        VERIFY_OK(ourdb_get(db, id, &buf));
        version = proven(id, buf.data, buf.len);
        ourdb_free_buf(&buf);
    }
    VERIFY(version >= *seen);
    *seen = version;
}

static void
read_flicker(const ourdb *db, uint32_t id)
{
    ourdb_buf buf;
    int code = ourdb_get(db, id, &buf);

    if (code == OURDB_OK) {
        proven(id, buf.data, buf.len);
        ourdb_free_buf(&buf);
    } else {
        VERIFY(code == OURDB_NOT_FOUND);
        VERIFY(buf.data == NULL && buf.len == 0);
    }
}

/* A few versions back: newest first, all whole, and each is what get_version says. */
static void
read_history(const ourdb *db, uint32_t id)
{
    ourdb_records records;
    ourdb_buf buf;
    uint32_t version = UINT32_MAX;
    size_t i;

    VERIFY_OK(ourdb_history(db, id, 4, &records));
    VERIFY(records.count >= 1 && records.count <= 4);
    for (i = 0; i < records.count; i++) {
        const ourdb_record *item = &records.items[i];
        uint32_t found = proven(id, item->data, item->len);

        VERIFY(found < version);
        VERIFY(i == 0 || item->commit < records.items[i - 1].commit);
        VERIFY(i == 0 || item->time_us <= records.items[i - 1].time_us);
        version = found;
    }
    i = records.count - 1;
    VERIFY_OK(ourdb_get_version(db, id, records.items[i].commit, &buf));
    VERIFY(proven(id, buf.data, buf.len) == version);
    ourdb_free_buf(&buf);
    ourdb_free_records(&records);
}

/* Neighbours across the ranges that are always full, and the count between its limits. */
static void
read_order(const ourdb *db, uint64_t *commit)
{
    uint32_t id;
    uint64_t count;
    uint64_t now;
    int code;

    VERIFY_OK(ourdb_first(db, &id));
    VERIFY(id == 0);
    VERIFY_OK(ourdb_above(db, GROUPS * GROUP_SIZE - 1, &id));
    VERIFY(id == SOLO_FIRST);
    VERIFY_OK(ourdb_below(db, SOLO_FIRST, &id));
    VERIFY(id == GROUPS * GROUP_SIZE - 1);
    VERIFY_OK(ourdb_last(db, &id));
    VERIFY(id == SOLO_FIRST + SOLOS - 1 || (id >= FLICKER_FIRST && id < FLICKER_FIRST + FLICKERS));
    code = ourdb_above(db, FLICKER_FIRST - 1, &id);
    VERIFY(code == OURDB_NOT_FOUND || (code == OURDB_OK && id < FLICKER_FIRST + FLICKERS));
    VERIFY_OK(ourdb_count(db, &count));
    VERIFY(count >= GROUPS * GROUP_SIZE + SOLOS);
    VERIFY(count <= GROUPS * GROUP_SIZE + SOLOS + FLICKERS);
    VERIFY_OK(ourdb_last_commit(db, &now));
    VERIFY(now >= *commit);
    *commit = now;
}

static void *
reader(void *argument)
{
    role *self = argument;
    const ourdb *db = self->scene->db;
    uint32_t group_seen[GROUPS] = {0};
    uint32_t solo_seen[SOLOS] = {0};
    uint64_t commit = 0;
    uint32_t k;

    do {
        k = test_random_below(&self->seed, GROUPS);
        read_group(db, k, &group_seen[k]);
        k = test_random_below(&self->seed, SOLOS);
        read_solo(db, SOLO_FIRST + k, &solo_seen[k], (int)(self->reads % 2));
        read_flicker(db, FLICKER_FIRST + test_random_below(&self->seed, FLICKERS));
        read_history(db, SOLO_FIRST + test_random_below(&self->seed, SOLOS));
        read_order(db, &commit);
        self->reads++;
    } while (!is_over(self->scene));
    return NULL;
}

static void *
reader_or_writer(void *argument)
{
    const role *self = argument;

    return self->writes ? writer(argument) : reader(argument);
}

static void
readers_beside_a_writer(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    role roles[4];
    scene in;
    uint32_t i;
    unsigned long reads = 0;

    test_phase("%s: readers beside a writer", variant->name);
    if (options.file_size != 0) {
        options.file_size = 50000;
    }
    options.record_nr_max = 5000;
    in.db = OPEN(test_path("readers"), &options);
    in.commits = test_scaled(30000);
    in.over = 0;
    CHECK(pthread_mutex_init(&in.mutex, NULL) == 0);
    for (i = 0; i < GROUPS; i++) {
        write_group(in.db, i, 1);
    }
    for (i = 0; i < SOLOS; i++) {
        write_one(in.db, SOLO_FIRST + i, 1);
    }
    for (i = 0; i < 4; i++) {
        roles[i].scene = &in;
        roles[i].writes = i == 0;
        roles[i].seed = i;
        roles[i].reads = 0;
    }
    run(4, reader_or_writer, roles, sizeof roles[0]);
    CHECK_LAST_COMMIT(in.db, GROUPS + SOLOS + in.commits);
    for (i = 1; i < 4; i++) {
        CHECK(roles[i].reads > 0);
        reads += roles[i].reads;
    }
    test_checks += reads;
    CHECK_OK(ourdb_destroy(in.db));
    CHECK(pthread_mutex_destroy(&in.mutex) == 0);
}

/* ---- writers side by side ------------------------------------------------------------------ */

typedef struct worker {
    ourdb *db;
    uint32_t number;
    unsigned long count;
    uint32_t *ids;      /* inserter: what it was given */
    unsigned long done; /* deleter: how many it deleted */
} worker;

/* Single inserts and batches in turn, each value saying whose it is and which. */
static void *
inserter(void *argument)
{
    worker *self = argument;
    unsigned long i = 0;

    while (i < self->count) {
        uint8_t bytes[3][PROOF_MAX];
        ourdb_slice slices[3];
        size_t batch = i % 5 == 0 && i + 3 <= self->count ? 3 : 1;
        size_t k;

        for (k = 0; k < batch; k++) {
            slices[k].len = proof(self->number, (uint32_t)(i + k), bytes[k]);
            slices[k].data = bytes[k];
        }
        if (batch == 1) {
            VERIFY_OK(ourdb_insert(self->db, slices[0].data, slices[0].len, &self->ids[i]));
        } else {
            VERIFY_OK(ourdb_insert_many(self->db, slices, batch, &self->ids[i]));
            VERIFY(self->ids[i + 1] == self->ids[i] + 1 && self->ids[i + 2] == self->ids[i] + 2);
        }
        /* What this thread was told is there for it to read, at once. */
        VERIFY_OK(ourdb_contains(self->db, self->ids[i]));
        i += batch;
    }
    return NULL;
}

static void
inserting(const test_variant *variant, uint32_t sync, unsigned threads, unsigned long each)
{
    ourdb_options options = test_options(variant, 0);
    const char *path = test_path("inserting");
    worker workers[THREADS_MAX];
    uint8_t *given;
    ourdb *db;
    unsigned long i;
    unsigned t;

    test_phase("%s: %u threads insert, sync %" PRIu32, variant->name, threads, sync);
    options.sync = sync;
    options.sync_interval_ms = sync == OURDB_SYNC_INTERVAL ? 1 : 0;
    db = OPEN(path, &options);
    for (t = 0; t < threads; t++) {
        workers[t].db = db;
        workers[t].number = t;
        workers[t].count = each;
        workers[t].ids = calloc(each, sizeof(uint32_t));
        CHECK(workers[t].ids != NULL);
    }
    run(threads, inserter, workers, sizeof workers[0]);
    CHECK_COUNT(db, each * threads);
    CHECK_NEXT_ID(db, each * threads + 1);
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_close(db));
        db = OPEN(path, &options);
        CHECK_COUNT(db, each * threads);
    }
    given = calloc(each * threads + 1, 1);
    CHECK(given != NULL);
    for (t = 0; t < threads; t++) {
        for (i = 0; i < each; i++) {
            uint8_t bytes[PROOF_MAX];
            size_t len = proof(t, (uint32_t)i, bytes);

            CHECK(workers[t].ids[i] >= 1 && workers[t].ids[i] <= each * threads);
            CHECK(!given[workers[t].ids[i]]);
            given[workers[t].ids[i]] = 1;
            CHECK_VALUE(db, workers[t].ids[i], bytes, len);
        }
        free(workers[t].ids);
    }
    free(given);
    CHECK_OK(ourdb_destroy(db));
}

#define SHARED_IDS 5

/* All threads write the same few records. */
static void *
setter(void *argument)
{
    worker *self = argument;
    unsigned long i;

    for (i = 0; i < self->count; i++) {
        uint32_t id = (uint32_t)(i % SHARED_IDS);

        write_one(self->db, id, self->number * 1000000 + (uint32_t)i);
    }
    return NULL;
}

static void
setting(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    ourdb *db = OPEN(test_path("setting"), &options);
    unsigned long each = test_scaled(1000) / SHARED_IDS * SHARED_IDS + SHARED_IDS;
    worker workers[4];
    ourdb_records records;
    uint32_t id;
    unsigned t;
    size_t i;

    test_phase("%s: 4 threads set the same records", variant->name);
    for (t = 0; t < 4; t++) {
        workers[t].db = db;
        workers[t].number = t;
        workers[t].count = each;
    }
    run(4, setter, workers, sizeof workers[0]);
    CHECK_LAST_COMMIT(db, each * 4);
    for (id = 0; id < SHARED_IDS; id++) {
        /* Newest first, so each thread's versions come in falling order, none left out. */
        unsigned long left[4] = {each, each, each, each};

        CHECK_OK(ourdb_history(db, id, 0, &records));
        CHECK_NUMBER(records.count, each * 4 / SHARED_IDS);
        for (i = 0; i < records.count; i++) {
            uint32_t version = proven(id, records.items[i].data, records.items[i].len);
            uint32_t thread = version / 1000000;

            CHECK(thread < 4);
            left[thread] -= left[thread] == each ? SHARED_IDS - id : SHARED_IDS;
            CHECK_NUMBER(version % 1000000, left[thread]);
            CHECK(i == 0 || records.items[i].commit < records.items[i - 1].commit);
        }
        ourdb_free_records(&records);
    }
    CHECK_OK(ourdb_destroy(db));
}

static void *
deleter(void *argument)
{
    worker *self = argument;
    unsigned long i;

    for (i = 1; i <= self->count; i++) {
        int code = ourdb_delete(self->db, (uint32_t)i);

        VERIFY(code == OURDB_OK || code == OURDB_NOT_FOUND);
        self->done += code == OURDB_OK ? 1 : 0;
    }
    return NULL;
}

static void
deleting(void)
{
    ourdb_options options = test_options(NULL, 0);
    ourdb *db = OPEN(test_path("deleting"), &options);
    unsigned long count = test_scaled(3000);
    unsigned long deleted = 0;
    worker workers[4];
    unsigned long i;
    uint32_t id;
    unsigned t;

    test_phase("4 threads delete the same records");
    for (i = 0; i < count; i++) {
        CHECK_OK(ourdb_insert(db, "x", 1, &id));
    }
    for (t = 0; t < 4; t++) {
        workers[t].db = db;
        workers[t].count = count;
        workers[t].done = 0;
    }
    run(4, deleter, workers, sizeof workers[0]);
    for (t = 0; t < 4; t++) {
        deleted += workers[t].done;
    }
    CHECK_NUMBER(deleted, count);
    CHECK_COUNT(db, 0);
    CHECK_LAST_COMMIT(db, count * 2);
    CHECK_CODE(ourdb_first(db, &id), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_destroy(db));
}

/* ---- messages, and databases of their own -------------------------------------------------- */

static void *
complainer(void *argument)
{
    worker *self = argument;
    char id_text[16];
    unsigned long i;

    for (i = 0; i < self->count; i++) {
        uint32_t id = 10000 + self->number * 1000 + (uint32_t)(i % 1000);
        ourdb_buf buf;

        snprintf(id_text, sizeof id_text, "%" PRIu32, id);
        VERIFY_CODE(ourdb_get(self->db, id, &buf), OURDB_NOT_FOUND);
        VERIFY(strstr(ourdb_errmsg(), id_text) != NULL);
    }
    return NULL;
}

static void
messages(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_MEMORY);
    ourdb *db = OPEN(NULL, &options);
    worker workers[THREADS_MAX];
    unsigned t;

    test_phase("8 threads fail, each with its own message");
    for (t = 0; t < 8; t++) {
        workers[t].db = db;
        workers[t].number = t;
        workers[t].count = test_scaled(2000);
    }
    run(8, complainer, workers, sizeof workers[0]);
    CHECK_OK(ourdb_close(db));
}

static void *
loner(void *argument)
{
    worker *self = argument;
    char path[TEST_PATH_MAX];
    char name[32];
    unsigned long i;
    unsigned long round;

    snprintf(name, sizeof name, "loner-%" PRIu32, self->number);
    test_join_into(path, test_directory, name);
    for (round = 0; round < 5; round++) {
        ourdb *db = NULL;
        uint64_t count;

        VERIFY_OK(ourdb_open(path, NULL, &db));
        VERIFY_OK(ourdb_count(db, &count));
        VERIFY(count == round * self->count);
        for (i = 0; i < self->count; i++) {
            uint8_t bytes[PROOF_MAX];
            size_t len = proof(self->number, (uint32_t)i, bytes);
            uint32_t id;
            ourdb_buf buf;

            VERIFY_OK(ourdb_insert(db, bytes, len, &id));
            VERIFY(id == round * self->count + i + 1);
            VERIFY_OK(ourdb_get(db, id, &buf));
            VERIFY(proven(self->number, buf.data, buf.len) == i);
            ourdb_free_buf(&buf);
        }
        if (round < 4) {
            VERIFY_OK(ourdb_close(db));
        } else {
            VERIFY_OK(ourdb_destroy(db));
        }
    }
    return NULL;
}

static void
databases_of_their_own(void)
{
    worker workers[THREADS_MAX];
    unsigned t;

    test_phase("4 threads with a database each");
    for (t = 0; t < 4; t++) {
        workers[t].number = t;
        workers[t].count = test_scaled(300);
    }
    run(4, loner, workers, sizeof workers[0]);
}

int
main(void)
{
    size_t i;

    test_begin("threads");
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        readers_beside_a_writer(&test_variants[i]);
        inserting(&test_variants[i], OURDB_SYNC_OS, 4, test_scaled(1500));
        setting(&test_variants[i]);
    }
    inserting(&test_variants[0], OURDB_SYNC_COMMIT, 8, test_scaled(100));
    inserting(&test_variants[4], OURDB_SYNC_COMMIT, 8, test_scaled(50));
    inserting(&test_variants[0], OURDB_SYNC_INTERVAL, 4, test_scaled(1000));
    deleting();
    messages();
    databases_of_their_own();
    return test_end();
}
