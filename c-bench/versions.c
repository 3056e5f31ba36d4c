/*
 * What OurDB does with many records and versions, seen from C: `make bench-versions`.
 *
 *     versions [RECORDS [ROUNDS [DIRECTORY]]]
 *
 * Each round makes new databases of RECORDS records with OURDB_SYNC_OS, works on them and removes
 * them. The table gives median, lowest and highest of the rounds.
 *
 * Compactions are of RECORDS values of 20 bytes, each written twice, while one thread, and then two,
 * set random ids as fast as they can; the longest of these calls counts: all of it, and without what
 * Linux counts as lost meanwhile, to hundredths of a second: the thread could run and had no processor,
 * or the host of a virtual machine let one of its processors stand still. The first rows show how
 * long that is at most: the longest time between two looks at the clock of two threads that do nothing
 * else, for as long as the compaction beside two writers took, and what of it isn't counted as lost.
 * The next ones are of the same calls for as long without a compaction.
 * Scans are over RECORDS values of 100 bytes, stored in the order of their ids, all of
 * which are looked at. A check is compared with reading the same files with read(2): while they are
 * in memory, and then from the disk, which takes that they were written and the kernel gave up its
 * copies. The host of a virtual machine may still have its own, for both.
 */
#define _POSIX_C_SOURCE 200809L
#define PROGRAM "versions"

#include "measure.h"

#include <ctype.h>
#include <dirent.h>
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
    SMALL = 20,
    VALUE = 100,
    FILL_BATCH = 10000,
    SMALL_COMMIT = 100000,
    LARGE_COMMIT = 1000000,
    SNAPSHOTS = 100000,
    SCAN_BATCH = 1000,
    LOOK_EVERY = 1000000, /* nanoseconds */
    MAX_PROCESSORS = 64,
    READ_AT_ONCE = 1 << 20,
    MAX_WRITERS = 2
};

/* ---- the table ------------------------------------------------------------------------------ */

enum {
    PAUSE,
    NET_PAUSE,
    WAIT_ALONE,
    NET_ALONE,
    WAIT_ONE,
    NET_ONE,
    WAIT_TWO,
    NET_TWO,
    COMPACT_ALONE,
    COMPACT_ONE,
    COMPACT_TWO,
    KEYS_UP,
    KEYS_DOWN,
    KEYS_MANY,
    KEYS_IDS,
    NEXT_UP,
    NEXT_DOWN,
    MANY_UP,
    MANY_DOWN,
    COMMIT_SMALL,
    COMMIT_LARGE,
    SNAPSHOT,
    CHECK,
    READ,
    CHECK_OVER_READ,
    DISK_CHECK,
    DISK_READ,
    DISK_CHECK_OVER_READ,
    ROWS
};

static struct row table[ROWS] = {
    [PAUSE] = {"longest pause of the machine itself", "ms"},
    [NET_PAUSE] = {"  but for time lost to the machine", "ms"},
    [WAIT_ALONE] = {"longest set, no compaction", "ms"},
    [NET_ALONE] = {"  but for time lost to the machine", "ms"},
    [WAIT_ONE] = {"longest set while compacting", "ms"},
    [NET_ONE] = {"  but for time lost to the machine", "ms"},
    [WAIT_TWO] = {"the same, two writers", "ms"},
    [NET_TWO] = {"  but for time lost to the machine", "ms"},
    [COMPACT_ALONE] = {"compaction, nobody writes", "ms"},
    [COMPACT_ONE] = {"compaction beside one writer", "ms"},
    [COMPACT_TWO] = {"compaction beside two writers", "ms"},
    [KEYS_UP] = {"scan of ids, next, upwards", "M/s"},
    [KEYS_DOWN] = {"scan of ids, next, downwards", "M/s"},
    [KEYS_MANY] = {"scan of ids, next_many, upwards", "M/s"},
    [KEYS_IDS] = {"scan of ids, next_ids, upwards", "M/s"},
    [NEXT_UP] = {"scan, next, upwards", "M/s"},
    [NEXT_DOWN] = {"scan, next, downwards", "M/s"},
    [MANY_UP] = {"scan, next_many, upwards", "M/s"},
    [MANY_DOWN] = {"scan, next_many, downwards", "M/s"},
    [COMMIT_SMALL] = {"commit of 100,000 records, each", "ns"},
    [COMMIT_LARGE] = {"commit of 1,000,000 records, each", "ns"},
    [SNAPSHOT] = {"opening and closing a snapshot", "ns"},
    [CHECK] = {"check", "MB/s"},
    [READ] = {"reading the same files", "MB/s"},
    [CHECK_OVER_READ] = {"check over reading", "x"},
    [DISK_CHECK] = {"check, from the disk", "MB/s"},
    [DISK_READ] = {"reading the same files, from the disk", "MB/s"},
    [DISK_CHECK_OVER_READ] = {"check over reading, from the disk", "x"},
};

