/*
 * The main job, from beginning to end: keep every revision of a text, one record per line.
 *
 *     demo FILE DIRECTORY
 *
 * Stores each line of FILE as a record in the database in DIRECTORY, then a second revision of the
 * text of which only the changed lines are written, deletes some lines, closes, opens again and
 * compares every value of both revisions with the text. The database stays there to be looked at;
 * the next run starts it anew.
 *
 * Each step returns OURDB_OK, or says what failed and returns the code. It says so at once, because
 * ourdb_errmsg() is about this thread's last call. Whatever happened, main() frees everything.
 */
#define _XOPEN_SOURCE 700

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <ourdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* In the second revision every tenth line has this after it. */
#define EDIT_EVERY 10
static const char EDIT[] = " (revised)";

/* Then every hundredth line is deleted. */
#define DELETE_EVERY 100

/* How many records are read with one call when all are compared. */
#define BATCH 256

struct line {
    const char *data;
    size_t len;
};

struct text {
    char *bytes;
    size_t len;
    struct line *lines; /* without their line ends, into bytes */
    size_t count;
    size_t longest; /* length of the longest line in either revision */
    char *edited;   /* where second_revision() builds a line */
};

/* The database, and what is stored in it: line n of the text is the record ids[n]. */
struct store {
    ourdb *db;
    const char *directory;
    struct text text;
    uint32_t *ids;
    char *stored;            /* where a value is read into */
    uint64_t first_revision; /* the commit that completed the first revision */
    size_t deleted;
};

/* ---- reporting ------------------------------------------------------------------------------ */

static int failed(const char *what, int code)
{
    fprintf(stderr, "demo: %s: %s\n", what, ourdb_errmsg());
    return code;
}

/* The same for a failure outside the library. */
static int failed_outside(const char *what)
{
    fprintf(stderr, "demo: %s: %s\n", what, strerror(errno));
    return OURDB_IO;
}

static int not_as_stored(size_t n)
{
    fprintf(stderr, "demo: line %zu is not as it was stored\n", n + 1);
    return OURDB_CORRUPT;
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void print_step(const char *what, size_t records, double start)
{
    double seconds = now() - start;

    printf("  %-28s %9zu  %8.3f s  %10.0f a second\n", what, records, seconds,
           seconds > 0 ? (double)records / seconds : 0.0);
}

/* ---- the text ------------------------------------------------------------------------------- */

static int read_file(const char *name, struct text *text)
{
    FILE *file = fopen(name, "rb");
    long size;

    if (file == NULL)
        return failed_outside(name);
    if (fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) >= 0 &&
        (text->bytes = malloc((size_t)size + 1)) != NULL) {
        rewind(file);
        text->len = fread(text->bytes, 1, (size_t)size, file);
        if (!ferror(file)) {
            fclose(file);
            return OURDB_OK;
        }
    }
    fclose(file);
    return failed_outside(name);
}

static int split_lines(struct text *text)
{
    const char *at = text->bytes, *end = text->bytes + text->len, *stop;
    size_t newlines = 0;

    for (stop = at; stop < end; stop++)
        newlines += *stop == '\n';
    text->lines = malloc((newlines + 1) * sizeof *text->lines);
    if (text->lines == NULL)
        return failed_outside("the lines");
    while (at < end) {
        struct line *line = &text->lines[text->count++];

        stop = memchr(at, '\n', (size_t)(end - at));
        if (stop == NULL)
            stop = end; /* the last line may end without one */
        line->data = at;
        line->len = (size_t)(stop - at);
        if (line->len > text->longest)
            text->longest = line->len;
        at = stop + 1;
    }
    text->longest += strlen(EDIT);
    text->edited = malloc(text->longest);
    return text->edited != NULL ? OURDB_OK : failed_outside("the lines");
}

/* Line n as the second revision has it; valid until the next call. */
static struct line second_revision(struct text *text, size_t n)
{
    struct line line = text->lines[n];

    if ((n + 1) % EDIT_EVERY == 0) {
        memcpy(text->edited, line.data, line.len);
        memcpy(text->edited + line.len, EDIT, strlen(EDIT));
        line.data = text->edited;
        line.len += strlen(EDIT);
    }
    return line;
}

static int is_deleted(size_t n)
{
    return (n + 1) % DELETE_EVERY == 0;
}

static int equal(struct line line, const void *data, size_t len)
{
    return line.len == len && memcmp(line.data, data, len) == 0;
}

