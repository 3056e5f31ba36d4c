/*
 * fork: a handle belongs to the process that opened it.
 *
 * Promise: in a forked child every function on the handle gives OURDB_FORKED, close and destroy
 * free its memory and touch nothing on disk; the parent goes on as if nothing had been; the child
 * can use databases of its own; a child that lives on does not keep the lock, however the parent
 * went; a child forked while other threads were writing or reading doesn't hang, in what it
 * inherited or in its own databases.
 */
#include "harness.h"

#include <pthread.h>
#include <spawn.h>

extern char **environ;

/*
 * The end of a child in which all was well. Where the parent had other threads, their stacks are in
 * the child and belong to nobody, and valgrind counts them as lost: such a child is killed instead.
 */
static void
end_child(int parent_had_threads)
{
    if (parent_had_threads) {
        kill(getpid(), SIGKILL);
    }
    _exit(0);
}

static void
wait_child(pid_t child, int parent_had_threads)
{
    if (parent_had_threads) {
        int status = test_wait_status(child);

        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    } else {
        test_wait(child);
    }
}

/* Every function on the handle, and the out parameters of those that have one. */
static void
check_forked(ourdb *db)
{
    const ourdb_slice slice = {(const uint8_t *)"a", 1};
    uint32_t ids[1] = {1};
    uint32_t id;
    uint64_t number;
    uint8_t into[4] = {1, 2, 3, 4};
    size_t len;
    ourdb_buf buf;
    ourdb_records records;
    ourdb_retention retention;
    ourdb_stats stats;
    ourdb_txn *txn;
    ourdb_iter *iter;

#define FORKED(call)                      \
    do {                                  \
        CHECK_CODE(call, OURDB_FORKED);   \
        CHECK(ourdb_errmsg()[0] != '\0'); \
    } while (0)

    FORKED(ourdb_sync(db));
    TEST_GARBAGE(id);
    FORKED(ourdb_insert(db, "a", 1, &id));
    CHECK_ZERO(id);
    FORKED(ourdb_set(db, 1, "a", 1));
    TEST_GARBAGE(buf);
    FORKED(ourdb_get(db, 1, &buf));
    CHECK_ZERO(buf);
    TEST_GARBAGE(len);
    FORKED(ourdb_get_into(db, 1, into, sizeof into, &len));
    CHECK_ZERO(len);
    CHECK(into[0] == 1 && into[1] == 2 && into[2] == 3 && into[3] == 4);
    FORKED(ourdb_delete(db, 1));
    FORKED(ourdb_contains(db, 1));
    TEST_GARBAGE(id);
    FORKED(ourdb_next_id(db, &id));
    CHECK_ZERO(id);
    TEST_GARBAGE(number);
    FORKED(ourdb_count(db, &number));
    CHECK_ZERO(number);
    FORKED(ourdb_insert_many(db, &slice, 1, &id));
    FORKED(ourdb_set_many(db, ids, &slice, 1));
    TEST_GARBAGE(records);
    FORKED(ourdb_get_many(db, ids, 1, &records));
    CHECK_ZERO(records);
    FORKED(ourdb_delete_many(db, ids, 1));
    TEST_GARBAGE(id);
    FORKED(ourdb_first(db, &id));
    CHECK_ZERO(id);
    TEST_GARBAGE(id);
    FORKED(ourdb_last(db, &id));
    CHECK_ZERO(id);
    TEST_GARBAGE(id);
    FORKED(ourdb_above(db, 0, &id));
    CHECK_ZERO(id);
    TEST_GARBAGE(id);
    FORKED(ourdb_below(db, 2, &id));
    CHECK_ZERO(id);
    TEST_GARBAGE(records);
    FORKED(ourdb_history(db, 1, 0, &records));
    CHECK_ZERO(records);
    TEST_GARBAGE(buf);
    FORKED(ourdb_get_version(db, 1, 1, &buf));
    CHECK_ZERO(buf);
    TEST_GARBAGE(buf);
    FORKED(ourdb_get_at(db, 1, UINT64_MAX, &buf));
    CHECK_ZERO(buf);
    TEST_GARBAGE(number);
    FORKED(ourdb_last_commit(db, &number));
    CHECK_ZERO(number);
    FORKED(ourdb_clear(db));
    FORKED(ourdb_revert(db, 1, 1));
    FORKED(ourdb_revert_all(db, 1));
    FORKED(ourdb_erase(db, 1));
    FORKED(ourdb_refresh(db));
    TEST_GARBAGE(txn);
    FORKED(ourdb_txn_begin(db, 0, &txn));
    CHECK(txn == NULL);
    TEST_GARBAGE(txn);
    FORKED(ourdb_txn_begin(db, OURDB_TXN_READ_ONLY, &txn));
    CHECK(txn == NULL);
    TEST_GARBAGE(txn);
    FORKED(ourdb_txn_begin_at(db, 1, &txn));
    CHECK(txn == NULL);
    TEST_GARBAGE(iter);
    FORKED(ourdb_iter_open(db, 0, UINT32_MAX, 0, &iter));
    CHECK(iter == NULL);
    CHECK_OK(ourdb_retention_init(&retention, sizeof retention));
    FORKED(ourdb_compact(db, &retention, NULL, NULL));
    FORKED(ourdb_backup(db, test_path("forked-backup"), NULL, NULL));
    CHECK(!test_exists(test_path("forked-backup")));
    FORKED(ourdb_check(db, NULL, NULL));
    CHECK_OK(ourdb_stats_init(&stats, sizeof stats));
    FORKED(ourdb_stats_get(db, &stats));
    TEST_GARBAGE(buf);
    TEST_GARBAGE(number);
    FORKED(ourdb_changes(db, 0, 0, &buf, &number));
    CHECK_ZERO(buf);
    CHECK_ZERO(number);
    FORKED(ourdb_apply(db, "a", 1));
}

