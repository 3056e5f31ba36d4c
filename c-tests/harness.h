/*
 * What the C test programs of OurDB share: checks that say where and why they failed, a directory
 * of their own, child processes, and values that can be told apart.
 *
 * A program begins with test_begin(), names what it is doing with test_phase(), and ends with
 * `return test_end()`, which prints "name: N checks passed". The first check that fails prints
 * phase, file, line, what came and what was expected, keeps the directory for a look, and ends the
 * process with exit code 1. A program that hangs is ended by an alarm.
 *
 * Environment:
 *   TMPDIR              where the directory is made; /tmp without it
 *   OURDB_TEST_SCALE    how much of the repeated work to do; 1 without it, 0.1 under valgrind,
 *                       which wants --child-silent-after-fork=yes besides, because it reports on
 *                       children that are killed on purpose as well
 *
 * Include this file first: it asks the C library for POSIX.
 */
#ifndef OURDB_TEST_HARNESS_H
#define OURDB_TEST_HARNESS_H

#define _XOPEN_SOURCE 700

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ourdb.h"

#define TEST_PATH_MAX 4096
#define TEST_TIMEOUT_SECONDS 300

static const char *test_name = "?";
static char test_phase_text[256] = "start";
static char test_directory[TEST_PATH_MAX];
static unsigned long test_checks;
static int test_in_child;
static pid_t test_parent;

/* ---- failing ------------------------------------------------------------------------------- */

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4), noreturn))
#endif
static void
test_fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;

    fflush(stdout);
    fprintf(stderr, "%s: FAILED%s in phase \"%s\"\n  %s:%d: ", test_name,
            test_in_child ? " (in a child process)" : "", test_phase_text, file, line);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n  the files are kept in %s\n", test_directory);
    fflush(stderr);
    _exit(1);
}

/* Names what the program is doing, for the message of a check that fails. */
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
static inline void
test_phase(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(test_phase_text, sizeof test_phase_text, format, arguments);
    va_end(arguments);
}

/* ---- checks -------------------------------------------------------------------------------- */

/*
 * CHECK_* count what they check and belong to the main thread. VERIFY_* do the same without
 * counting: they are for threads, which must not meet at a counter while they race.
 */
