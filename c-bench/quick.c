/*
 * The basic speeds of OurDB, seen from C: `make bench-quick`.
 *
 *     quick [--ids-disk] [RECORDS [ROUNDS [DIRECTORY]]]
 *
 * Each round makes a new database of RECORDS values of 100 bytes with OURDB_SYNC_OS, works on it
 * with one call per operation where nothing else is said, and removes it. The last rows are of 2,000
 * sets with OURDB_SYNC_COMMIT, beside a plain file on the same disk. The table gives median,
 * lowest and highest of the rounds. Every value follows from its id and its revision and is
 * compared in full wherever it is read; the first row says what that alone costs, and the rows that
 * read values include it. --ids-disk adds a clean reopen of 50 times as many records under
 * OURDB_LOOKUP_DISK, which with the default number takes 3 GB of disk.
 */
#define _POSIX_C_SOURCE 200809L
#define PROGRAM "quick"

#include "measure.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

enum {
    VALUE = 100,
    RECORD = 40 + VALUE, /* what stands in a data file */
    BATCH = 100,
    DURABLE_SETS = 2000,
    DURABLE_BATCH = 50,
    COMMITTERS = 8,
    IDS_DISK_FACTOR = 50,
    FILL_BATCH = 10000
};

/* ---- the table ------------------------------------------------------------------------------ */

enum {
    COMPARE,
    INSERT,
    SET_NEW,
    SET_OVERWRITE,
    GET_INTO,
    READERS,
    GET_MANY,
    ABOVE,
    FIRST,
    LAST,
    GET_OVERWRITTEN,
    DELETE,
    CLOSE,
    OPEN,
    OPEN_IDS_DISK,
    EMPTY_MEMORY,
    APPEND_SYNC,
    WRITTEN_SYNC,
    DURABLE,
    DURABLE_OVER_APPEND,
    DURABLE_THREADS,
    ROWS
};

static struct row table[ROWS] = {
    [COMPARE] = {"comparing a value with what it should be", "ns"},
    [INSERT] = {"insert", "ns"},
    [SET_NEW] = {"set, new key-value ids in order", "ns"},
    [SET_OVERWRITE] = {"set, overwriting in random order", "ns"},
    [GET_INTO] = {"get_into, random and independent", "ns"},
    [READERS] = {"get_into, two threads over one", "x"},
    [GET_MANY] = {"get_many, random, 100 a call", "ns"},
    [ABOVE] = {"above, walking a dense table", "ns"},
    [FIRST] = {"first", "ns"},
    [LAST] = {"last", "ns"},
    [GET_OVERWRITTEN] = {"get_into after the overwriting", "ns"},
    [DELETE] = {"delete, in random order", "ns"},
    [CLOSE] = {"close", "ms"},
    [OPEN] = {"open after a clean close", "ms"},
    [OPEN_IDS_DISK] = {"the same, 50 x ids, LOOKUP_DISK", "ms"},
    [EMPTY_MEMORY] = {"memory of an empty database", "MB"},
    [APPEND_SYNC] = {"append and fdatasync of 140 bytes", "us"},
    [WRITTEN_SYNC] = {"the same, into space already written", "us"},
    [DURABLE] = {"set, OURDB_SYNC_COMMIT", "us"},
    [DURABLE_OVER_APPEND] = {"the same, over append and fdatasync", "x"},
    [DURABLE_THREADS] = {"the same, eight threads over one", "x"},
};

/* ---- ids and values -------------------------------------------------------------------------- */

/* The ids first … first + count - 1 in an order given by the seed, each once. */
static uint32_t *shuffled(uint32_t first, uint32_t count, uint64_t seed)
{
    uint32_t *ids = allocate(count, sizeof *ids), i;

    for (i = 0; i < count; i++)
        ids[i] = first + i;
    for (i = count; i > 1; i--) {
        uint32_t other = (uint32_t)(mix(seed + i) % i), id = ids[i - 1];

        ids[i - 1] = ids[other];
        ids[other] = id;
    }
    return ids;
}

/* A value is a word that is a function of id and revision, over and over. So every byte can be
   checked in a few instructions: reads wait for memory side by side as far as the processor's window
   reaches, and a long check between them would be measured as the store's time. */