/* Every function on a transaction and an iterator; then they are ended, which frees them. */
static void
check_forked_parts(ourdb_txn *txn, ourdb_txn *snapshot, ourdb_iter *iter)
{
    uint32_t id;
    uint64_t number;
    uint8_t into[4] = {1, 2, 3, 4};
    size_t len;
    size_t count;
    ourdb_buf buf;
    ourdb_record record;
    ourdb_records records;
    ourdb_iter *other;

    TEST_GARBAGE(id);
    FORKED(ourdb_txn_insert(txn, "a", 1, &id));
    CHECK_ZERO(id);
    FORKED(ourdb_txn_set(txn, 1, "a", 1));
    FORKED(ourdb_txn_delete(txn, 1));
    TEST_GARBAGE(buf);
    FORKED(ourdb_txn_get(txn, 1, &buf));
    CHECK_ZERO(buf);
    TEST_GARBAGE(buf);
    FORKED(ourdb_txn_get(snapshot, 1, &buf));
    CHECK_ZERO(buf);
    TEST_GARBAGE(len);
    FORKED(ourdb_txn_get_into(snapshot, 1, into, sizeof into, &len));
    CHECK_ZERO(len);
    CHECK(into[0] == 1 && into[1] == 2 && into[2] == 3 && into[3] == 4);
    FORKED(ourdb_txn_contains(snapshot, 1));
    TEST_GARBAGE(id);
    FORKED(ourdb_txn_first(snapshot, &id));
    CHECK_ZERO(id);
    FORKED(ourdb_txn_last(snapshot, &id));
    FORKED(ourdb_txn_above(snapshot, 0, &id));
    FORKED(ourdb_txn_below(snapshot, 9, &id));
    TEST_GARBAGE(number);
    FORKED(ourdb_txn_count(snapshot, &number));
    CHECK_ZERO(number);
    TEST_GARBAGE(other);
    FORKED(ourdb_txn_iter_open(snapshot, 0, UINT32_MAX, 0, &other));
    CHECK(other == NULL);
    TEST_GARBAGE(record);
    FORKED(ourdb_iter_next(iter, &record));
    CHECK_ZERO(record);
    TEST_GARBAGE(records);
    FORKED(ourdb_iter_next_many(iter, 1, &records));
    CHECK_ZERO(records);
    TEST_GARBAGE(count);
    FORKED(ourdb_iter_next_ids(iter, &id, 1, &count));
    CHECK_ZERO(count);
    FORKED(ourdb_txn_commit(txn));
    ourdb_txn_abort(snapshot);
    ourdb_iter_close(iter);
    CHECK_CODE(ourdb_txn_commit(txn), OURDB_INVALID_ARGUMENT);
#undef FORKED
}

