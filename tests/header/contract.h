/* The C contract: every name, number, type and parameter of the interface, written down a second
 * time. The tests compile this after ourdb.h in every standard of C and C++. A declaration that
 * differs from the header's is an error, and so is an array of -1 elements.
 *
 * What is here is promised to programs that are compiled already: add, never change. */

#include "ourdb.h"

#define SAME(name, number) typedef char same_##name[(name) == (number) ? 1 : -1]

/* Codes. */
SAME(OURDB_OK, 0);
SAME(OURDB_NOT_FOUND, -1);
SAME(OURDB_INVALID_ARGUMENT, -2);
SAME(OURDB_ID_NOT_ASSIGNED, -3);
SAME(OURDB_ID_OUT_OF_RANGE, -4);
SAME(OURDB_RECORD_TOO_LARGE, -5);
SAME(OURDB_FULL, -6);
SAME(OURDB_CONFLICT, -7);
SAME(OURDB_LOCKED, -8);
SAME(OURDB_READ_ONLY, -9);
SAME(OURDB_CORRUPT, -10);
SAME(OURDB_INCOMPATIBLE, -11);
SAME(OURDB_IO, -12);
SAME(OURDB_NO_SPACE, -13);
SAME(OURDB_OUT_OF_MEMORY, -14);
SAME(OURDB_BUSY, -15);
SAME(OURDB_BUFFER_TOO_SMALL, -16);
SAME(OURDB_POISONED, -17);
SAME(OURDB_CANCELLED, -18);
SAME(OURDB_FORKED, -19);
SAME(OURDB_WRONG_MODE, -20);
SAME(OURDB_PANIC, -21);

/* Numbers of the options and of records. */
SAME(OURDB_OPEN_KEY_VALUE, 1);
SAME(OURDB_OPEN_READ_ONLY, 2);
SAME(OURDB_OPEN_MUST_EXIST, 4);
SAME(OURDB_OPEN_RESET, 8);
SAME(OURDB_OPEN_MEMORY, 16);
SAME(OURDB_OPEN_SALVAGE, 32);
SAME(OURDB_OPEN_NATIVE, 64);
SAME(OURDB_OPEN_ADOPT, 128);
SAME(OURDB_LOOKUP_MEMORY, 0);
SAME(OURDB_LOOKUP_DISK, 1);
SAME(OURDB_SYNC_OS, 0);
SAME(OURDB_SYNC_COMMIT, 1);
SAME(OURDB_SYNC_INTERVAL, 2);
SAME(OURDB_IO_AUTO, 0);
SAME(OURDB_IO_MAP, 1);
SAME(OURDB_IO_FILE, 2);
SAME(OURDB_RECORD_DELETED, 1);
SAME(OURDB_RECORD_MISSING, 2);
SAME(OURDB_RECORD_ERASED, 4);
SAME(OURDB_TXN_READ_ONLY, 1);
SAME(OURDB_ITER_REVERSE, 1);
SAME(OURDB_ITER_KEYS, 2);

/* The version; its parts are checked against the library when it runs. */
SAME(OURDB_VERSION_MAJOR, OURDB_VERSION_NUMBER / 1000000);
SAME(OURDB_VERSION_MINOR, OURDB_VERSION_NUMBER / 1000 % 1000);
SAME(OURDB_VERSION_PATCH, OURDB_VERSION_NUMBER % 1000);
SAME(OURDB_VERSION_NUMBER,
     OURDB_VERSION_MAJOR * 1000000 + OURDB_VERSION_MINOR * 1000 + OURDB_VERSION_PATCH);
#if OURDB_VERSION_NUMBER < 1000 || OURDB_OK != 0 || OURDB_PANIC != -21
#error "the preprocessor can't use the macros"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What fields are: a pointer to another type is refused. Where they are is for layout.c. */
void fields(struct ourdb_slice *slice, struct ourdb_buf *buf, struct ourdb_record *record,
            struct ourdb_records *records, struct ourdb_options *options,
            struct ourdb_retention *retention, struct ourdb_stats *stats);