/* ---- databases ------------------------------------------------------------------------------ */

static ourdb *open_new(const char *directory, uint32_t records)
{
    ourdb_options options;
    ourdb *db;

    ok(ourdb_options_init(&options, sizeof options), "options_init");
    options.flags = OURDB_OPEN_RESET | OURDB_OPEN_KEY_VALUE;
    if (records >= 16777215) /* the default */
        options.record_nr_max = records;
    ok(ourdb_open(directory, &options, &db), "open, new");
    return db;
}

/* Sets ids 0 … records - 1 to values of so many bytes, which begin with the id. */
static void fill(ourdb *db, uint32_t records, size_t len)
{
    uint8_t *values = allocate(FILL_BATCH, len);
    ourdb_slice *slices = allocate(FILL_BATCH, sizeof *slices);
    uint32_t *ids = allocate(FILL_BATCH, sizeof *ids), done, count, i;

    for (done = 0; done < records; done += count) {
        count = records - done < FILL_BATCH ? records - done : FILL_BATCH;
        for (i = 0; i < count; i++) {
            ids[i] = done + i;
            memcpy(values + i * len, &ids[i], sizeof ids[i]);
            slices[i] = (ourdb_slice){values + i * len, len};
        }
        ok(ourdb_set_many(db, ids, slices, count), "set_many");
    }
    free(values);
    free(slices);
    free(ids);
}

/* ---- compaction beside writers -------------------------------------------------------------- */

/* Sets ids at random; without a database it only looks at the clock. */
struct writer {
    ourdb *db;
    pthread_t thread;
    uint32_t records;
    uint64_t seed;
    const volatile int *stop;
    double longest; /* nanoseconds */
    double longest_net;
    uint64_t turns;
};

/* The time so far, in nanoseconds, that a thread could not be helped by anybody: in which it waited for
   a processor, and in which the host of a virtual machine let each of its processors stand still. */
struct lost {
    double queued;
    double stolen[MAX_PROCESSORS];
};

static void look_at_file(const char *path, char *text, size_t size)
{
    int file = open(path, O_RDONLY);
    ssize_t len = file < 0 ? 0 : pread(file, text, size - 1, 0);

    text[len < 0 ? 0 : len] = '\0';
    if (file >= 0)
        close(file);
}

/* What nothing tells of is 0. */
static struct lost time_lost(void)
{
    static const double TICK = 1e9 / 100; /* USER_HZ */
    struct lost lost = {0};
    unsigned long long number;
    char text[4096];
    const char *line;
    int processor;

    look_at_file("/proc/thread-self/schedstat", text, sizeof text);
    if (sscanf(text, "%*u %llu", &number) == 1)
        lost.queued = (double)number;
    look_at_file("/proc/stat", text, sizeof text);
    for (line = strchr(text, '\n'); line != NULL; line = strchr(line, '\n')) {
        line++;
        if (sscanf(line, "cpu%d %*u %*u %*u %*u %*u %*u %*u %llu", &processor, &number) == 2 &&
            processor >= 0 && processor < MAX_PROCESSORS)
            lost.stolen[processor] = (double)number * TICK;
    }
    return lost;
}

/* How much of the time between two looks was lost at least: a thread that waits for another one waits
   for that one's processor, too. What may have been the same time counts once. */