static void
every_function(const test_variant *variant, uint32_t sync)
{
    ourdb_options options = test_options(variant, 0);
    ourdb_options own = test_options(NULL, 0);
    ourdb_buf before;
    ourdb *db;
    ourdb *child_db;
    uint32_t id;
    pid_t child;
    pid_t grandchild;
    int threads = sync == OURDB_SYNC_INTERVAL;

    test_phase("%s, sync %" PRIu32 ": every function in a child", variant->name, sync);
    options.sync = sync;
    options.sync_interval_ms = sync == OURDB_SYNC_INTERVAL ? 1 : 0;
    db = OPEN(test_path("parent"), &options);
    CHECK_OK(ourdb_insert(db, "one", 3, &id));
    CHECK_OK(ourdb_insert(db, "two", 3, &id));
    CHECK_OK(ourdb_get(db, 1, &before));

    child = test_fork();
    if (child == 0) {
        check_forked(db);
        /* What needs no handle works; what was handed out before can be read and freed. */
        CHECK_BYTES(before.data, before.len, "one", 3);
        ourdb_free_buf(&before);
        CHECK(strlen(ourdb_version()) > 0);
        child_db = OPEN(test_path("child"), &own);
        CHECK_OK(ourdb_insert(child_db, "mine", 4, &id));
        CHECK_VALUE(child_db, 1, "mine", 4);
        CHECK_CODE(ourdb_get(db, 1, &before), OURDB_FORKED);
        grandchild = test_fork();
        if (grandchild == 0) {
            check_forked(db);
            check_forked(child_db);
            CHECK_CODE(ourdb_close(child_db), OURDB_FORKED);
            CHECK_CODE(ourdb_close(db), OURDB_FORKED);
            end_child(threads);
        }
        wait_child(grandchild, threads);
        CHECK_VALUE(child_db, 1, "mine", 4);
        CHECK_OK(ourdb_destroy(child_db));
        if (test_on_disk(variant)) {
            CHECK_OPEN_FAILS(test_path("parent"), &options, OURDB_LOCKED);
        }
        CHECK_CODE(ourdb_close(db), OURDB_FORKED);
        if (test_on_disk(variant)) {
            CHECK_OPEN_FAILS(test_path("parent"), &options, OURDB_LOCKED);
        }
        end_child(threads);
    }
    /* Meanwhile and afterwards the parent writes and reads. */
    CHECK_OK(ourdb_set(db, 2, "two again", 9));
    wait_child(child, threads);

    child = test_fork();
    if (child == 0) {
        ourdb_free_buf(&before);
        CHECK_CODE(ourdb_destroy(db), OURDB_FORKED);
        end_child(threads);
    }
    wait_child(child, threads);

    test_phase("%s, sync %" PRIu32 ": the parent goes on", variant->name, sync);
    CHECK_BYTES(before.data, before.len, "one", 3);
    ourdb_free_buf(&before);
    CHECK_VALUE(db, 1, "one", 3);
    CHECK_VALUE(db, 2, "two again", 9);
    CHECK_OK(ourdb_insert(db, "three", 5, &id));
    CHECK_NUMBER(id, 3);
    CHECK_OK(ourdb_sync(db));
    CHECK_LAST_COMMIT(db, 4);
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_close(db));
        db = OPEN(test_path("parent"), &options);
        CHECK_VALUE(db, 1, "one", 3);
        CHECK_VALUE(db, 2, "two again", 9);
        CHECK_VALUE(db, 3, "three", 5);
        CHECK_COUNT(db, 3);
    }
    CHECK_OK(ourdb_destroy(db));
}