static uint64_t value_word(uint32_t id, uint32_t revision)
{
    return mix((uint64_t)revision << 32 | id);
}

static void make_value(uint32_t id, uint32_t revision, uint8_t value[VALUE])
{
    uint64_t word = value_word(id, revision);
    size_t place;

    for (place = 0; place < VALUE; place += 8)
        memcpy(value + place, &word, VALUE - place < 8 ? VALUE - place : 8);
}

static int is_value(const uint8_t *value, size_t len, uint32_t id, uint32_t revision)
{
    uint64_t word = value_word(id, revision);

    return len == VALUE && memcmp(value, &word, 8) == 0 && memcmp(value, value + 8, VALUE - 8) == 0;
}

/* ---- the parts of a round ------------------------------------------------------------------- */

static ourdb *open_new(const char *directory, uint32_t flags, uint32_t ids, uint32_t lookup)
{
    ourdb_options options;
    ourdb *db;

    ok(ourdb_options_init(&options, sizeof options), "options_init");
    options.flags = OURDB_OPEN_RESET | flags;
    if (ids >= 16777215) /* the default */
        options.record_nr_max = ids + 1;
    options.lookup = lookup;
    ok(ourdb_open(directory, &options, &db), "open, new");
    return db;
}

/* What the checks add to every row in which a value is read, or made. */
static void compare_only(uint32_t records)
{
    uint8_t values[BATCH][VALUE];
    double start;
    uint32_t i;

    for (i = 0; i < BATCH; i++)
        make_value(i, 0, values[i]);
    start = now();
    for (i = 0; i < records; i++)
        expect(is_value(values[i % BATCH], VALUE, i % BATCH, 0), "value in memory");
    sample(&table[COMPARE], (now() - start) / records);
}

static void insert_all(ourdb *db, uint32_t records)
{
    double start = now();
    uint8_t value[VALUE];
    uint32_t i, id;

    for (i = 1; i <= records; i++) {
        make_value(i, 0, value);
        ok(ourdb_insert(db, value, VALUE, &id), "insert");
        expect(id == i, "id of an insert");
    }
    sample(&table[INSERT], (now() - start) / records);
}

/* Sets every id once. */
static void set_all(ourdb *db, int row, const uint32_t *ids, uint32_t records,
                    uint32_t revision)
{
    double start = now();
    uint8_t value[VALUE];
    uint32_t i;

    for (i = 0; i < records; i++) {
        make_value(ids[i], revision, value);
        ok(ourdb_set(db, ids[i], value, VALUE), "set");
    }
    sample(&table[row], (now() - start) / records);
}

struct reader {
    const ourdb *db;
    const uint32_t *ids;
    uint32_t records;
    uint32_t revision;
};

static void *get_all(void *argument)
{
    const struct reader *reader = argument;
    uint8_t value[VALUE];
    uint32_t i;
    size_t len;

    for (i = 0; i < reader->records; i++) {
        ok(ourdb_get_into(reader->db, reader->ids[i], value, VALUE, &len), "get_into");
        expect(is_value(value, len, reader->ids[i], reader->revision), "value of get_into");
    }
    return NULL;
}

/* One thread, then two at once that each do as much, in different orders. The first pass, which is
   not timed, maps the pages, so that neither measurement pays for it. */
static void get_one_and_two(const ourdb *db, uint32_t records, uint64_t seed)
{
    struct reader readers[2];
    pthread_t thread;
    double start, one, two;
    uint32_t *orders[2];
    int i;

    for (i = 0; i < 2; i++) {
        orders[i] = shuffled(1, records, seed + (uint64_t)i);
        readers[i] = (struct reader){db, orders[i], records, 0};
    }
    get_all(&readers[1]);

    start = now();
    get_all(&readers[0]);
    one = now() - start;
    sample(&table[GET_INTO], one / records);

    start = now();
    expect(pthread_create(&thread, NULL, get_all, &readers[1]) == 0, "pthread_create");
    get_all(&readers[0]);
    expect(pthread_join(thread, NULL) == 0, "pthread_join");
    two = now() - start;
    sample(&table[READERS], 2 * one / two);
    free(orders[0]);
    free(orders[1]);
}