static double lost_between(const struct lost *before, const struct lost *after)
{
    double lost = after->queued - before->queued;
    int i;

    for (i = 0; i < MAX_PROCESSORS; i++) {
        double stolen = after->stolen[i] - before->stolen[i];

        lost = stolen > lost ? stolen : lost;
    }
    return lost;
}

static void *write_on(void *argument)
{
    struct writer *writer = argument;
    uint8_t value[SMALL] = {0};
    struct lost last = time_lost();
    double before = now(), looked = before;

    while (!*writer->stop) {
        uint32_t id = (uint32_t)(mix(writer->seed + writer->turns++) % writer->records);
        double after, took;

        memcpy(value, &id, sizeof id);
        if (writer->db != NULL)
            ok(ourdb_set(writer->db, id, value, SMALL), "set");
        after = now();
        took = after - before;
        if (took > writer->longest)
            writer->longest = took;
        /* Not after each one: to look takes longer than to set. */
        if (took > writer->longest_net || after - looked > LOOK_EVERY) {
            struct lost present = time_lost();
            double net = took - lost_between(&last, &present);

            if (net > writer->longest_net)
                writer->longest_net = net;
            last = present;
            looked = after = now();
        }
        before = after;
    }
    return NULL;
}

static void sleep_ns(double duration)
{
    struct timespec time;

    time.tv_sec = (time_t)(duration / 1e9);
    time.tv_nsec = (long)(duration - (double)time.tv_sec * 1e9);
    nanosleep(&time, NULL);
}

/* Compacts beside so many writers, or, given a duration, only lets them write for so long; how long
   it took, in nanoseconds. The longest set goes into the rows `wait` and `net`. */
static double beside_writers(ourdb *db, uint32_t records, int count, uint64_t seed,
                             double only_for, int wait, int net)
{
    double longest = 0, longest_net = 0;
    struct writer writers[MAX_WRITERS];
    volatile int stop = 0;
    double start, took;
    int i;

    for (i = 0; i < count; i++) {
        writers[i] = (struct writer){
            .db = db, .records = records, .seed = seed + ((uint64_t)i << 32), .stop = &stop};
        expect(pthread_create(&writers[i].thread, NULL, write_on, &writers[i]) == 0,
               "pthread_create");
    }
    start = now();
    if (only_for > 0) {
        sleep_ns(only_for);
    } else {
        ourdb_retention retention;

        ok(ourdb_retention_init(&retention, sizeof retention), "retention_init");
        ok(ourdb_compact(db, &retention, NULL, NULL), "compact");
    }
    took = now() - start;
    stop = 1;
    for (i = 0; i < count; i++) {
        expect(pthread_join(writers[i].thread, NULL) == 0, "pthread_join");
        expect(writers[i].turns > 0, "a writer that writes");
        if (writers[i].longest > longest)
            longest = writers[i].longest;
        if (writers[i].longest_net > longest_net)
            longest_net = writers[i].longest_net;
    }
    if (count > 0) {
        sample(&table[wait], longest / 1e6);
        sample(&table[net], longest_net / 1e6);
    }
    return took;
}

static void compactions(const char *directory, uint32_t records, uint64_t seed)
{
    static const int WAIT[] = {WAIT_ALONE, WAIT_ONE, WAIT_TWO};
    static const int NET[] = {NET_ALONE, NET_ONE, NET_TWO};
    static const int COMPACT[] = {COMPACT_ALONE, COMPACT_ONE, COMPACT_TWO};
    ourdb *db = open_new(directory, records);
    double took = 0;
    int writers;

    fill(db, records, SMALL);
    for (writers = 0; writers <= MAX_WRITERS; writers++) {
        fill(db, records, SMALL);
        took = beside_writers(db, records, writers, seed, 0, WAIT[writers], NET[writers]);
        sample(&table[COMPACT[writers]], took / 1e6);
    }
    beside_writers(db, records, 1, seed, took, WAIT_ALONE, NET_ALONE);
    ok(ourdb_destroy(db), "destroy");
    beside_writers(NULL, records, MAX_WRITERS, seed, took, PAUSE, NET_PAUSE);
}

/* ---- scans ---------------------------------------------------------------------------------- */