/* Transactions and iterators that are open at the fork: the parent's go on, the child's are dead. */
static void
with_open_parts(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    ourdb *db = OPEN(test_path("parts"), &options);
    ourdb_txn *txn;
    ourdb_txn *snapshot;
    ourdb_iter *iter;
    ourdb_record record;
    uint32_t id;
    int database_first;

    test_phase("%s: open transactions and iterators in a child", variant->name);
    CHECK_OK(ourdb_insert(db, "one", 3, &id));
    CHECK_OK(ourdb_insert(db, "two", 3, &id));
    CHECK_OK(ourdb_insert(db, "three", 5, &id));
    CHECK_OK(ourdb_txn_begin(db, 0, &txn));
    CHECK_OK(ourdb_txn_begin(db, OURDB_TXN_READ_ONLY, &snapshot));
    CHECK_OK(ourdb_iter_open(db, 0, UINT32_MAX, 0, &iter));
    /* What it reads ahead at the second step has the third record in it. */
    CHECK_OK(ourdb_iter_next(iter, &record));
    CHECK_OK(ourdb_iter_next(iter, &record));
    CHECK_OK(ourdb_txn_set(txn, 1, "of the parent", 13));
    CHECK_CODE(ourdb_close(db), OURDB_BUSY);
    for (database_first = 0; database_first < 2; database_first++) {
        pid_t child = test_fork();

        if (child == 0) {
            /* Open ones don't keep a child from closing, in any order. */
            if (database_first) {
                CHECK_CODE(ourdb_close(db), OURDB_FORKED);
            }
            check_forked_parts(txn, snapshot, iter);
            if (!database_first) {
                CHECK_CODE(ourdb_destroy(db), OURDB_FORKED);
            }
            _exit(0);
        }
        test_wait(child);
    }
    CHECK_OK(ourdb_iter_next(iter, &record));
    CHECK_BYTES(record.data, record.len, "three", 5);
    ourdb_iter_close(iter);
    ourdb_txn_abort(snapshot);
    CHECK_OK(ourdb_txn_commit(txn));
    CHECK_VALUE(db, 1, "of the parent", 13);
    CHECK_OK(ourdb_destroy(db));
}

/* A child that does nothing but live on, and never heard of the database. */
static void
surviving_child(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    test_pipe wait = test_make_pipe();
    char path[TEST_PATH_MAX];
    uint32_t id;
    pid_t child;
    ourdb *db;

    test_phase("%s: a surviving child doesn't keep the lock", variant->name);
    test_join_into(path, test_directory, "surviving");
    db = OPEN(path, &options);
    CHECK_OK(ourdb_insert(db, "one", 3, &id));
    child = test_fork();
    if (child == 0) {
        test_await(&wait);
        /* Its copy of the handle is still of no use, and closing it doesn't disturb the others. */
        CHECK_CODE(ourdb_contains(db, 1), OURDB_FORKED);
        CHECK_CODE(ourdb_close(db), OURDB_FORKED);
        _exit(0);
    }
    CHECK_OK(ourdb_close(db));
    db = OPEN(path, &options);
    CHECK_VALUE(db, 1, "one", 3);
    CHECK_OK(ourdb_insert(db, "two", 3, &id));
    test_signal(&wait);
    test_wait(child);
    CHECK_OPEN_FAILS(path, &options, OURDB_LOCKED);
    CHECK_OK(ourdb_insert(db, "three", 5, &id));
    CHECK_COUNT(db, 3);
    CHECK_OK(ourdb_destroy(db));
    test_close_pipe(&wait);
}