/* The newest values lie in the order in which they were written, not in that of their ids. */
static void get_overwritten(const ourdb *db, uint32_t records, uint64_t seed)
{
    uint32_t *ids = shuffled(1, records, seed);
    struct reader reader = {db, ids, records, 1};
    double start;

    get_all(&reader);
    start = now();
    get_all(&reader);
    sample(&table[GET_OVERWRITTEN], (now() - start) / records);
    free(ids);
}

static void get_batches(const ourdb *db, const uint32_t *ids, uint32_t records)
{
    double start = now();
    uint32_t first, i;

    for (first = 0; first < records; first += BATCH) {
        uint32_t count = records - first < BATCH ? records - first : BATCH;
        ourdb_records batch;

        ok(ourdb_get_many(db, ids + first, count, &batch), "get_many");
        expect(batch.count == count, "count of get_many");
        for (i = 0; i < count; i++)
            expect(batch.items[i].id == ids[first + i] &&
                       is_value(batch.items[i].data, batch.items[i].len, ids[first + i], 0),
                   "value of get_many");
        ourdb_free_records(&batch);
    }
    sample(&table[GET_MANY], (now() - start) / records);
}

static void walk(const ourdb *db, uint32_t records)
{
    double start = now();
    uint32_t id = 0, expected;

    for (expected = 1; expected <= records; expected++) {
        ok(ourdb_above(db, id, &id), "above");
        expect(id == expected, "id of above");
    }
    sample(&table[ABOVE], (now() - start) / records);
    expect(ourdb_above(db, id, &id) == OURDB_NOT_FOUND, "above the last");
}

static void ends(const ourdb *db, uint32_t records)
{
    double start = now();
    uint32_t i, id;

    for (i = 0; i < records; i++) {
        ok(ourdb_first(db, &id), "first");
        expect(id == 1, "id of first");
    }
    sample(&table[FIRST], (now() - start) / records);
    start = now();
    for (i = 0; i < records; i++) {
        ok(ourdb_last(db, &id), "last");
        expect(id == records, "id of last");
    }
    sample(&table[LAST], (now() - start) / records);
}

static ourdb *reopen(ourdb *db, const char *directory, uint32_t records)
{
    double start = now();
    uint64_t count;

    ok(ourdb_close(db), "close");
    sample(&table[CLOSE], (now() - start) / 1e6);
    start = now();
    ok(ourdb_open(directory, NULL, &db), "open");
    sample(&table[OPEN], (now() - start) / 1e6);
    ok(ourdb_count(db, &count), "count");
    expect(count == records, "count after open");
    return db;
}

static void delete_all(ourdb *db, const uint32_t *ids, uint32_t records)
{
    double start = now();
    uint64_t count;
    uint32_t i;

    for (i = 0; i < records; i++)
        ok(ourdb_delete(db, ids[i]), "delete");
    sample(&table[DELETE], (now() - start) / records);
    ok(ourdb_count(db, &count), "count");
    expect(count == 0, "count after deleting all");
}

/* ---- the rounds ----------------------------------------------------------------------------- */

static void incremental_round(const char *directory, uint32_t records, uint64_t seed)
{
    ourdb *db = open_new(directory, 0, records, OURDB_LOOKUP_MEMORY);
    uint32_t *ids = shuffled(1, records, seed);
    struct reader reader;

    insert_all(db, records);
    get_one_and_two(db, records, seed + 1);
    get_batches(db, ids, records);
    walk(db, records);
    ends(db, records);
    set_all(db, SET_OVERWRITE, ids, records, 1);
    get_overwritten(db, records, seed + 3);
    db = reopen(db, directory, records);
    reader = (struct reader){db, ids, records, 1};
    get_all(&reader); /* everything is there */
    delete_all(db, ids, records);
    ok(ourdb_destroy(db), "destroy");
    free(ids);
}

static void key_value_round(const char *directory, uint32_t records)
{
    ourdb *db = open_new(directory, OURDB_OPEN_KEY_VALUE, records, OURDB_LOOKUP_MEMORY);
    uint32_t *ids = allocate(records, sizeof *ids), i;
    struct reader reader;

    for (i = 0; i < records; i++)
        ids[i] = i;
    set_all(db, SET_NEW, ids, records, 0);
    reader = (struct reader){db, ids, records, 0};
    get_all(&reader);
    ok(ourdb_destroy(db), "destroy");
    free(ids);
}