void fields(struct ourdb_slice *slice, struct ourdb_buf *buf, struct ourdb_record *record,
            struct ourdb_records *records, struct ourdb_options *options,
            struct ourdb_retention *retention, struct ourdb_stats *stats)
{
    const uint8_t **caller_bytes = &slice->data;
    uint8_t **library_bytes = &buf->data;
    const uint8_t **record_bytes = &record->data;
    ourdb_record **items = &records->items;
    void **owner = &records->owner;
    size_t *sizes[7];
    uint64_t *numbers[19];
    uint32_t *words[12];
    sizes[0] = &slice->len;
    sizes[1] = &buf->len;
    sizes[2] = &record->len;
    sizes[3] = &records->count;
    sizes[4] = &options->size;
    sizes[5] = &retention->size;
    sizes[6] = &stats->size;
    numbers[0] = &record->commit;
    numbers[1] = &record->time_us;
    numbers[2] = &options->auto_keep_versions;
    numbers[3] = &retention->keep_versions;
    numbers[4] = &retention->keep_since_us;
    numbers[5] = &retention->keep_since_commit;
    numbers[6] = &stats->live;
    numbers[7] = &stats->versions;
    numbers[8] = &stats->deletions;
    numbers[9] = &stats->bytes_live;
    numbers[10] = &stats->bytes_dead;
    numbers[11] = &stats->data_files;
    numbers[12] = &stats->bytes_on_disk;
    numbers[13] = &stats->last_commit;
    numbers[14] = &stats->synced_commit;
    numbers[15] = &stats->oldest_commit;
    numbers[16] = &stats->next_id;
    numbers[17] = &stats->transactions;
    numbers[18] = &stats->last_time_us;
    words[0] = &record->id;
    words[1] = &record->flags;
    words[2] = &options->flags;
    words[3] = &options->record_nr_max;
    words[4] = &options->record_size_max;
    words[5] = &options->file_size;
    words[6] = &options->lookup;
    words[7] = &options->sync;
    words[8] = &options->sync_interval_ms;
    words[9] = &options->io;
    words[10] = &options->auto_compact_percent;
    words[11] = &options->reserved;
    (void)caller_bytes, (void)library_bytes, (void)record_bytes, (void)items, (void)owner;
    (void)sizes, (void)numbers, (void)words;
}

/* Functions. */
const char *ourdb_version(void);
uint32_t    ourdb_version_number(void);
const char *ourdb_strerror(int code);
const char *ourdb_errmsg(void);
int         ourdb_os_error(void);

int ourdb_options_init(ourdb_options *options, size_t size);
int ourdb_open(const char *path, const ourdb_options *options, ourdb **out);
int ourdb_close(ourdb *db);
int ourdb_destroy(ourdb *db);
int ourdb_sync(ourdb *db);

int ourdb_insert(ourdb *db, const void *data, size_t len, uint32_t *out_id);
int ourdb_set(ourdb *db, uint32_t id, const void *data, size_t len);
int ourdb_get(const ourdb *db, uint32_t id, ourdb_buf *out);
int ourdb_get_into(const ourdb *db, uint32_t id, void *buf, size_t cap, size_t *len);
int ourdb_delete(ourdb *db, uint32_t id);
int ourdb_contains(const ourdb *db, uint32_t id);
int ourdb_next_id(const ourdb *db, uint32_t *out_id);
int ourdb_count(const ourdb *db, uint64_t *out);

int ourdb_insert_many(ourdb *db, const ourdb_slice *values, size_t count, uint32_t *out_ids);
int ourdb_set_many(ourdb *db, const uint32_t *ids, const ourdb_slice *values, size_t count);
int ourdb_get_many(const ourdb *db, const uint32_t *ids, size_t count, ourdb_records *out);
int ourdb_delete_many(ourdb *db, const uint32_t *ids, size_t count);