/* The same, but the process that held the lock was killed. */
static void
orphan(void)
{
    ourdb_options options = test_options(NULL, 0);
    test_pipe ready = test_make_pipe();
    test_pipe wait = test_make_pipe();
    char path[TEST_PATH_MAX];
    uint32_t id;
    pid_t child;
    ourdb *db;

    test_phase("the child of a killed process doesn't keep the lock");
    test_join_into(path, test_directory, "orphan");
    child = test_fork();
    if (child == 0) {
        db = OPEN(path, &options);
        CHECK_OK(ourdb_insert(db, "one", 3, &id));
        if (test_fork() == 0) {
            test_signal(&ready);
            test_await(&wait);
            CHECK_CODE(ourdb_close(db), OURDB_FORKED);
            test_signal(&ready);
            _exit(0);
        }
        test_wait_to_be_killed();
    }
    test_await(&ready);
    test_kill(child);
    db = OPEN(path, &options);
    CHECK_VALUE(db, 1, "one", 3);
    test_signal(&wait);
    test_await(&ready);
    CHECK_OK(ourdb_insert(db, "two", 3, &id));
    CHECK_OK(ourdb_destroy(db));
    test_close_pipe(&ready);
    test_close_pipe(&wait);
}

/* Another program, started without fork handlers, inherits nothing. */
static void
other_program(void)
{
    ourdb_options options = test_options(NULL, 0);
    test_pipe wait = test_make_pipe();
    posix_spawn_file_actions_t actions;
    char cat[] = "cat";
    char *arguments[2];
    char path[TEST_PATH_MAX];
    uint32_t id;
    pid_t child;
    ourdb *db;

    test_phase("another program that was started doesn't keep the lock");
    test_join_into(path, test_directory, "other-program");
    arguments[0] = cat;
    arguments[1] = NULL;
    db = OPEN(path, &options);
    CHECK_OK(ourdb_insert(db, "one", 3, &id));
    CHECK(posix_spawn_file_actions_init(&actions) == 0);
    CHECK(posix_spawn_file_actions_adddup2(&actions, wait.ends[0], STDIN_FILENO) == 0);
    CHECK(posix_spawn_file_actions_addclose(&actions, wait.ends[1]) == 0);
    CHECK(posix_spawnp(&child, "cat", &actions, NULL, arguments, environ) == 0);
    CHECK(posix_spawn_file_actions_destroy(&actions) == 0);
    CHECK_OK(ourdb_close(db));
    db = OPEN(path, &options);
    CHECK_VALUE(db, 1, "one", 3);
    CHECK_OK(ourdb_destroy(db));
    test_close_pipe(&wait); /* the end of cat's input */
    test_wait(child);
}

typedef struct hammer {
    ourdb *db;
    pthread_mutex_t mutex;
    int over;
    uint32_t inserted;
} hammer;

static void *
insert_until_over(void *argument)
{
    hammer *self = argument;
    int over = 0;

    while (!over) {
        uint32_t id;

        VERIFY_OK(ourdb_insert(self->db, &self->inserted, sizeof self->inserted, &id));
        VERIFY(id == ++self->inserted);
        pthread_mutex_lock(&self->mutex);
        over = self->over;
        pthread_mutex_unlock(&self->mutex);
    }
    return NULL;
}

static void
begin_hammering(hammer *shared, pthread_t *thread, void *(*until_over)(void *))
{
    shared->over = 0;
    shared->inserted = 0;
    CHECK(pthread_mutex_init(&shared->mutex, NULL) == 0);
    CHECK(pthread_create(thread, NULL, until_over, shared) == 0);
}

static void
end_hammering(hammer *shared, pthread_t thread)
{
    pthread_mutex_lock(&shared->mutex);
    shared->over = 1;
    pthread_mutex_unlock(&shared->mutex);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(pthread_mutex_destroy(&shared->mutex) == 0);
}

/* The child is a copy made in the middle of somebody's write, with its locks held by nobody. */
static void
while_writing(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    unsigned long forks = test_scaled(40);
    unsigned long i;
    pthread_t thread;
    hammer shared;
    uint32_t id;

    test_phase("%s: forking while a thread writes", variant->name);
    options.sync = OURDB_SYNC_INTERVAL;
    options.sync_interval_ms = 1;
    shared.db = OPEN(test_path("while-writing"), &options);
    begin_hammering(&shared, &thread, insert_until_over);
    for (i = 0; i < forks; i++) {
        pid_t child;

        test_sleep_us(100 + i * 37 % 500);
        child = test_fork();
        if (child == 0) {
            int code;

            alarm(30);
            code = ourdb_insert(shared.db, "x", 1, &id);
            if (code == OURDB_FORKED) {
                code = ourdb_contains(shared.db, 1);
            }
            if (code == OURDB_FORKED) {
                code = ourdb_close(shared.db);
            }
            if (code == OURDB_FORKED) {
                end_child(1);
            }
            _exit(1);
        }
        wait_child(child, 1);
    }
    end_hammering(&shared, thread);
    CHECK_COUNT(shared.db, shared.inserted);
    for (id = 1; id <= shared.inserted; id += 1 + shared.inserted / 100) {
        uint32_t value = id - 1;

        CHECK_VALUE(shared.db, id, &value, sizeof value);
    }
    CHECK_OK(ourdb_destroy(shared.db));
}