static void check_record(const ourdb_record *record, uint32_t id, uint32_t flags)
{
    uint32_t content;

    expect(record->id == id, "id of a scan");
    if (flags & OURDB_ITER_KEYS)
        return;
    expect(record->len == VALUE, "length of a scan");
    memcpy(&content, record->data, sizeof content);
    expect(content == id, "value of a scan");
}

static void scan(const ourdb *db, uint32_t records, uint32_t flags, int row)
{
    double start = now();
    ourdb_iter *iter;
    ourdb_record record;
    uint32_t seen;

    ok(ourdb_iter_open(db, 0, UINT32_MAX, flags, &iter), "iter_open");
    for (seen = 0; ourdb_iter_next(iter, &record) == OURDB_OK; seen++)
        check_record(&record, flags & OURDB_ITER_REVERSE ? records - 1 - seen : seen, flags);
    expect(seen == records, "records of a scan");
    ourdb_iter_close(iter);
    sample(&table[row], records / (now() - start) * 1e3);
}

static void scan_many(const ourdb *db, uint32_t records, uint32_t flags, int row)
{
    double start = now();
    uint32_t seen = 0;
    ourdb_iter *iter;
    ourdb_records block;
    size_t i;

    ok(ourdb_iter_open(db, 0, UINT32_MAX, flags, &iter), "iter_open");
    while (ourdb_iter_next_many(iter, SCAN_BATCH, &block) == OURDB_OK) {
        for (i = 0; i < block.count; i++, seen++)
            check_record(&block.items[i], flags & OURDB_ITER_REVERSE ? records - 1 - seen : seen,
                         flags);
        ourdb_free_records(&block);
    }
    expect(seen == records, "records of a scan in blocks");
    ourdb_iter_close(iter);
    sample(&table[row], records / (now() - start) * 1e3);
}

static void scan_ids(const ourdb *db, uint32_t records, int row)
{
    double start = now();
    uint32_t seen = 0;
    uint32_t ids[SCAN_BATCH];
    ourdb_iter *iter;
    size_t count;
    size_t i;

    ok(ourdb_iter_open(db, 0, UINT32_MAX, OURDB_ITER_KEYS, &iter), "iter_open");
    while (ourdb_iter_next_ids(iter, ids, SCAN_BATCH, &count) == OURDB_OK) {
        for (i = 0; i < count; i++, seen++)
            expect(ids[i] == seen, "id of a scan");
    }
    expect(seen == records, "ids of a scan");
    ourdb_iter_close(iter);
    sample(&table[row], records / (now() - start) * 1e3);
}

static void snapshots(ourdb *db)
{
    double start = now();
    ourdb_txn *snapshot;
    int i;

    for (i = 0; i < SNAPSHOTS; i++) {
        ok(ourdb_txn_begin(db, OURDB_TXN_READ_ONLY, &snapshot), "txn_begin");
        ourdb_txn_abort(snapshot);
    }
    sample(&table[SNAPSHOT], (now() - start) / SNAPSHOTS);
}

/* ---- check ---------------------------------------------------------------------------------- */

/* Calls f with a descriptor of each data file; the sum of what it returns. */
static double each_file(const char *directory, double (*f)(int descriptor))
{
    DIR *listing = opendir(directory);
    struct dirent *entry;
    double sum = 0;

    expect(listing != NULL, "opendir");
    while ((entry = readdir(listing)) != NULL) {
        const char *suffix = strrchr(entry->d_name, '.');
        char path[4096];
        int descriptor;

        if (!isdigit((unsigned char)entry->d_name[0]) || suffix == NULL ||
            strcmp(suffix, ".db") != 0)
            continue;
        expect((size_t)snprintf(path, sizeof path, "%s/%s", directory, entry->d_name) <
                   sizeof path,
               "a shorter path");
        descriptor = open(path, O_RDONLY);
        expect(descriptor >= 0, "open of a data file");
        sum += f(descriptor);
        expect(close(descriptor) == 0, "close of a data file");
    }
    closedir(listing);
    return sum;
}

/* The bytes of a file, all read. */
static double read_file(int descriptor)
{
    static uint8_t buffer[READ_AT_ONCE];
    double bytes = 0;
    ssize_t got;

    while ((got = read(descriptor, buffer, sizeof buffer)) > 0)
        bytes += (double)got;
    expect(got == 0, "read of a data file");
    return bytes;
}