int ourdb_first(const ourdb *db, uint32_t *out_id);
int ourdb_last(const ourdb *db, uint32_t *out_id);
int ourdb_above(const ourdb *db, uint32_t id, uint32_t *out_id);
int ourdb_below(const ourdb *db, uint32_t id, uint32_t *out_id);

int ourdb_history(const ourdb *db, uint32_t id, size_t max, ourdb_records *out);
int ourdb_get_version(const ourdb *db, uint32_t id, uint64_t commit, ourdb_buf *out);
int ourdb_get_at(const ourdb *db, uint32_t id, uint64_t time_us, ourdb_buf *out);
int ourdb_last_commit(const ourdb *db, uint64_t *out);

int ourdb_clear(ourdb *db);
int ourdb_revert(ourdb *db, uint32_t id, uint64_t commit);
int ourdb_revert_all(ourdb *db, uint64_t commit);
int ourdb_erase(ourdb *db, uint32_t id);

int ourdb_txn_begin(ourdb *db, uint32_t flags, ourdb_txn **out);
int ourdb_txn_begin_at(ourdb *db, uint64_t commit, ourdb_txn **out);
int ourdb_txn_commit(ourdb_txn *txn);
void ourdb_txn_abort(ourdb_txn *txn);
int ourdb_txn_insert(ourdb_txn *txn, const void *data, size_t len, uint32_t *out_id);
int ourdb_txn_set(ourdb_txn *txn, uint32_t id, const void *data, size_t len);
int ourdb_txn_get(const ourdb_txn *txn, uint32_t id, ourdb_buf *out);
int ourdb_txn_get_into(const ourdb_txn *txn, uint32_t id, void *buf, size_t cap, size_t *len);
int ourdb_txn_delete(ourdb_txn *txn, uint32_t id);
int ourdb_txn_contains(const ourdb_txn *txn, uint32_t id);
int ourdb_txn_first(const ourdb_txn *txn, uint32_t *out_id);
int ourdb_txn_last(const ourdb_txn *txn, uint32_t *out_id);
int ourdb_txn_above(const ourdb_txn *txn, uint32_t id, uint32_t *out_id);
int ourdb_txn_below(const ourdb_txn *txn, uint32_t id, uint32_t *out_id);
int ourdb_txn_count(const ourdb_txn *txn, uint64_t *out);

int ourdb_iter_open(const ourdb *db, uint32_t lower, uint32_t upper, uint32_t flags,
                    ourdb_iter **out);
int ourdb_txn_iter_open(const ourdb_txn *txn, uint32_t lower, uint32_t upper, uint32_t flags,
                        ourdb_iter **out);
int ourdb_iter_next(ourdb_iter *iter, ourdb_record *out);
int ourdb_iter_next_many(ourdb_iter *iter, size_t max, ourdb_records *out);
int ourdb_iter_next_ids(ourdb_iter *iter, uint32_t *ids, size_t cap, size_t *count);
void ourdb_iter_close(ourdb_iter *iter);

int ourdb_retention_init(ourdb_retention *retention, size_t size);
int ourdb_compact(ourdb *db, const ourdb_retention *retention, ourdb_progress progress,
                  void *context);
int ourdb_backup(const ourdb *db, const char *destination, ourdb_progress progress, void *context);
int ourdb_check(const ourdb *db, int (*progress)(void *context, uint64_t done, uint64_t total),
                void *context);

int ourdb_stats_init(ourdb_stats *stats, size_t size);
int ourdb_stats_get(const ourdb *db, ourdb_stats *out);
int ourdb_refresh(ourdb *db);

int ourdb_changes(const ourdb *db, uint64_t since_commit, size_t max_bytes, ourdb_buf *out,
                  uint64_t *out_commit);
int ourdb_apply(ourdb *db, const void *changes, size_t len);

void ourdb_free_buf(ourdb_buf *buf);
void ourdb_free_records(ourdb_records *records);

#ifdef __cplusplus
}
#endif