typedef struct looker {
    ourdb *db;
    pthread_mutex_t mutex;
    int over;
} looker;

static int
is_over(looker *self)
{
    int over;

    pthread_mutex_lock(&self->mutex);
    over = self->over;
    pthread_mutex_unlock(&self->mutex);
    return over;
}

static void *
read_until_over(void *argument)
{
    looker *self = argument;

    while (!is_over(self)) {
        ourdb_buf value;

        VERIFY_OK(ourdb_get(self->db, 1, &value));
        ourdb_free_buf(&value);
    }
    return NULL;
}

static void *
look_until_over(void *argument)
{
    looker *self = argument;

    while (!is_over(self)) {
        int i;

        for (i = 0; i < 1000; i++) {
            ourdb_txn *snapshot;

            VERIFY_OK(ourdb_txn_begin(self->db, OURDB_TXN_READ_ONLY, &snapshot));
            ourdb_txn_abort(snapshot);
        }
    }
    return NULL;
}

/*
 * The child ends what it inherited, whose locks may be held by nobody. Then it compacts and erases in
 * a database of its own: both wait for those who read, and those of the parent are not there.
 */
static void
in_child_of_readers(ourdb *db, ourdb_txn *txn, ourdb_txn *snapshot, ourdb_iter *iter)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_MEMORY);
    ourdb_retention retention;
    ourdb *own;
    uint32_t id;

    alarm(30);
    CHECK_CODE(ourdb_txn_commit(txn), OURDB_FORKED);
    ourdb_txn_abort(snapshot);
    ourdb_iter_close(iter);
    own = OPEN("", &options);
    CHECK_OK(ourdb_insert(own, "one", 3, &id));
    CHECK_OK(ourdb_insert(own, "two", 3, &id));
    CHECK_OK(ourdb_erase(own, 1));
    CHECK_OK(ourdb_retention_init(&retention, sizeof retention));
    CHECK_OK(ourdb_compact(own, &retention, NULL, NULL));
    CHECK_VALUE(own, 2, "two", 3);
    CHECK_OK(ourdb_destroy(own));
    CHECK_CODE(ourdb_close(db), OURDB_FORKED);
}

static void
while_reading(const test_variant *variant)
{
    const size_t len = 1 << 20;
    ourdb_options options = test_options(variant, 0);
    unsigned long forks = test_scaled(40);
    unsigned long i;
    uint8_t *value = calloc(1, len);
    pthread_t threads[2];
    looker shared;
    uint32_t id;

    test_phase("%s: forking while threads read", variant->name);
    CHECK(value != NULL);
    options.record_size_max = (uint32_t)len;
    shared.db = OPEN(test_path("while-reading"), &options);
    shared.over = 0;
    CHECK_OK(ourdb_insert(shared.db, value, len, &id));
    CHECK(pthread_mutex_init(&shared.mutex, NULL) == 0);
    CHECK(pthread_create(&threads[0], NULL, read_until_over, &shared) == 0);
    CHECK(pthread_create(&threads[1], NULL, look_until_over, &shared) == 0);
    for (i = 0; i < forks; i++) {
        ourdb_txn *txn;
        ourdb_txn *snapshot;
        ourdb_iter *iter;
        pid_t child;

        CHECK_OK(ourdb_txn_begin(shared.db, 0, &txn));
        CHECK_OK(ourdb_txn_set(txn, 1, value, len));
        CHECK_OK(ourdb_txn_begin(shared.db, OURDB_TXN_READ_ONLY, &snapshot));
        CHECK_OK(ourdb_iter_open(shared.db, 0, UINT32_MAX, 0, &iter));
        test_sleep_us(100 + i * 37 % 500);
        child = test_fork();
        if (child == 0) {
            in_child_of_readers(shared.db, txn, snapshot, iter);
            end_child(1);
        }
        wait_child(child, 1);
        ourdb_iter_close(iter);
        ourdb_txn_abort(snapshot);
        ourdb_txn_abort(txn);
    }
    pthread_mutex_lock(&shared.mutex);
    shared.over = 1;
    pthread_mutex_unlock(&shared.mutex);
    CHECK(pthread_join(threads[0], NULL) == 0);
    CHECK(pthread_join(threads[1], NULL) == 0);
    CHECK(pthread_mutex_destroy(&shared.mutex) == 0);
    CHECK_OK(ourdb_destroy(shared.db));
    free(value);
}