static int load_text(struct store *store, const char *name)
{
    struct text *text = &store->text;
    int code = read_file(name, text);

    if (code == OURDB_OK)
        code = split_lines(text);
    if (code != OURDB_OK)
        return code;
    if (text->count == 0 || text->count >= UINT32_MAX || text->longest > INT32_MAX) {
        fprintf(stderr, "demo: %s: no lines, too many lines, or too long a line\n", name);
        return OURDB_INVALID_ARGUMENT;
    }
    store->ids = malloc(text->count * sizeof *store->ids);
    store->stored = malloc(text->longest);
    if (store->ids == NULL || store->stored == NULL)
        return failed_outside("the ids");
    printf("OurDB %s\n%s: %zu lines, %zu bytes\n\n", ourdb_version(), name, text->count, text->len);
    return OURDB_OK;
}

/* ---- the work ------------------------------------------------------------------------------- */

/* Opens an empty database with limits that suit the text. */
static int open_new(struct store *store)
{
    ourdb_options options;
    int code = ourdb_options_init(&options, sizeof options);

    if (code != OURDB_OK)
        return failed("options", code);
    options.flags = OURDB_OPEN_RESET;
    if (store->text.longest > 65535) /* the default */
        options.record_size_max = (uint32_t)store->text.longest;
    if (store->text.count >= 16777215 - 1) /* the default; ids begin with 1 and end below it */
        options.record_nr_max = (uint32_t)store->text.count + 1;
    code = ourdb_open(store->directory, &options, &store->db);
    return code == OURDB_OK ? OURDB_OK : failed("open", code);
}

static int store_first_revision(struct store *store)
{
    double start = now();
    size_t n;
    int code;

    for (n = 0; n < store->text.count; n++) {
        struct line line = store->text.lines[n];

        code = ourdb_insert(store->db, line.data, line.len, &store->ids[n]);
        if (code != OURDB_OK)
            return failed("insert", code);
    }
    print_step("first revision, inserted", store->text.count, start);
    code = ourdb_last_commit(store->db, &store->first_revision);
    return code == OURDB_OK ? OURDB_OK : failed("last commit", code);
}

/* Compares with what is stored, and writes only the lines that have changed. */
static int store_second_revision(struct store *store)
{
    double start = now();
    size_t n, len, changed = 0;
    int code;

    for (n = 0; n < store->text.count; n++) {
        struct line line = second_revision(&store->text, n);

        code = ourdb_get_into(store->db, store->ids[n], store->stored, store->text.longest, &len);
        if (code != OURDB_OK)
            return failed("get", code);
        if (equal(line, store->stored, len))
            continue;
        code = ourdb_set(store->db, store->ids[n], line.data, line.len);
        if (code != OURDB_OK)
            return failed("set", code);
        changed++;
    }
    print_step("second revision, compared", store->text.count, start);
    printf("  %-28s %9zu\n", "changed, hence set", changed);
    return OURDB_OK;
}

static int delete_some(struct store *store)
{
    double start = now();
    size_t n;
    int code;

    for (n = 0; n < store->text.count; n++) {
        if (!is_deleted(n))
            continue;
        code = ourdb_delete(store->db, store->ids[n]);
        if (code != OURDB_OK)
            return failed("delete", code);
        store->deleted++;
    }
    print_step("deleted", store->deleted, start);
    return OURDB_OK;
}

static int close_and_open(struct store *store)
{
    double start = now(), closed;
    int code = ourdb_close(store->db);

    store->db = NULL;
    if (code != OURDB_OK)
        return failed("close", code);
    closed = now();
    code = ourdb_open(store->directory, NULL, &store->db);
    if (code != OURDB_OK)
        return failed("open again", code);
    printf("  %-28s %9s  %8.3f s\n", "closed", "", closed - start);
    printf("  %-28s %9s  %8.3f s\n", "opened again", "", now() - closed);
    return OURDB_OK;
}

/* Compares the records of some lines with the second revision. */
static int verify_batch(struct store *store, size_t first, size_t count)
{
    ourdb_records records;
    size_t i;
    int code = ourdb_get_many(store->db, store->ids + first, count, &records);

    if (code != OURDB_OK)
        return failed("get many", code);
    for (i = 0; i < count && code == OURDB_OK; i++) {
        const ourdb_record *record = &records.items[i];
        int missing = (record->flags & OURDB_RECORD_MISSING) != 0;

        if (missing != is_deleted(first + i) ||
            (!missing &&
             !equal(second_revision(&store->text, first + i), record->data, record->len)))
            code = not_as_stored(first + i);
    }
    ourdb_free_records(&records);
    return code;
}