/* Has the kernel give up what it holds of a file in memory. */
static double evict_file(int descriptor)
{
    expect(fsync(descriptor) == 0, "fsync of a data file");
    expect(posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) == 0, "posix_fadvise");
    return 0;
}

/* Nanoseconds of a check. */
static double check(const ourdb *db)
{
    double start = now();

    ok(ourdb_check(db, NULL, NULL), "check");
    return now() - start;
}

/* Reads all data files, and adds to three rows, of which this is the first. */
static void read_beside(const char *directory, double check, int row)
{
    double start = now(), bytes = each_file(directory, read_file), reading = now() - start;

    sample(&table[row], bytes / check * 1e3);
    sample(&table[row + 1], bytes / reading * 1e3);
    sample(&table[row + 2], reading / check);
}

/* Closes the database, whose files are mapped and would stay in memory. */
static void checks(ourdb *db, const char *directory)
{
    double from_disk;

    each_file(directory, read_file);
    read_beside(directory, check(db), CHECK);
    ok(ourdb_close(db), "close");
    each_file(directory, evict_file);
    each_file(directory, read_file); /* what a host keeps it has for both now */
    each_file(directory, evict_file);
    ok(ourdb_open(directory, NULL, &db), "open");
    from_disk = check(db);
    ok(ourdb_close(db), "close");
    each_file(directory, evict_file);
    read_beside(directory, from_disk, DISK_CHECK);
}

static void scans(const char *directory, uint32_t records)
{
    ourdb *db = open_new(directory, records);

    fill(db, records, VALUE);
    scan(db, records, OURDB_ITER_KEYS, KEYS_UP);
    scan(db, records, OURDB_ITER_KEYS | OURDB_ITER_REVERSE, KEYS_DOWN);
    scan_many(db, records, OURDB_ITER_KEYS, KEYS_MANY);
    scan_ids(db, records, KEYS_IDS);
    scan_many(db, records, 0, MANY_UP);
    scan_many(db, records, OURDB_ITER_REVERSE, MANY_DOWN);
    scan(db, records, 0, NEXT_UP);
    scan(db, records, OURDB_ITER_REVERSE, NEXT_DOWN);
    snapshots(db);
    checks(db, directory);
}

/* ---- transactions --------------------------------------------------------------------------- */

static void commit(const char *directory, uint32_t records, int row)
{
    ourdb *db = open_new(directory, records);
    uint8_t value[VALUE] = {0};
    ourdb_txn *txn;
    double start;
    uint32_t id;

    ok(ourdb_txn_begin(db, 0, &txn), "txn_begin");
    for (id = 0; id < records; id++) {
        memcpy(value, &id, sizeof id);
        ok(ourdb_txn_set(txn, id, value, VALUE), "txn_set");
    }
    start = now();
    ok(ourdb_txn_commit(txn), "txn_commit");
    sample(&table[row], (now() - start) / records);
    ok(ourdb_destroy(db), "destroy");
}

int main(int argc, char **argv)
{
    uint32_t records = argc > 1 ? number(argv[1], 80000000) : 1000000;
    int rounds = argc > 2 ? (int)number(argv[2], MAX_ROUNDS) : 5, round;
    const char *directory = argc > 3 ? argv[3] : "bench.db";
    struct utsname system;

    if (argc > 4) {
        fprintf(stderr, "usage: versions [RECORDS [ROUNDS [DIRECTORY]]]\n");
        return EXIT_FAILURE;
    }
    uname(&system);
    printf("OurDB %s: %" PRIu32 " records, OURDB_SYNC_OS, %d rounds; %s %s, %ld processors\n\n",
           ourdb_version(), records, rounds, system.sysname, system.machine,
           sysconf(_SC_NPROCESSORS_ONLN));

    for (round = 0; round < rounds; round++) {
        compactions(directory, records, (uint64_t)round << 40);
        scans(directory, records);
        commit(directory, SMALL_COMMIT, COMMIT_SMALL);
        commit(directory, LARGE_COMMIT, COMMIT_LARGE);
    }
    print_table(table, ROWS);
    return EXIT_SUCCESS;
}