enum { VALUES = 30, VALUE_LEN = 100000 };
static const uint8_t a_value[VALUE_LEN];

/* A database of which a compaction tells its progress a few times. */
static ourdb *
open_with_values(const test_variant *variant, const char *path, uint32_t *last)
{
    ourdb_options options = test_options(variant, 0);
    ourdb *db;
    int i;

    options.record_size_max = VALUE_LEN;
    db = OPEN(path, &options);
    for (i = 0; i < VALUES; i++) {
        CHECK_OK(ourdb_insert(db, a_value, VALUE_LEN, last));
    }
    return db;
}

/* All of it is there, also when it is opened again. */
static void
check_values(const test_variant *variant, const char *path, ourdb *db, uint32_t last)
{
    if (test_on_disk(variant)) {
        ourdb_options options = test_options(variant, 0);

        CHECK_OK(ourdb_close(db));
        options.record_size_max = VALUE_LEN;
        db = OPEN(path, &options);
    }
    CHECK_COUNT(db, VALUES);
    CHECK_VALUE(db, last, a_value, VALUE_LEN);
    CHECK_OK(ourdb_destroy(db));
}

typedef struct compactor {
    ourdb *db;
    pthread_barrier_t halfway;
    int calls;
} compactor;

/* Stays in its second call, when something was copied, until the barrier was passed twice. */
static int
wait_halfway(void *user, uint64_t done, uint64_t total)
{
    compactor *self = user;

    (void)done;
    (void)total;
    if (++self->calls == 2) {
        pthread_barrier_wait(&self->halfway);
        pthread_barrier_wait(&self->halfway);
    }
    return 0;
}

static void *
compact_once(void *argument)
{
    compactor *self = argument;
    ourdb_retention retention;

    VERIFY_OK(ourdb_retention_init(&retention, sizeof retention));
    VERIFY_OK(ourdb_compact(self->db, &retention, wait_halfway, self));
    return NULL;
}

typedef struct forker {
    pid_t child;
    int calls;
    int at;
} forker;

static int
fork_halfway(void *user, uint64_t done, uint64_t total)
{
    forker *self = user;

    (void)done;
    (void)total;
    if (++self->calls == self->at) {
        self->child = test_fork();
    }
    return 0;
}

static int
compact_and_tell(ourdb *db, const char *copy, forker *told)
{
    ourdb_retention retention;

    (void)copy;
    VERIFY_OK(ourdb_retention_init(&retention, sizeof retention));
    return ourdb_compact(db, &retention, fork_halfway, told);
}

static int
check_and_tell(ourdb *db, const char *copy, forker *told)
{
    (void)copy;
    return ourdb_check(db, fork_halfway, told);
}

static int
backup_and_tell(ourdb *db, const char *copy, forker *told)
{
    return ourdb_backup(db, copy, fork_halfway, told);
}