/* Many small records, each holding its own id, under a lookup on disk. */
static void ids_disk(const char *directory, uint32_t records, int rounds)
{
    ourdb *db = open_new(directory, OURDB_OPEN_NATIVE, records, OURDB_LOOKUP_DISK);
    ourdb_slice *values = allocate(FILL_BATCH, sizeof *values);
    uint32_t *contents = allocate(FILL_BATCH, sizeof *contents);
    uint32_t *ids = allocate(FILL_BATCH, sizeof *ids);
    ourdb_options options;
    uint64_t count;
    uint32_t done, i;
    size_t len;

    for (done = 0; done < records; done += (uint32_t)count) {
        count = records - done < FILL_BATCH ? records - done : FILL_BATCH;
        for (i = 0; i < count; i++) {
            contents[i] = done + i + 1;
            values[i] = (ourdb_slice){(const uint8_t *)&contents[i], sizeof *contents};
        }
        ok(ourdb_insert_many(db, values, count, ids), "insert_many");
        expect(memcmp(ids, contents, count * sizeof *ids) == 0, "ids of insert_many");
    }
    free(values);
    free(contents);
    free(ids);

    ok(ourdb_options_init(&options, sizeof options), "options_init");
    options.lookup = OURDB_LOOKUP_DISK;
    while (rounds-- > 0) {
        double start;

        ok(ourdb_close(db), "close");
        start = now();
        ok(ourdb_open(directory, &options, &db), "open, ids on disk");
        sample(&table[OPEN_IDS_DISK], (now() - start) / 1e6);
        ok(ourdb_count(db, &count), "count");
        expect(count == records, "count after open, ids on disk");
        for (i = 0; i < 1000; i++) {
            uint32_t id = (uint32_t)(mix(i) % records) + 1, content;

            ok(ourdb_get_into(db, id, &content, sizeof content, &len), "get_into");
            expect(len == sizeof content && content == id, "value, ids on disk");
        }
    }
    ok(ourdb_destroy(db), "destroy");
}

/* A file beside the database, for what the disk alone costs. */
struct raw {
    char path[4096];
    int descriptor;
    off_t end;
};