static int verify_second_revision(struct store *store)
{
    double start = now();
    uint64_t live;
    size_t n;
    int code = ourdb_count(store->db, &live);

    if (code != OURDB_OK)
        return failed("count", code);
    if (live != store->text.count - store->deleted) {
        fprintf(stderr, "demo: %" PRIu64 " records are there\n", live);
        return OURDB_CORRUPT;
    }
    for (n = 0; n < store->text.count; n += BATCH) {
        size_t left = store->text.count - n;

        code = verify_batch(store, n, left < BATCH ? left : BATCH);
        if (code != OURDB_OK)
            return code;
    }
    print_step("second revision, verified", store->text.count, start);
    return OURDB_OK;
}

/* Every line as of the commit that completed the first revision: nothing is ever overwritten. */
static int verify_first_revision(struct store *store)
{
    double start = now();
    size_t n;

    for (n = 0; n < store->text.count; n++) {
        ourdb_buf value;
        int same, code = ourdb_get_version(store->db, store->ids[n], store->first_revision, &value);

        if (code != OURDB_OK)
            return failed("get version", code);
        same = equal(store->text.lines[n], value.data, value.len);
        ourdb_free_buf(&value);
        if (!same)
            return not_as_stored(n);
    }
    print_step("first revision, verified", store->text.count, start);
    return OURDB_OK;
}

/* All versions of one record, each with its commit and time. */
static int show_history(struct store *store, size_t n)
{
    ourdb_records history;
    size_t i;
    int code = ourdb_history(store->db, store->ids[n], 0, &history);

    if (code != OURDB_OK)
        return failed("history", code);
    printf("\nhistory of record %" PRIu32 ", line %zu, newest first\n", store->ids[n], n + 1);
    for (i = 0; i < history.count; i++) {
        const ourdb_record *version = &history.items[i];
        time_t seconds = (time_t)(version->time_us / 1000000);
        char when[32] = "";
        struct tm utc;

        if (gmtime_r(&seconds, &utc) != NULL)
            strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &utc);
        printf("  commit %8" PRIu64 "  %s.%06u UTC  ", version->commit, when,
               (unsigned)(version->time_us % 1000000));
        if (version->flags & OURDB_RECORD_DELETED)
            printf("deleted\n");
        else
            printf("\"%.*s\"\n", version->len < 60 ? (int)version->len : 60,
                   (const char *)version->data);
    }
    ourdb_free_records(&history);
    return OURDB_OK;
}

/* A line in the middle that was revised and then deleted; the last one of a short text. */
static size_t interesting_line(const struct text *text)
{
    size_t line = (text->count / 2 / DELETE_EVERY + 1) * DELETE_EVERY;

    return (line <= text->count ? line : text->count) - 1;
}

static off_t bytes_on_disk;

static int add_size(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)path, (void)where;
    if (type == FTW_F)
        bytes_on_disk += status->st_blocks * 512;
    return 0;
}

static int show_size(struct store *store)
{
    if (nftw(store->directory, add_size, 16, FTW_PHYS) != 0)
        return failed_outside(store->directory);
    printf("\n%s: %.1f MB on disk\n", store->directory, (double)bytes_on_disk / 1e6);
    return OURDB_OK;
}

static int run(struct store *store, const char *file)
{
    int code = load_text(store, file);

    if (code == OURDB_OK) code = open_new(store);
    if (code == OURDB_OK) code = store_first_revision(store);
    if (code == OURDB_OK) code = store_second_revision(store);
    if (code == OURDB_OK) code = delete_some(store);
    if (code == OURDB_OK) code = close_and_open(store);
    if (code == OURDB_OK) code = verify_second_revision(store);
    if (code == OURDB_OK) code = verify_first_revision(store);
    if (code == OURDB_OK) code = show_history(store, interesting_line(&store->text));
    if (code == OURDB_OK) code = show_size(store);
    return code;
}

int main(int argc, char **argv)
{
    struct store store = {0};
    int code, closed;

    if (argc != 3) {
        fprintf(stderr, "usage: demo FILE DIRECTORY\n");
        return EXIT_FAILURE;
    }
    store.directory = argv[2];
    code = run(&store, argv[1]);
    closed = ourdb_close(store.db); /* NULL if it isn't open */
    if (closed != OURDB_OK)
        failed("close", closed);
    free(store.stored);
    free(store.ids);
    free(store.text.edited);
    free(store.text.lines);
    free(store.text.bytes);
    return code == OURDB_OK && closed == OURDB_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