/* A child that comes out of its parent's progress function has no work to go on with. */
static void
within_long_work(const test_variant *variant)
{
    static int (*const works[])(ourdb *, const char *, forker *) = {
        compact_and_tell, check_and_tell, backup_and_tell
    };
    const char *path = test_path("within");
    char copy[TEST_PATH_MAX];
    uint32_t last;
    ourdb *db;
    size_t i;

    test_phase("%s: forking in a progress function", variant->name);
    test_join_into(copy, test_directory, "within-copy");
    for (i = 0; i < sizeof works / sizeof works[0]; i++) {
        forker forked = {-1, 0, 1};
        ourdb_options reading = test_options(NULL, OURDB_OPEN_READ_ONLY);
        int code;

        db = open_with_values(variant, path, &last);
        code = works[i](db, copy, &forked);
        if (forked.child == 0) {
            CHECK(code == OURDB_FORKED);
            CHECK_CODE(ourdb_close(db), OURDB_FORKED);
            end_child(0);
        }
        CHECK(code == OURDB_OK);
        wait_child(forked.child, 0);
        if (works[i] == backup_and_tell) {
            ourdb *backup = OPEN(copy, &reading);

            CHECK_SAME(db, backup);
            CHECK_OK(ourdb_close(backup));
            test_remove(copy);
        }
        check_values(variant, path, db, last);
    }
}

/* What the parent's compaction has copied is the parent's. */
static void
while_compacting(const test_variant *variant)
{
    const char *path = test_path("while-compacting");
    compactor shared;
    pthread_t thread;
    uint32_t last;
    pid_t child;

    test_phase("%s: forking while a thread compacts", variant->name);
    shared.db = open_with_values(variant, path, &last);
    shared.calls = 0;
    CHECK(pthread_barrier_init(&shared.halfway, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, compact_once, &shared) == 0);
    pthread_barrier_wait(&shared.halfway);
    child = test_fork();
    if (child == 0) {
        CHECK_CODE(ourdb_close(shared.db), OURDB_FORKED);
        end_child(1);
    }
    wait_child(child, 1);
    pthread_barrier_wait(&shared.halfway);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(pthread_barrier_destroy(&shared.halfway) == 0);
    check_values(variant, path, shared.db, last);
}

static void *
erase_until_over(void *argument)
{
    hammer *self = argument;
    int over = 0;

    while (!over) {
        uint32_t id;

        VERIFY_OK(ourdb_insert(self->db, a_value, VALUE_LEN, &id));
        VERIFY_OK(ourdb_erase(self->db, id));
        pthread_mutex_lock(&self->mutex);
        over = self->over;
        pthread_mutex_unlock(&self->mutex);
    }
    return NULL;
}

/* What waits for the end of an erasure, or has one wait, would wait for ever in a child. */
static void
while_erasing(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    unsigned long forks = test_scaled(40);
    unsigned long i;
    pthread_t thread;
    hammer shared;

    test_phase("%s: forking while a thread erases", variant->name);
    options.record_size_max = VALUE_LEN;
    shared.db = OPEN(test_path("while-erasing"), &options);
    begin_hammering(&shared, &thread, erase_until_over);
    for (i = 0; i < forks; i++) {
        pid_t child;

        test_sleep_us(100 + i * 37 % 500);
        child = test_fork();
        if (child == 0) {
            alarm(30);
            check_forked(shared.db);
            end_child(1);
        }
        wait_child(child, 1);
    }
    end_hammering(&shared, thread);
    CHECK_OK(ourdb_destroy(shared.db));
}

int
main(void)
{
    size_t i;

    test_begin("fork");
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        every_function(&test_variants[i], OURDB_SYNC_OS);
        with_open_parts(&test_variants[i]);
        if (test_on_disk(&test_variants[i])) {
            surviving_child(&test_variants[i]);
        }
    }
    orphan();
    other_program();
    /* From here on there are threads, and children end as end_child() tells. */
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        every_function(&test_variants[i], OURDB_SYNC_INTERVAL);
        while_writing(&test_variants[i]);
        while_compacting(&test_variants[i]);
        while_erasing(&test_variants[i]);
        within_long_work(&test_variants[i]);
    }
    while_reading(&test_variants[0]);
    while_reading(&test_variants[TEST_VARIANT_COUNT - 1]);
    return test_end();
}