#define CHECK(condition) \
    (test_checks++, test_condition(__FILE__, __LINE__, #condition, (condition) ? 1 : 0))
#define CHECK_CODE(call, expected) \
    (test_checks++, test_code(__FILE__, __LINE__, #call, (call), (expected)))
#define CHECK_OK(call) CHECK_CODE(call, OURDB_OK)
#define CHECK_NUMBER(actual, expected)                                                        \
    (test_checks++,                                                                           \
     test_number(__FILE__, __LINE__, #actual, (uint64_t)(actual), (uint64_t)(expected)))
#define CHECK_BYTES(data, len, expected, expected_len)                                        \
    (test_checks++,                                                                           \
     test_bytes(__FILE__, __LINE__, #data, (data), (len), (expected), (expected_len)))
#define CHECK_ZERO(object) \
    (test_checks++, test_zero(__FILE__, __LINE__, #object, &(object), sizeof(object)))
/* The calling thread's last failure mentions `needle`. */
#define CHECK_MESSAGE(needle) (test_checks++, test_message(__FILE__, __LINE__, (needle)))

#define VERIFY(condition) test_condition(__FILE__, __LINE__, #condition, (condition) ? 1 : 0)
#define VERIFY_CODE(call, expected) test_code(__FILE__, __LINE__, #call, (call), (expected))
#define VERIFY_OK(call) VERIFY_CODE(call, OURDB_OK)

static inline void
test_condition(const char *file, int line, const char *condition, int holds)
{
    if (!holds) {
        test_fail(file, line, "%s does not hold", condition);
    }
}

static inline void
test_code(const char *file, int line, const char *call, int actual, int expected)
{
    if (actual != expected) {
        test_fail(file, line, "%s\n  gave     %d (%s)\n  expected %d (%s)\n  errmsg   \"%s\"", call,
                  actual, ourdb_strerror(actual), expected, ourdb_strerror(expected),
                  actual == OURDB_OK ? "" : ourdb_errmsg());
    }
}

static inline void
test_number(const char *file, int line, const char *what, uint64_t actual, uint64_t expected)
{
    if (actual != expected) {
        test_fail(file, line, "%s is %" PRIu64 ", expected %" PRIu64, what, actual, expected);
    }
}

static inline void
test_bytes(const char *file, int line, const char *what, const void *data, size_t len,
           const void *expected, size_t expected_len)
{
    size_t i;

    if (len != expected_len) {
        test_fail(file, line, "%s has %lu bytes, expected %lu", what, (unsigned long)len,
                  (unsigned long)expected_len);
    }
    if (data == NULL) {
        test_fail(file, line, "%s is NULL; a value, even an empty one, never is", what);
    }
    if (memcmp(data, expected, len) != 0) {
        for (i = 0; ((const uint8_t *)data)[i] == ((const uint8_t *)expected)[i]; i++) {
        }
        test_fail(file, line, "%s: byte %lu of %lu is %02x, expected %02x", what, (unsigned long)i,
                  (unsigned long)len, ((const uint8_t *)data)[i], ((const uint8_t *)expected)[i]);
    }
}

static inline int
test_is_zero(const void *object, size_t size)
{
    size_t i;

    for (i = 0; i < size; i++) {
        if (((const uint8_t *)object)[i] != 0) {
            return 0;
        }
    }
    return 1;
}

static inline void
test_zero(const char *file, int line, const char *what, const void *object, size_t size)
{
    if (!test_is_zero(object, size)) {
        test_fail(file, line, "%s was to be left zeroed and isn't", what);
    }
}

static inline void
test_message(const char *file, int line, const char *needle)
{
    const char *message = ourdb_errmsg();

    if (message == NULL || strstr(message, needle) == NULL) {
        test_fail(file, line, "ourdb_errmsg() is \"%s\" and does not mention \"%s\"",
                  message == NULL ? "(NULL)" : message, needle);
    }
}

/* Fills an out parameter with what a call must have overwritten. */
#define TEST_GARBAGE(object) memset(&(object), 0xA5, sizeof(object))

/* ---- scale, random numbers, values --------------------------------------------------------- */

/* `count` times OURDB_TEST_SCALE, at least 1. */
static inline unsigned long
test_scaled(unsigned long count)
{
    const char *text = getenv("OURDB_TEST_SCALE");
    double scale = text == NULL ? 1.0 : strtod(text, NULL);
    double scaled = (double)count * scale;

    return scaled < 1.0 ? 1 : (unsigned long)scaled;
}

/* splitmix64: small, good, and the same numbers everywhere. */
static inline uint64_t
test_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);

    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static inline uint32_t
test_random_below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)(test_random(state) % limit);
}

static inline void
test_fill(void *out, size_t len, uint64_t seed)
{
    uint8_t *bytes = out;
    size_t i;

    for (i = 0; i < len; i += sizeof(uint64_t)) {
        uint64_t word = test_random(&seed);

        memcpy(bytes + i, &word, len - i < sizeof word ? len - i : sizeof word);
    }
}

#define TEST_VALUE_MAX 256

/* The value of version `version` of record `id`: up to TEST_VALUE_MAX bytes, some of them none. */
static inline size_t
test_value(uint32_t id, uint64_t version, uint8_t *out)
{
    uint64_t seed = version << 32 ^ id;
    uint64_t draw = test_random(&seed);
    size_t len = draw % 16 == 0 ? 0 : (size_t)(draw >> 8) % (TEST_VALUE_MAX + 1);

    test_fill(out, len, seed);
    return len;
}

/* Sets and deletes ids below `ids` in random order, as commit `at`; `written` then says, for each id,
   which commit's test_value() it holds, 0 for none. */
static inline void
test_write_one(ourdb *db, uint64_t at, uint64_t *written, uint32_t ids, uint64_t *random)
{
    uint8_t value[TEST_VALUE_MAX];
    uint32_t id = (uint32_t)test_random_below(random, ids);

    if (written[id] != 0 && test_random_below(random, 3) == 0) {
        CHECK_OK(ourdb_delete(db, id));
        written[id] = 0;
    } else {
        CHECK_OK(ourdb_set(db, id, value, test_value(id, at, value)));
        written[id] = at;
    }
}

/* What a callback for progress has seen, and after how many calls it stops; 0: never. */
typedef struct test_watch {
    ourdb *db;
    uint64_t calls;
    uint64_t stop_at;
    uint64_t done;
    uint64_t total;
} test_watch;

/* What such a callback answers. */
static inline int
test_watch_progress(test_watch *seen, uint64_t done, uint64_t total)
{
    seen->calls++;
    CHECK(done >= seen->done && done <= total);
    seen->done = done;
    seen->total = total;
    return seen->stop_at != 0 && seen->calls >= seen->stop_at;
}

/* ---- records ------------------------------------------------------------------------------- */

#define CHECK_VALUE(db, id, data, len)                                                        \
    (test_checks += 3, test_record_is(__FILE__, __LINE__, (db), (id), (data), (len)))
#define CHECK_ABSENT(db, id) (test_checks += 3, test_record_absent(__FILE__, __LINE__, (db), (id)))
#define CHECK_COUNT(db, expected) CHECK_NUMBER(test_count(db), expected)
#define CHECK_LAST_COMMIT(db, expected) CHECK_NUMBER(test_last_commit(db), expected)
#define CHECK_NEXT_ID(db, expected) CHECK_NUMBER(test_next_id(db), expected)

/* get, get_into and contains all say that `id` holds these bytes. */
static inline void
test_record_is(const char *file, int line, const ourdb *db, uint32_t id, const void *data,
               size_t len)
{
    char what[64];
    ourdb_buf buf;
    uint8_t small[512];
    uint8_t *into = len + 1 <= sizeof small ? small : malloc(len + 1);
    size_t into_len = 0;

    snprintf(what, sizeof what, "ourdb_get(db, %" PRIu32 ")", id);
    TEST_GARBAGE(buf);
    test_code(file, line, what, ourdb_get(db, id, &buf), OURDB_OK);
    test_bytes(file, line, what, buf.data, buf.len, data, len);
    ourdb_free_buf(&buf);
    test_zero(file, line, "the buffer that was freed", &buf, sizeof buf);

    snprintf(what, sizeof what, "ourdb_get_into(db, %" PRIu32 ")", id);
    if (into == NULL) {
        test_fail(file, line, "no memory for the test itself");
    }
    into[len] = 0x5A;
    test_code(file, line, what, ourdb_get_into(db, id, into, len, &into_len), OURDB_OK);
    test_bytes(file, line, what, into, into_len, data, len);
    if (into[len] != 0x5A) {
        test_fail(file, line, "%s wrote beyond the buffer", what);
    }
    if (into != small) {
        free(into);
    }

    snprintf(what, sizeof what, "ourdb_contains(db, %" PRIu32 ")", id);
    test_code(file, line, what, ourdb_contains(db, id), OURDB_OK);
}

/* get, get_into and contains all say that `id` holds no live record. */
static inline void
test_record_absent(const char *file, int line, const ourdb *db, uint32_t id)
{
    char what[64];
    ourdb_buf buf;
    uint8_t into[4] = {1, 2, 3, 4};
    size_t into_len = 77;

    snprintf(what, sizeof what, "ourdb_get(db, %" PRIu32 ")", id);
    TEST_GARBAGE(buf);
    test_code(file, line, what, ourdb_get(db, id, &buf), OURDB_NOT_FOUND);
    test_zero(file, line, "the out parameter of ourdb_get", &buf, sizeof buf);

    snprintf(what, sizeof what, "ourdb_get_into(db, %" PRIu32 ")", id);
    test_code(file, line, what, ourdb_get_into(db, id, into, sizeof into, &into_len),
              OURDB_NOT_FOUND);
    test_number(file, line, "the length from ourdb_get_into", into_len, 0);
    if (into[0] != 1 || into[1] != 2 || into[2] != 3 || into[3] != 4) {
        test_fail(file, line, "%s failed and touched the caller's buffer", what);
    }

    snprintf(what, sizeof what, "ourdb_contains(db, %" PRIu32 ")", id);
    test_code(file, line, what, ourdb_contains(db, id), OURDB_NOT_FOUND);
}

static inline uint64_t
test_count(const ourdb *db)
{
    uint64_t count = 0;

    test_code(__FILE__, __LINE__, "ourdb_count", ourdb_count(db, &count), OURDB_OK);
    return count;
}

static inline uint64_t
test_last_commit(const ourdb *db)
{
    uint64_t commit = 0;

    test_code(__FILE__, __LINE__, "ourdb_last_commit", ourdb_last_commit(db, &commit), OURDB_OK);
    return commit;
}

static inline uint32_t
test_next_id(const ourdb *db)
{
    uint32_t id = 0;

    test_code(__FILE__, __LINE__, "ourdb_next_id", ourdb_next_id(db, &id), OURDB_OK);
    return id;
}

/* ---- transactions, versions, long work ------------------------------------------------------ */

#define BEGIN(db) (test_checks++, test_txn(__FILE__, __LINE__, (db), 0))
#define SNAPSHOT(db) (test_checks++, test_txn(__FILE__, __LINE__, (db), OURDB_TXN_READ_ONLY))
#define BEGIN_AT(db, commit) (test_checks++, test_txn_at(__FILE__, __LINE__, (db), (commit)))
#define CHECK_TXN_VALUE(txn, id, data, len)                                                   \
    (test_checks += 3, test_txn_record_is(__FILE__, __LINE__, (txn), (id), (data), (len)))
#define CHECK_TXN_ABSENT(txn, id)                                                             \
    (test_checks += 2, test_txn_record_absent(__FILE__, __LINE__, (txn), (id)))
#define CHECK_TXN_COUNT(txn, expected) CHECK_NUMBER(test_txn_count(txn), expected)
/* Compacts to the last `versions` versions of each record; 0: to live records only. */
#define COMPACT(db, versions) (test_checks++, test_compact(__FILE__, __LINE__, (db), (versions)))

static inline ourdb_txn *
test_txn(const char *file, int line, ourdb *db, uint32_t flags)
{
    ourdb_txn *txn = NULL;

    test_code(file, line, "ourdb_txn_begin", ourdb_txn_begin(db, flags, &txn), OURDB_OK);
    test_condition(file, line, "txn != NULL", txn != NULL);
    return txn;
}

static inline ourdb_txn *
test_txn_at(const char *file, int line, ourdb *db, uint64_t commit)
{
    ourdb_txn *txn = NULL;

    test_code(file, line, "ourdb_txn_begin_at", ourdb_txn_begin_at(db, commit, &txn), OURDB_OK);
    test_condition(file, line, "txn != NULL", txn != NULL);
    return txn;
}

static inline void
test_txn_record_is(const char *file, int line, const ourdb_txn *txn, uint32_t id, const void *data,
                   size_t len)
{
    char what[64];
    ourdb_buf buf;

    snprintf(what, sizeof what, "ourdb_txn_get(txn, %" PRIu32 ")", id);
    TEST_GARBAGE(buf);
    test_code(file, line, what, ourdb_txn_get(txn, id, &buf), OURDB_OK);
    test_bytes(file, line, what, buf.data, buf.len, data, len);
    ourdb_free_buf(&buf);
    snprintf(what, sizeof what, "ourdb_txn_contains(txn, %" PRIu32 ")", id);
    test_code(file, line, what, ourdb_txn_contains(txn, id), OURDB_OK);
}

static inline void
test_txn_record_absent(const char *file, int line, const ourdb_txn *txn, uint32_t id)
{
    char what[64];
    ourdb_buf buf;

    snprintf(what, sizeof what, "ourdb_txn_get(txn, %" PRIu32 ")", id);
    TEST_GARBAGE(buf);
    test_code(file, line, what, ourdb_txn_get(txn, id, &buf), OURDB_NOT_FOUND);
    test_zero(file, line, "the out parameter of ourdb_txn_get", &buf, sizeof buf);
    snprintf(what, sizeof what, "ourdb_txn_contains(txn, %" PRIu32 ")", id);
    test_code(file, line, what, ourdb_txn_contains(txn, id), OURDB_NOT_FOUND);
}

static inline uint64_t
test_txn_count(const ourdb_txn *txn)
{
    uint64_t count = 0;

    test_code(__FILE__, __LINE__, "ourdb_txn_count", ourdb_txn_count(txn, &count), OURDB_OK);
    return count;
}

static inline ourdb_retention
test_retention(uint64_t versions)
{
    ourdb_retention retention;

    test_code(__FILE__, __LINE__, "ourdb_retention_init",
              ourdb_retention_init(&retention, sizeof retention), OURDB_OK);
    retention.keep_versions = versions;
    return retention;
}

static inline void
test_compact(const char *file, int line, ourdb *db, uint64_t versions)
{
    ourdb_retention retention = test_retention(versions);

    test_code(file, line, "ourdb_compact", ourdb_compact(db, &retention, NULL, NULL), OURDB_OK);
}

static inline ourdb_stats
test_stats(const ourdb *db)
{
    ourdb_stats stats;

    test_code(__FILE__, __LINE__, "ourdb_stats_init", ourdb_stats_init(&stats, sizeof stats),
              OURDB_OK);
    test_code(__FILE__, __LINE__, "ourdb_stats_get", ourdb_stats_get(db, &stats), OURDB_OK);
    return stats;
}

/*
 * A digest of what a database holds: of each live record every version, with its commit and time.
 * Two databases with the same one hold the same.
 */
#define CHECK_SAME(db, other) CHECK_NUMBER(test_contents(db), test_contents(other))

static inline uint64_t
test_contents(const ourdb *db)
{
    uint64_t digest = test_last_commit(db);
    ourdb_iter *iter = NULL;
    ourdb_record record;
    int code;

    test_code(__FILE__, __LINE__, "ourdb_iter_open",
              ourdb_iter_open(db, 0, UINT32_MAX, 0, &iter), OURDB_OK);
    while ((code = ourdb_iter_next(iter, &record)) == OURDB_OK) {
        uint64_t head[3];
        ourdb_records history;
        size_t i;

        test_code(__FILE__, __LINE__, "ourdb_history", ourdb_history(db, record.id, 0, &history),
                  OURDB_OK);
        for (i = 0; i < history.count; i++) {
            const ourdb_record *item = &history.items[i];

            head[0] = (uint64_t)item->id << 32 | item->flags;
            head[1] = item->commit;
            head[2] = item->time_us;
            for (size_t k = 0; k < 3; k++) {
                digest = (digest ^ head[k]) * UINT64_C(0x9E3779B97F4A7C15);
                digest ^= digest >> 29;
            }
            for (size_t k = 0; k < item->len; k++) {
                digest = (digest ^ item->data[k]) * UINT64_C(0x100000001B3);
            }
        }
        ourdb_free_records(&history);
    }
    test_code(__FILE__, __LINE__, "ourdb_iter_next at the end", code, OURDB_NOT_FOUND);
    ourdb_iter_close(iter);
    return digest;
}

/* ---- opening ------------------------------------------------------------------------------- */

/* The ways in which the same engine runs; a theme that must hold in all of them runs in each. */
typedef struct test_variant {
    const char *name;
    uint32_t flags;
    uint32_t lookup;
    uint32_t io;
    uint32_t file_size;
} test_variant;

static const test_variant test_variants[] = {
    {"on disk", 0, OURDB_LOOKUP_MEMORY, OURDB_IO_AUTO, 0},
    {"small data files", 0, OURDB_LOOKUP_MEMORY, OURDB_IO_AUTO, 5000},
    {"lookup on disk", 0, OURDB_LOOKUP_DISK, OURDB_IO_AUTO, 0},
    {"by system calls", 0, OURDB_LOOKUP_MEMORY, OURDB_IO_FILE, 0},
    {"all at once", OURDB_OPEN_NATIVE, OURDB_LOOKUP_DISK, OURDB_IO_FILE, 5000},
    {"in memory", OURDB_OPEN_MEMORY, OURDB_LOOKUP_MEMORY, OURDB_IO_AUTO, 0}
};

#define TEST_VARIANT_COUNT (sizeof test_variants / sizeof test_variants[0])

static inline int
test_on_disk(const test_variant *variant)
{
    return (variant->flags & OURDB_OPEN_MEMORY) == 0;
}

/* Options prepared by ourdb_options_init, then `variant` (may be NULL) and `flags`. */
static inline ourdb_options
test_options(const test_variant *variant, uint32_t flags)
{
    ourdb_options options;

    test_code(__FILE__, __LINE__, "ourdb_options_init",
              ourdb_options_init(&options, sizeof options), OURDB_OK);
    options.flags = flags;
    if (variant != NULL) {
        options.flags |= variant->flags;
        options.lookup = variant->lookup;
        options.io = variant->io;
        options.file_size = variant->file_size;
    }
    return options;
}

#define OPEN(path, options) (test_checks++, test_open(__FILE__, __LINE__, (path), (options)))
#define CHECK_OPEN_FAILS(path, options, code)                                                 \
    (test_checks += 2, test_open_fails(__FILE__, __LINE__, (path), (options), (code)))

static inline ourdb *
test_open(const char *file, int line, const char *path, const ourdb_options *options)
{
    ourdb *db = NULL;

    test_code(file, line, "ourdb_open", ourdb_open(path, options, &db), OURDB_OK);
    if (db == NULL) {
        test_fail(file, line, "ourdb_open gave OURDB_OK and no handle");
    }
    return db;
}

static inline void
test_open_fails(const char *file, int line, const char *path, const ourdb_options *options,
                int code)
{
    ourdb *db = (ourdb *)&db;

    test_code(file, line, "ourdb_open", ourdb_open(path, options, &db), code);
    if (db != NULL) {
        test_fail(file, line, "ourdb_open failed and did not set the handle to NULL");
    }
    if (ourdb_errmsg()[0] == '\0') {
        test_fail(file, line, "ourdb_open failed without a message");
    }
}

/* ---- files --------------------------------------------------------------------------------- */

static inline void
test_join_into(char out[TEST_PATH_MAX], const char *directory, const char *name)
{
    int len = snprintf(out, TEST_PATH_MAX, "%s/%s", directory, name);

    if (len < 0 || len >= TEST_PATH_MAX) {
        test_fail(__FILE__, __LINE__, "path too long: %s/%s", directory, name);
    }
}

/* `directory`/`name`. Good until sixteen more were asked for. */
static inline const char *
test_join(const char *directory, const char *name)
{
    static char paths[16][TEST_PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 16];
    char joined[TEST_PATH_MAX];

    /* `directory` may be one of them. */
    test_join_into(joined, directory, name);
    return strcpy(path, joined);
}

/* `name` in the program's own directory. Good until sixteen more were asked for. */
static inline const char *
test_path(const char *name)
{
    return test_join(test_directory, name);
}

static inline int
test_exists(const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0;
}

/* Length of a file, or -1. */
static inline long long
test_file_len(const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0 ? (long long)status.st_size : -1;
}

static inline void
test_make_directory(const char *path)
{
    if (mkdir(path, 0777) != 0) {
        test_fail(__FILE__, __LINE__, "mkdir %s: %s", path, strerror(errno));
    }
}

/* The bytes of a file, for free(). */
static inline uint8_t *
test_read_file(const char *path, size_t *len)
{
    FILE *file = fopen(path, "rb");
    long long size = test_file_len(path);
    uint8_t *bytes;

    if (file == NULL || size < 0) {
        test_fail(__FILE__, __LINE__, "open %s: %s", path, strerror(errno));
    }
    bytes = malloc((size_t)size + 1);
    if (bytes == NULL || fread(bytes, 1, (size_t)size, file) != (size_t)size) {
        test_fail(__FILE__, __LINE__, "read %s: %s", path, strerror(errno));
    }
    fclose(file);
    *len = (size_t)size;
    return bytes;
}

static inline void
test_write_to(const char *path, const char *mode, const void *data, size_t len)
{
    FILE *file = fopen(path, mode);

    if (file == NULL || fwrite(data, 1, len, file) != len || fclose(file) != 0) {
        test_fail(__FILE__, __LINE__, "write %s: %s", path, strerror(errno));
    }
}

static inline void
test_write_file(const char *path, const void *data, size_t len)
{
    test_write_to(path, "wb", data, len);
}

/* A directory's entries without "." and "..", sorted, for test_free_list(). */
typedef struct test_list {
    char **names;
    size_t count;
} test_list;

static inline int
test_compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static inline test_list
test_list_directory(const char *path)
{
    test_list list = {NULL, 0};
    struct dirent *entry;
    DIR *directory = opendir(path);

    if (directory == NULL) {
        test_fail(__FILE__, __LINE__, "open directory %s: %s", path, strerror(errno));
    }
    while ((entry = readdir(directory)) != NULL) {
        char **names;
        size_t size = strlen(entry->d_name) + 1;

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        names = realloc(list.names, (list.count + 1) * sizeof *names);
        if (names == NULL || (names[list.count] = malloc(size)) == NULL) {
            test_fail(__FILE__, __LINE__, "no memory for the test itself");
        }
        memcpy(names[list.count], entry->d_name, size);
        list.names = names;
        list.count++;
    }
    closedir(directory);
    if (list.count > 0) {
        qsort(list.names, list.count, sizeof *list.names, test_compare_names);
    }
    return list;
}

static inline void
test_free_list(test_list *list)
{
    size_t i;

    for (i = 0; i < list->count; i++) {
        free(list->names[i]);
    }
    free(list->names);
}

/* Whether the name is that of a data file: a decimal number without leading zeros, then ".db". */
static inline int
test_is_data_file(const char *name)
{
    size_t digits = strspn(name, "0123456789");

    return digits > 0 && (digits == 1 || name[0] != '0') && strcmp(name + digits, ".db") == 0;
}

static inline size_t
test_data_files(const char *path)
{
    test_list list = test_list_directory(path);
    size_t count = 0;
    size_t i;

    for (i = 0; i < list.count; i++) {
        count += test_is_data_file(list.names[i]) ? 1 : 0;
    }
    test_free_list(&list);
    return count;
}

static inline uint64_t
test_mix(uint64_t digest, const void *data, size_t len)
{
    const uint8_t *bytes = data;
    size_t i;

    for (i = 0; i < len; i += sizeof(uint64_t)) {
        uint64_t word = 0;

        memcpy(&word, bytes + i, len - i < sizeof word ? len - i : sizeof word);
        digest = (digest ^ word) * UINT64_C(0x9E3779B97F4A7C15);
        digest ^= digest >> 29;
    }
    return (digest ^ len) * UINT64_C(0x9E3779B97F4A7C15);
}

/*
 * A digest of everything below a directory: names, kinds and contents. LOCK is left out, which a
 * reader may make to look whether somebody holds it.
 */
static inline uint64_t
test_digest(const char *path)
{
    test_list list = test_list_directory(path);
    uint64_t digest = 1;
    size_t i;

    for (i = 0; i < list.count; i++) {
        char child[TEST_PATH_MAX];
        struct stat status;

        if (strcmp(list.names[i], "LOCK") == 0) {
            continue;
        }
        test_join_into(child, path, list.names[i]);
        digest = test_mix(digest, list.names[i], strlen(list.names[i]));
        if (lstat(child, &status) != 0) {
            test_fail(__FILE__, __LINE__, "stat %s: %s", child, strerror(errno));
        }
        if (S_ISDIR(status.st_mode)) {
            uint64_t below = test_digest(child);

            digest = test_mix(digest, &below, sizeof below);
        } else {
            size_t len;
            uint8_t *bytes = test_read_file(child, &len);

            digest = test_mix(digest, bytes, len);
            free(bytes);
        }
    }
    test_free_list(&list);
    return digest;
}

/* Removes a file, or a directory with all that is in it. Not there is fine. */
static inline void
test_remove(const char *path)
{
    struct stat status;

    if (lstat(path, &status) != 0) {
        return;
    }
    if (S_ISDIR(status.st_mode)) {
        test_list list = test_list_directory(path);
        size_t i;

        for (i = 0; i < list.count; i++) {
            char child[TEST_PATH_MAX];

            test_join_into(child, path, list.names[i]);
            test_remove(child);
        }
        test_free_list(&list);
    }
    if (remove(path) != 0) {
        test_fail(__FILE__, __LINE__, "remove %s: %s", path, strerror(errno));
    }
}

/* ---- child processes ----------------------------------------------------------------------- */

/* fork(); a check that fails in the child says so and makes test_wait() in the parent fail. */
static inline pid_t
test_fork(void)
{
    pid_t parent = getpid();
    pid_t pid;

    fflush(stdout);
    fflush(stderr);
    pid = fork();
    if (pid < 0) {
        test_fail(__FILE__, __LINE__, "fork: %s", strerror(errno));
    }
    if (pid == 0) {
        test_in_child = 1;
        test_parent = parent;
        alarm(TEST_TIMEOUT_SECONDS);
    }
    return pid;
}

/* The wait status of a child. */
static inline int
test_wait_status(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            test_fail(__FILE__, __LINE__, "waitpid: %s", strerror(errno));
        }
    }
    return status;
}

/* Waits for a child that must end well. */
static inline void
test_wait(pid_t pid)
{
    int status = test_wait_status(pid);

    test_checks++;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        test_fail(__FILE__, __LINE__, "a child process failed (wait status %#x)", (unsigned)status);
    }
}

/* kill -9, for a child that must still be alive to be killed. */
static inline void
test_kill(pid_t pid)
{
    int status;

    if (kill(pid, SIGKILL) != 0) {
        test_fail(__FILE__, __LINE__, "kill: %s", strerror(errno));
    }
    status = test_wait_status(pid);
    test_checks++;
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        test_fail(__FILE__, __LINE__, "a child process ended by itself (wait status %#x)",
                  (unsigned)status);
    }
}

/*
 * For a child that is to be killed: waits for that. Should the parent fail instead, the child ends
 * too, so that no process outlives a failed test.
 */
#if defined(__GNUC__)
__attribute__((noreturn))
#endif
static inline void
test_wait_to_be_killed(void)
{
    while (getppid() == test_parent) {
        struct timespec tick = {0, 10000000};

        nanosleep(&tick, NULL);
    }
    _exit(1);
}

/*
 * A pipe that carries one byte at a time, for processes to wait for each other. A process either
 * signals on it or awaits; when the one that was to signal has ended, the wait ends with a failure.
 */
typedef struct test_pipe {
    int ends[2];
} test_pipe;

static inline test_pipe
test_make_pipe(void)
{
    test_pipe made;

    if (pipe(made.ends) != 0) {
        test_fail(__FILE__, __LINE__, "pipe: %s", strerror(errno));
    }
    return made;
}

static inline void
test_close_end(test_pipe *of, int end)
{
    if (of->ends[end] >= 0) {
        close(of->ends[end]);
        of->ends[end] = -1;
    }
}

static inline void
test_close_pipe(test_pipe *both)
{
    test_close_end(both, 0);
    test_close_end(both, 1);
}

static inline void
test_signal(test_pipe *to)
{
    test_close_end(to, 0);
    if (write(to->ends[1], "!", 1) != 1) {
        test_fail(__FILE__, __LINE__, "write to a pipe: %s", strerror(errno));
    }
}

static inline void
test_await(test_pipe *from)
{
    char byte;

    test_close_end(from, 1);
    if (read(from->ends[0], &byte, 1) != 1) {
        test_fail(__FILE__, __LINE__, "the process that was waited for has ended");
    }
}

/* ---- time ---------------------------------------------------------------------------------- */

/* Wall clock, microseconds since the Unix epoch, as in ourdb_record.time_us. */
static inline uint64_t
test_now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static inline uint64_t
test_monotonic_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static inline void
test_sleep_us(uint64_t microseconds)
{
    struct timespec duration;

    duration.tv_sec = (time_t)(microseconds / 1000000);
    duration.tv_nsec = (long)(microseconds % 1000000) * 1000;
    nanosleep(&duration, NULL);
}

/* ---- begin and end ------------------------------------------------------------------------- */

/* Says where the program hung; only with what a signal handler may call. */
static inline void
test_hung(int signal_number)
{
    const char *parts[4];
    size_t i;

    (void)signal_number;
    parts[0] = test_name;
    parts[1] = ": FAILED: hung in phase \"";
    parts[2] = test_phase_text;
    parts[3] = "\"\n";
    for (i = 0; i < 4; i++) {
        if (write(STDERR_FILENO, parts[i], strlen(parts[i])) < 0) {
            break;
        }
    }
    _exit(1);
}

static inline void
test_begin(const char *name)
{
    const char *base = getenv("TMPDIR");

    test_name = name;
    signal(SIGALRM, test_hung);
    if (base == NULL || base[0] == '\0') {
        base = "/tmp";
    }
    snprintf(test_directory, sizeof test_directory, "%s/ourdb-%s-XXXXXX", base, name);
    if (mkdtemp(test_directory) == NULL) {
        test_fail(__FILE__, __LINE__, "mkdtemp %s: %s", test_directory, strerror(errno));
    }
    alarm(TEST_TIMEOUT_SECONDS);
}

static inline int
test_end(void)
{
    test_remove(test_directory);
    printf("%s: %lu checks passed\n", test_name, test_checks);
    return fflush(stdout) == 0 ? 0 : 1;
}

#endif