static void open_raw(struct raw *raw, const char *directory, const char *suffix, size_t written)
{
    static const uint8_t zeros[65536];

    expect((size_t)snprintf(raw->path, sizeof raw->path, "%s.%s", directory, suffix) <
               sizeof raw->path,
           "a shorter path");
    raw->descriptor = open(raw->path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    expect(raw->descriptor >= 0, "a file for comparison");
    raw->end = 0;
    for (; written > 0; written -= sizeof zeros)
        expect(write(raw->descriptor, zeros, sizeof zeros) == sizeof zeros, "write");
    expect(fdatasync(raw->descriptor) == 0, "fdatasync");
}

/* What one durable set must write at least, and the sync; microseconds for all. */
static double append_raw(struct raw *raw, uint32_t count)
{
    uint8_t record[RECORD] = {1};
    double start = now();

    while (count-- > 0) {
        expect(pwrite(raw->descriptor, record, RECORD, raw->end) == RECORD, "pwrite");
        raw->end += RECORD;
        expect(fdatasync(raw->descriptor) == 0, "fdatasync");
    }
    return (now() - start) / 1e3;
}

static void close_raw(const struct raw *raw)
{
    expect(close(raw->descriptor) == 0 && unlink(raw->path) == 0, "removing a file");
}

static double set_durably(ourdb *db, uint32_t first, uint32_t count)
{
    uint8_t value[VALUE];
    double start = now();
    uint32_t i;

    for (i = 0; i < count; i++) {
        make_value(first + i, 0, value);
        ok(ourdb_set(db, first + i, value, VALUE), "durable set");
    }
    return (now() - start) / 1e3;
}

struct committer {
    ourdb *db;
    uint32_t first;
};

static void *commit_all(void *argument)
{
    const struct committer *committer = argument;

    set_durably(committer->db, committer->first, DURABLE_SETS / COMMITTERS);
    return NULL;
}

static double set_by_threads(ourdb *db)
{
    struct committer committers[COMMITTERS];
    pthread_t threads[COMMITTERS];
    double start = now();
    uint32_t i;

    for (i = 0; i < COMMITTERS; i++) {
        committers[i] = (struct committer){db, i * DURABLE_SETS};
        expect(pthread_create(&threads[i], NULL, commit_all, &committers[i]) == 0,
               "pthread_create");
    }
    for (i = 0; i < COMMITTERS; i++)
        expect(pthread_join(threads[i], NULL) == 0, "pthread_join");
    return (now() - start) / 1e3;
}

/* In short turns, because what a disk does changes from one moment to the next. */
static void durable_round(const char *directory)
{
    struct raw append, written;
    double one = 0, appended = 0, over_written = 0;
    ourdb_options options;
    uint32_t done;
    ourdb *db;

    ok(ourdb_options_init(&options, sizeof options), "options_init");
    options.flags = OURDB_OPEN_RESET | OURDB_OPEN_KEY_VALUE;
    options.sync = OURDB_SYNC_COMMIT;
    ok(ourdb_open(directory, &options, &db), "open, durable");
    open_raw(&append, directory, "append", 0);
    open_raw(&written, directory, "written", 16 * 65536);
    set_durably(db, 0, 1);
    for (done = 0; done < DURABLE_SETS; done += DURABLE_BATCH) {
        appended += append_raw(&append, DURABLE_BATCH);
        one += set_durably(db, done, DURABLE_BATCH);
        over_written += append_raw(&written, DURABLE_BATCH);
    }
    sample(&table[APPEND_SYNC], appended / DURABLE_SETS);
    sample(&table[WRITTEN_SYNC], over_written / DURABLE_SETS);
    sample(&table[DURABLE], one / DURABLE_SETS);
    sample(&table[DURABLE_OVER_APPEND], one / appended);
    sample(&table[DURABLE_THREADS], one / set_by_threads(db));
    close_raw(&append);
    close_raw(&written);
    ok(ourdb_destroy(db), "destroy");
}

static double resident_mb(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    long pages = 0;

    expect(file != NULL && fscanf(file, "%*s %ld", &pages) == 1, "/proc/self/statm");
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

/* Once, before anything else has touched memory. */
static void empty_memory(const char *directory)
{
    double before = resident_mb();
    ourdb *db = open_new(directory, 0, 0, OURDB_LOOKUP_MEMORY);

    sample(&table[EMPTY_MEMORY], resident_mb() - before);
    ok(ourdb_destroy(db), "destroy");
}

int main(int argc, char **argv)
{
    int with_ids_disk = argc > 1 && strcmp(argv[1], "--ids-disk") == 0, round;
    char **arguments = argv + 1 + with_ids_disk;
    int given = argc - 1 - with_ids_disk;
    uint32_t records = given > 0 ? number(arguments[0], 80000000) : 1000000;
    int rounds = given > 1 ? (int)number(arguments[1], MAX_ROUNDS) : 5;
    const char *directory = given > 2 ? arguments[2] : "bench.db";
    struct utsname system;

    if (given > 3) {
        fprintf(stderr, "usage: quick [--ids-disk] [RECORDS [ROUNDS [DIRECTORY]]]\n");
        return EXIT_FAILURE;
    }
    uname(&system);
    printf("OurDB %s: %" PRIu32 " records of %d bytes, OURDB_SYNC_OS, %d rounds; %s %s, %ld "
           "processors\n\n",
           ourdb_version(), records, VALUE, rounds, system.sysname, system.machine,
           sysconf(_SC_NPROCESSORS_ONLN));

    empty_memory(directory);
    for (round = 0; round < rounds; round++) {
        compare_only(records);
        incremental_round(directory, records, (uint64_t)round << 40);
        key_value_round(directory, records);
        durable_round(directory);
    }
    if (with_ids_disk)
        ids_disk(directory, records * IDS_DISK_FACTOR, rounds);
    print_table(table, ROWS);
    return EXIT_SUCCESS;
}
