/*
 * herolib: directories of the original, in both directions.
 *
 * Promise: a directory written by herolib's OurDB (V or Go) opens with every value, every history
 * and the next id, in every lookup width, incremental or key-value, with updates over several
 * files, deletions, empty and 65,535-byte values; writing goes on in files of our own and leaves
 * the old ones byte for byte; after a clean close herolib reads the directory again; what herolib
 * wrote in between is noticed; a directory without a lookup dump is never taken for an empty
 * database, and is rescued with OURDB_OPEN_ADOPT where that is possible.
 *
 * The writer and the reader below do what herolib does, from its bytes:
 *
 *   N.db                a byte 0, then records; a new file when size >= file_size before a set
 *   record              u16 LE size | u32 LE CRC32 of the data | u16 BE file and u32 BE position of
 *                       the version before (zero: none) | data
 *   lookup_dump.db/data u32 LE id, then the location in 2, 3 or 4 bytes (BE position) or in 6 (BE
 *                       file, BE position); ascending
 *   lookup_dump.db/.inc the next id in decimal; incremental mode only
 */
#include "harness.h"

/* ---- what must be read back ---------------------------------------------------------------- */

typedef struct version {
    uint8_t *data;
    size_t len;
    uint64_t commit; /* 0: herolib's */
    int deleted;     /* by us: a version; herolib's deletions leave none */
} version;

typedef struct record {
    uint32_t id;
    uint16_t file;     /* herolib's location of the newest version, */
    uint32_t position; /* 0 and 0 when it has none */
    version *versions; /* oldest first */
    size_t count;
    int forgotten; /* versions of ours that herolib's dump knows nothing of: they may be gone */
} record;

/* A directory as herolib has it open, and everything that it holds. */
typedef struct hero {
    char path[TEST_PATH_MAX];
    unsigned width;
    int incremental;
    uint32_t record_nr_max;
    uint32_t record_size_max;
    uint32_t file_size;
    uint16_t file; /* the one that is written to */
    uint32_t next_id;
    record *records; /* ascending */
    size_t count;
} hero;

static record *
find(hero *in, uint32_t id)
{
    size_t i;

    for (i = 0; i < in->count; i++) {
        if (in->records[i].id == id) {
            return &in->records[i];
        }
    }
    return NULL;
}

static record *
find_or_add(hero *in, uint32_t id)
{
    record *found = find(in, id);
    size_t i;

    if (found != NULL) {
        return found;
    }
    in->records = realloc(in->records, (in->count + 1) * sizeof *in->records);
    CHECK(in->records != NULL);
    for (i = in->count; i > 0 && in->records[i - 1].id > id; i--) {
        in->records[i] = in->records[i - 1];
    }
    in->count++;
    memset(&in->records[i], 0, sizeof in->records[i]);
    in->records[i].id = id;
    return &in->records[i];
}

static void
remember(record *of, const void *data, size_t len, uint64_t commit, int deleted)
{
    version *added;

    of->versions = realloc(of->versions, (of->count + 1) * sizeof *of->versions);
    CHECK(of->versions != NULL);
    added = &of->versions[of->count++];
    added->data = malloc(len + 1);
    CHECK(added->data != NULL);
    if (len > 0) {
        memcpy(added->data, data, len);
    }
    added->len = len;
    added->commit = commit;
    added->deleted = deleted;
}

static void
forget(record *of)
{
    size_t i;

    for (i = 0; i < of->count; i++) {
        of->forgotten |= of->versions[i].commit != 0;
        free(of->versions[i].data);
    }
    free(of->versions);
    of->versions = NULL;
    of->count = 0;
}

static void
free_hero(hero *of)
{
    size_t i;

    for (i = 0; i < of->count; i++) {
        forget(&of->records[i]);
    }
    free(of->records);
}

static const version *
newest(const record *of)
{
    return of->count == 0 || of->versions[of->count - 1].deleted ? NULL
                                                                 : &of->versions[of->count - 1];
}

/* ---- herolib's bytes ----------------------------------------------------------------------- */

static uint32_t
crc32_of(const uint8_t *data, size_t len)
{
    static uint32_t table[256];
    uint32_t crc = UINT32_MAX;
    size_t i;
    int bit;

    if (table[1] == 0) {
        for (i = 0; i < 256; i++) {
            table[i] = (uint32_t)i;
            for (bit = 0; bit < 8; bit++) {
                table[i] = table[i] >> 1 ^ (table[i] & 1 ? UINT32_C(0xEDB88320) : 0);
            }
        }
    }
    for (i = 0; i < len; i++) {
        crc = table[(crc ^ data[i]) & 255] ^ crc >> 8;
    }
    return ~crc;
}

/* The width in bytes of a location in the lookup; the product wraps, as it does in V. */
static unsigned
width_of(uint32_t record_nr_max, uint32_t record_size_max)
{
    uint32_t product = record_nr_max * record_size_max;

    if (product / 2 > 10000000) {
        return 6;
    }
    return record_nr_max < 65536 ? 2 : record_nr_max < 16777216 ? 3 : 4;
}

#define HEADER 12

static void
put_header(uint8_t out[HEADER], const void *data, size_t len, uint16_t file, uint32_t position)
{
    uint32_t crc = crc32_of(data, len);

    out[0] = (uint8_t)len;
    out[1] = (uint8_t)(len >> 8);
    out[2] = (uint8_t)crc;
    out[3] = (uint8_t)(crc >> 8);
    out[4] = (uint8_t)(crc >> 16);
    out[5] = (uint8_t)(crc >> 24);
    out[6] = (uint8_t)(file >> 8);
    out[7] = (uint8_t)file;
    out[8] = (uint8_t)(position >> 24);
    out[9] = (uint8_t)(position >> 16);
    out[10] = (uint8_t)(position >> 8);
    out[11] = (uint8_t)position;
}

/* The path of data file `number`. Good until sixteen more paths were asked for. */
static const char *
data_file(const hero *of, unsigned number)
{
    char name[16];

    snprintf(name, sizeof name, "%u.db", number);
    return test_join(of->path, name);
}

/* ---- herolib's writer ---------------------------------------------------------------------- */

/* herolib's set: appends to the current file, or to a new one when that is long enough. */
static void
hero_set(hero *to, uint32_t id, const void *data, size_t len)
{
    record *at = find_or_add(to, id);
    uint8_t header[HEADER];
    long long position = test_file_len(data_file(to, to->file));

    CHECK(len <= 65535);
    if (position >= (long long)to->file_size) {
        to->file++;
        position = -1;
    }
    if (position < 0) {
        test_write_file(data_file(to, to->file), "", 1);
        position = 1;
    }
    put_header(header, data, len, at->file, at->position);
    test_write_to(data_file(to, to->file), "ab", header, sizeof header);
    test_write_to(data_file(to, to->file), "ab", data, len);
    CHECK(to->width == 6 || to->file == 0);
    CHECK(to->width > 2 || position < 65536);
    at->file = to->file;
    at->position = (uint32_t)position;
    remember(at, data, len, 0, 0);
    if (to->incremental && id >= to->next_id) {
        CHECK_NUMBER(id, to->next_id);
        to->next_id++;
    }
}

/* herolib's delete: zeroes the newest version where it lies, and forgets the location. */
static void
hero_delete(hero *in, uint32_t id)
{
    record *at = find(in, id);
    size_t file_len;
    uint8_t *bytes;
    size_t len;

    CHECK(at != NULL && at->position != 0);
    bytes = test_read_file(data_file(in, at->file), &file_len);
    len = bytes[at->position] + (size_t)bytes[at->position + 1] * 256;
    CHECK(at->position + HEADER + len <= file_len);
    memset(bytes + at->position, 0, HEADER + len);
    test_write_file(data_file(in, at->file), bytes, file_len);
    free(bytes);
    at->file = 0;
    at->position = 0;
    forget(at);
}

/* herolib's close: writes the lookup dump. */
static void
hero_close(const hero *of)
{
    uint8_t *dump = malloc(of->count * 10 + 1);
    size_t len = 0;
    size_t i;
    unsigned k;

    CHECK(dump != NULL);
    for (i = 0; i < of->count; i++) {
        const record *at = &of->records[i];

        if (at->position == 0) {
            continue;
        }
        for (k = 0; k < 4; k++) {
            dump[len++] = (uint8_t)(at->id >> k * 8);
        }
        if (of->width == 6) {
            dump[len++] = (uint8_t)(at->file >> 8);
            dump[len++] = (uint8_t)at->file;
        }
        for (k = of->width == 6 ? 4 : of->width; k-- > 0;) {
            dump[len++] = (uint8_t)(at->position >> k * 8);
        }
    }
    test_remove(test_join(of->path, "lookup_dump.db"));
    test_make_directory(test_join(of->path, "lookup_dump.db"));
    test_write_file(test_join(of->path, "lookup_dump.db/data"), dump, len);
    if (of->incremental) {
        char text[16];

        snprintf(text, sizeof text, "%" PRIu32, of->next_id);
        test_write_file(test_join(of->path, "lookup_dump.db/.inc"), text, strlen(text));
    }
    free(dump);
}

/* ---- herolib's reader ---------------------------------------------------------------------- */

/* Reads the lookup dump as herolib's open does, into the locations of `into`. */
static void
hero_open(hero *into)
{
    size_t len;
    size_t i;
    unsigned k;
    uint32_t previous = 0;
    uint8_t *dump = test_read_file(test_join(into->path, "lookup_dump.db/data"), &len);

    CHECK(len % (4 + into->width) == 0);
    for (i = 0; i < into->count; i++) {
        into->records[i].file = 0;
        into->records[i].position = 0;
    }
    for (i = 0; i < len; i += 4 + into->width) {
        const uint8_t *entry = dump + i;
        uint32_t id = entry[0] | (uint32_t)entry[1] << 8 | (uint32_t)entry[2] << 16
                      | (uint32_t)entry[3] << 24;
        uint16_t file = 0;
        uint32_t position = 0;
        record *at;

        for (k = 0; k < into->width; k++) {
            if (into->width == 6 && k < 2) {
                file = (uint16_t)(file << 8 | entry[4 + k]);
            } else {
                position = position << 8 | entry[4 + k];
            }
        }
        CHECK(i == 0 || id > previous);
        /* Its import in incremental mode takes the ids one after the other, and nothing else. */
        CHECK(!into->incremental || id == (i == 0 ? 1 : previous + 1));
        CHECK(id < into->record_nr_max);
        previous = id;
        at = find(into, id);
        if (position != 0) {
            CHECK(at != NULL && newest(at) != NULL);
            at->file = file;
            at->position = position;
        } else {
            CHECK(at == NULL || newest(at) == NULL);
        }
    }
    free(dump);
    for (i = 0; i < into->count; i++) { /* nothing live was left out */
        CHECK((newest(&into->records[i]) != NULL) == (into->records[i].position != 0));
    }
    if (into->incremental) {
        char text[16] = "";
        uint8_t *inc = test_read_file(test_join(into->path, "lookup_dump.db/.inc"), &len);

        CHECK(len > 0 && len < sizeof text);
        memcpy(text, inc, len);
        CHECK(strspn(text, "0123456789") == len);
        CHECK_NUMBER(strtoul(text, NULL, 10), into->next_id);
        free(inc);
    } else {
        CHECK(!test_exists(test_join(into->path, "lookup_dump.db/.inc")));
    }
}

/* Every value and history as herolib reads them: from the location, back along the chain. */
static void
hero_check(const hero *in)
{
    size_t i;
    size_t k;

    for (i = 0; i < in->count; i++) {
        const record *at = &in->records[i];
        unsigned file = at->file;
        uint32_t position = at->position;

        for (k = at->count; position != 0; k--) {
            const version *expected;
            size_t file_len;
            uint8_t *bytes = test_read_file(data_file(in, file), &file_len);
            const uint8_t *header = bytes + position;
            size_t len;

            CHECK(k > 0);
            expected = &at->versions[k - 1];
            CHECK(position + HEADER <= file_len);
            len = header[0] + (size_t)header[1] * 256;
            CHECK(position + HEADER + len <= file_len);
            CHECK_BYTES(header + HEADER, len, expected->data,
                        expected->deleted ? 0 : expected->len);
            CHECK_NUMBER(header[2] | (uint32_t)header[3] << 8 | (uint32_t)header[4] << 16
                             | (uint32_t)header[5] << 24,
                         crc32_of(header + HEADER, len));
            file = (unsigned)header[6] << 8 | header[7];
            position = (uint32_t)header[8] << 24 | (uint32_t)header[9] << 16
                       | (uint32_t)header[10] << 8 | header[11];
            free(bytes);
        }
        CHECK(at->position == 0 || k == 0);
    }
}

/* ---- the old files ------------------------------------------------------------------------- */

#define FILES_MAX 40

/* The bytes of a directory's data files, to see later that nobody changed them. */
typedef struct originals {
    unsigned count;
    uint8_t *bytes[FILES_MAX];
    size_t lens[FILES_MAX];
} originals;

static originals
keep_originals(const hero *of)
{
    originals kept;

    kept.count = 0;
    while (test_exists(data_file(of, kept.count))) {
        CHECK(kept.count < FILES_MAX);
        kept.bytes[kept.count] = test_read_file(data_file(of, kept.count), &kept.lens[kept.count]);
        kept.count++;
    }
    return kept;
}

static void
check_originals(const hero *of, const originals *kept)
{
    unsigned i;

    for (i = 0; i < kept->count; i++) {
        size_t len;
        uint8_t *bytes = test_read_file(data_file(of, i), &len);

        CHECK_BYTES(bytes, len, kept->bytes[i], kept->lens[i]);
        free(bytes);
    }
}

static void
free_originals(originals *kept)
{
    unsigned i;

    for (i = 0; i < kept->count; i++) {
        free(kept->bytes[i]);
    }
}

/* ---- through OurDB ------------------------------------------------------------------------- */

static ourdb_options
options_for(const hero *of, uint32_t flags)
{
    ourdb_options options = test_options(NULL, flags);

    if (!of->incremental) {
        options.flags |= OURDB_OPEN_KEY_VALUE;
    }
    options.record_nr_max = of->record_nr_max;
    options.record_size_max = of->record_size_max;
    options.file_size = of->file_size;
    return options;
}

/* The database holds exactly what it must. */
static void
check_all(const ourdb *db, const hero *expected)
{
    ourdb_records records;
    uint32_t walked = 0;
    uint64_t live = 0;
    size_t i;
    size_t k;

    for (i = 0; i < expected->count; i++) {
        const record *at = &expected->records[i];
        const version *now = newest(at);

        if (now != NULL) {
            CHECK_VALUE(db, at->id, now->data, now->len);
            CHECK_OK(live == 0 ? ourdb_first(db, &walked) : ourdb_above(db, walked, &walked));
            CHECK_NUMBER(walked, at->id);
            live++;
        } else {
            CHECK_ABSENT(db, at->id);
        }
        if (at->count == 0 && at->forgotten) {
            continue;
        }
        if (at->count == 0) {
            CHECK_CODE(ourdb_history(db, at->id, 0, &records), OURDB_NOT_FOUND);
            continue;
        }
        CHECK_OK(ourdb_history(db, at->id, 0, &records));
        CHECK_NUMBER(records.count, at->count);
        for (k = 0; k < at->count; k++) {
            const ourdb_record *item = &records.items[k];
            const version *was = &at->versions[at->count - 1 - k];

            CHECK_NUMBER(item->id, at->id);
            CHECK_NUMBER(item->commit, was->commit);
            CHECK((item->time_us == 0) == (was->commit == 0));
            CHECK_NUMBER(item->flags, was->deleted ? OURDB_RECORD_DELETED : 0);
            if (!was->deleted) {
                CHECK_BYTES(item->data, item->len, was->data, was->len);
            }
        }
        ourdb_free_records(&records);
    }
    CHECK_COUNT(db, live);
    CHECK_CODE(live == 0 ? ourdb_first(db, &walked) : ourdb_above(db, walked, &walked),
               OURDB_NOT_FOUND);
    if (expected->incremental) {
        CHECK_NEXT_ID(db, expected->next_id);
    } else {
        CHECK_CODE(ourdb_next_id(db, &walked), OURDB_WRONG_MODE);
    }
}

static void
our_set(ourdb *db, hero *expected, uint32_t id, const void *data, size_t len)
{
    CHECK_OK(ourdb_set(db, id, data, len));
    remember(find_or_add(expected, id), data, len, test_last_commit(db), 0);
}

static void
our_insert(ourdb *db, hero *expected, const void *data, size_t len)
{
    uint32_t id;

    CHECK_OK(ourdb_insert(db, data, len, &id));
    CHECK_NUMBER(id, expected->next_id);
    expected->next_id++;
    remember(find_or_add(expected, id), data, len, test_last_commit(db), 0);
}

static void
our_delete(ourdb *db, hero *expected, uint32_t id)
{
    CHECK_OK(ourdb_delete(db, id));
    remember(find(expected, id), "", 0, test_last_commit(db), 1);
}

/* A live id, the `n`th. */
static uint32_t
live_id(const hero *in, unsigned n)
{
    size_t i;

    for (i = 0; i < in->count; i++) {
        if (newest(&in->records[i]) != NULL && n-- == 0) {
            return in->records[i].id;
        }
    }
    test_fail(__FILE__, __LINE__, "the test has too few live records");
}

/* Writes of every kind. */
static void
write_on(ourdb *db, hero *expected)
{
    uint32_t first = live_id(expected, 0);
    uint32_t second = live_id(expected, 1);
    uint32_t third = live_id(expected, 2);

    our_set(db, expected, first, "ours", 4);
    our_set(db, expected, first, "ours again", 10);
    our_set(db, expected, second, "", 0);
    our_delete(db, expected, third);
    if (expected->incremental) {
        our_insert(db, expected, "inserted by us", 14);
        our_insert(db, expected, "", 0);
        CHECK_CODE(ourdb_set(db, third, "x", 1), OURDB_ID_NOT_ASSIGNED);
    } else {
        our_set(db, expected, third, "back again", 10);
        our_set(db, expected, expected->record_nr_max - 2, "set by us", 9);
    }
}

/* ---- the directories ----------------------------------------------------------------------- */

/* Settings for each lookup width. */
typedef struct setting {
    unsigned width;
    uint32_t record_nr_max;
    uint32_t record_size_max;
} setting;

static const setting settings[] = {
    {2, 1000, 1024}, {3, 100000, 100}, {4, 16777216, 256}, {6, 16777215, 4096}, {6, 20000, 65535}
};
#define SETTING_COUNT (sizeof settings / sizeof settings[0])

static hero
new_hero(const char *name, const setting *with, int incremental, uint32_t file_size)
{
    hero made;

    memset(&made, 0, sizeof made);
    test_join_into(made.path, test_directory, name);
    made.width = with->width;
    made.incremental = incremental;
    made.record_nr_max = with->record_nr_max;
    made.record_size_max = with->record_size_max;
    made.file_size = file_size;
    made.next_id = 1;
    return made;
}

/*
 * What a herolib program may have left: updates, empty values, and a 65,535-byte value last, where
 * its position still fits every width. Several data files where the width has file numbers.
 */
static void
fill(hero *to, int deletions)
{
    static uint8_t large[65535];
    uint8_t value[TEST_VALUE_MAX] = {0};
    uint32_t ids[24];
    uint32_t i;
    uint32_t round;
    /* All ids fit a database with default limits too: that is what unknown settings become. */
    uint32_t end = to->record_nr_max < 16777215 ? to->record_nr_max : 16777215;

    for (i = 0; i < 24; i++) {
        ids[i] = to->incremental ? i + 1 : i < 20 ? i * 37 : end - 24 + i;
    }
    CHECK(mkdir(to->path, 0777) == 0);
    for (i = 0; i < 24; i++) {
        size_t len = test_value(ids[i], 1, value);

        /* Beginning with an empty value is for directories that keep a dump: without it, zeros. */
        hero_set(to, ids[i], value, len == 0 && !deletions ? 5 : len);
    }
    for (round = 2; round < 8; round++) {
        for (i = round; i < 24; i += round) {
            hero_set(to, ids[i], value, test_value(ids[i], round, value));
        }
    }
    if (deletions) {
        hero_set(to, ids[3], "", 0);
        hero_delete(to, ids[5]);
        hero_delete(to, ids[20]);
        if (!to->incremental) {
            hero_delete(to, ids[6]);
            hero_set(to, ids[6], "reborn", 6);
        }
    }
    hero_set(to, ids[9], "", 0);
    hero_set(to, ids[10], "short before long", 17);
    test_fill(large, sizeof large, to->width);
    hero_set(to, ids[10], large, sizeof large);
    if (to->width != 2) {
        hero_set(to, ids[11], large + 1, sizeof large - 1);
        hero_set(to, ids[12], "after the long ones", 19);
    }
}

/* The bytes of HEROLIB's own example: the writer here is the writer there. */
static void
the_writer_itself(void)
{
    static const uint8_t expected[] = {
        0x00, 0x05, 0x00, 0x86, 0xA6, 0x10, 0x36, 0, 0, 0, 0, 0, 0, 'h', 'e', 'l', 'l', 'o',
        0x06, 0x00, 0xE8, 0x98, 0x84, 0x71, 0,    0, 0, 0, 0, 1, 'w', 'o', 'r', 'l', 'd', '!'
    };
    hero writer = new_hero("example", &settings[0], 1, 1000);
    size_t len;
    uint8_t *bytes;

    test_phase("the herolib writer of this test");
    CHECK(mkdir(writer.path, 0777) == 0);
    hero_set(&writer, 1, "hello", 5);
    hero_set(&writer, 1, "world!", 6);
    hero_close(&writer);
    bytes = test_read_file(data_file(&writer, 0), &len);
    CHECK_BYTES(bytes, len, expected, sizeof expected);
    free(bytes);
    bytes = test_read_file(test_join(writer.path, "lookup_dump.db/data"), &len);
    CHECK_BYTES(bytes, len, "\1\0\0\0\0\22", 6);
    free(bytes);
    CHECK_NUMBER(width_of(1000, 1024), 2);
    CHECK_NUMBER(width_of(100000, 100), 3);
    CHECK_NUMBER(width_of(65536, 65536), 3);
    CHECK_NUMBER(width_of(16777216, 256), 4);
    CHECK_NUMBER(width_of(16777215, 4096), 6);
    hero_open(&writer);
    hero_check(&writer);
    test_remove(writer.path);
    free_hero(&writer);
}

/* Opened with the settings that herolib had, or with none: the width is found either way. */
static void
opens(const setting *with, int incremental, int settings_known)
{
    const char *mode = incremental ? "incremental" : "key-value";
    const char *known = settings_known ? "given" : "unknown";
    hero was = new_hero("opens", with, incremental, with->width == 6 ? 1500 : 500000000);
    ourdb_options options = settings_known ? options_for(&was, 0) : test_options(NULL, 0);
    ourdb_options reading = options;
    originals kept;
    uint64_t digest;
    ourdb *db = NULL;
    int code;
    int round;

    test_phase("width %u, %s, settings %s", with->width, mode, known);
    fill(&was, 1);
    hero_close(&was);
    kept = keep_originals(&was);
    CHECK(with->width != 6 || kept.count > 5);

    /* Read-only before it was adopted: right or refused, and no byte changes. */
    digest = test_digest(was.path);
    reading.flags |= OURDB_OPEN_READ_ONLY;
    code = ourdb_open(was.path, &reading, &db);
    if (code == OURDB_OK) {
        check_all(db, &was);
        CHECK_OK(ourdb_close(db));
    } else {
        CHECK_CODE(code, OURDB_INCOMPATIBLE);
        CHECK(db == NULL);
    }
    CHECK(test_digest(was.path) == digest);

    if (incremental) {
        ourdb_options clash = options;

        clash.flags |= OURDB_OPEN_KEY_VALUE;
        CHECK_OPEN_FAILS(was.path, &clash, OURDB_INCOMPATIBLE);
        check_originals(&was, &kept);
    }

    for (round = 0; round < 2; round++) {
        test_phase("width %u, %s, settings %s, open %d", with->width, mode, known, round);
        db = OPEN(was.path, &options);
        check_all(db, &was);
        CHECK(round > 0 || test_last_commit(db) == 0);
        write_on(db, &was);
        check_all(db, &was);
        CHECK_OK(ourdb_close(db));
        check_originals(&was, &kept);
    }
    db = OPEN(was.path, &reading);
    check_all(db, &was);
    CHECK_OK(ourdb_close(db));

    test_phase("width %u, %s, settings %s, back to herolib", with->width, mode, known);
    if (!settings_known) {
        /* The default limits are stored now, and herolib is to be run with those. */
        was.width = width_of(16777215, 65535);
        was.record_nr_max = 16777215;
        CHECK_NUMBER(was.width, 6);
    }
    if (was.width == 6) {
        hero_open(&was);
        hero_check(&was);
    } else {
        /* Positions in our files have no place in the narrow widths. */
        CHECK(!test_exists(test_join(was.path, "lookup_dump.db/data")));
    }
    db = OPEN(was.path, NULL);
    check_all(db, &was);
    CHECK_OK(ourdb_destroy(db));
    CHECK(!test_exists(was.path));
    free_originals(&kept);
    free_hero(&was);
}

/* A value of the past, of records that herolib began. */
static void
as_of_a_commit(void)
{
    hero was = new_hero("as-of", &settings[3], 1, 1500);
    ourdb_buf buf;
    uint8_t value[TEST_VALUE_MAX];
    const version *before;
    ourdb *db;

    test_phase("as of a commit, over versions of herolib's");
    fill(&was, 1);
    hero_close(&was);
    db = OPEN(was.path, NULL);
    before = newest(find(&was, 2));
    CHECK_OK(ourdb_set(db, 1, "x", 1));
    CHECK_OK(ourdb_set(db, 2, "y", 1));
    CHECK_OK(ourdb_get_version(db, 2, 1, &buf));
    CHECK_BYTES(buf.data, buf.len, before->data, before->len);
    ourdb_free_buf(&buf);
    CHECK_OK(ourdb_get_version(db, 2, 2, &buf));
    CHECK_BYTES(buf.data, buf.len, "y", 1);
    ourdb_free_buf(&buf);
    CHECK_OK(ourdb_get_version(db, 3, 2, &buf));
    before = newest(find(&was, 3));
    CHECK_BYTES(buf.data, buf.len, before->data, before->len);
    ourdb_free_buf(&buf);
    CHECK_OK(ourdb_set(db, 1, value, test_value(1, 99, value)));
    CHECK_OK(ourdb_get_version(db, 1, 2, &buf));
    CHECK_BYTES(buf.data, buf.len, "x", 1);
    ourdb_free_buf(&buf);
    CHECK_OK(ourdb_destroy(db));
    free_hero(&was);
}

/* Opened and closed once, without a record. */
static void
empty_directory(void)
{
    hero was = new_hero("empty", &settings[3], 1, 1500);
    ourdb *db;

    test_phase("an empty herolib database");
    CHECK(mkdir(was.path, 0777) == 0);
    hero_close(&was);
    db = OPEN(was.path, NULL);
    check_all(db, &was);
    our_insert(db, &was, "first", 5);
    check_all(db, &was);
    CHECK_OK(ourdb_close(db));
    db = OPEN(was.path, NULL);
    check_all(db, &was);
    CHECK_OK(ourdb_destroy(db));
    CHECK(!test_exists(was.path));
    free_hero(&was);
}

/* ---- without a lookup dump ----------------------------------------------------------------- */

static void
check_refused(const hero *was, const originals *kept, uint32_t flags)
{
    ourdb_options options = options_for(was, flags);

    CHECK_OPEN_FAILS(was->path, &options, OURDB_INCOMPATIBLE);
    check_originals(was, kept);
    CHECK_NUMBER(test_data_files(was->path), kept->count);
    CHECK(!test_exists(test_join(was->path, "MANIFEST")));
}

static void
without_dump(const setting *with, int incremental, int empty_dump_directory)
{
    hero was = new_hero("without-dump", with, incremental, with->width == 6 ? 1500 : 500000000);
    ourdb_options options;
    originals kept;
    ourdb *db;
    int round;

    test_phase("width %u, %s, without a dump%s", with->width,
               incremental ? "incremental" : "key-value",
               empty_dump_directory ? ", its directory is there" : "");
    fill(&was, 0);
    if (empty_dump_directory) {
        test_make_directory(test_join(was.path, "lookup_dump.db"));
    }
    kept = keep_originals(&was);
    check_refused(&was, &kept, 0);
    check_refused(&was, &kept, OURDB_OPEN_MUST_EXIST);
    check_refused(&was, &kept, OURDB_OPEN_READ_ONLY);
    if (!incremental) {
        /* The ids are nowhere on disk. */
        check_refused(&was, &kept, OURDB_OPEN_ADOPT);
        test_remove(was.path);
    } else {
        CHECK_OPEN_FAILS(was.path, NULL, OURDB_INCOMPATIBLE);
        options = options_for(&was, OURDB_OPEN_ADOPT);
        db = OPEN(was.path, &options);
        check_all(db, &was);
        write_on(db, &was);
        check_all(db, &was);
        CHECK_OK(ourdb_close(db));
        check_originals(&was, &kept);
        /* Adopted once is adopted for good. */
        options = options_for(&was, 0);
        for (round = 0; round < 2; round++) {
            db = OPEN(was.path, &options);
            check_all(db, &was);
            write_on(db, &was);
            CHECK_OK(ourdb_close(db));
            check_originals(&was, &kept);
        }
        if (with->width == 6) {
            hero_open(&was);
            hero_check(&was);
        }
        db = OPEN(was.path, NULL);
        check_all(db, &was);
        CHECK_OK(ourdb_destroy(db));
        CHECK(!test_exists(was.path));
    }
    free_originals(&kept);
    free_hero(&was);
}

/* Zeroed records may hide how many there were: then it is CORRUPT, but never a wrong value. */
static void
without_dump_with_deletions(void)
{
    hero was = new_hero("zeroed", &settings[3], 1, 1500);
    ourdb_options options = options_for(&was, OURDB_OPEN_ADOPT);
    ourdb *db = NULL;
    originals kept;
    uint32_t i;
    int code;

    test_phase("without a dump, with deletions");
    CHECK(mkdir(was.path, 0777) == 0);
    for (i = 1; i <= 20; i++) {
        hero_set(&was, i, "0123456789", 10);
    }
    hero_delete(&was, 7);
    hero_delete(&was, 8);
    hero_delete(&was, 9);
    kept = keep_originals(&was);
    code = ourdb_open(was.path, &options, &db);
    if (code == OURDB_OK) {
        check_all(db, &was);
        CHECK_OK(ourdb_close(db));
    } else {
        CHECK_CODE(code, OURDB_CORRUPT);
        CHECK_MESSAGE("0.db");
        CHECK(db == NULL);
    }
    check_originals(&was, &kept);
    test_remove(was.path);
    free_originals(&kept);
    free_hero(&was);
}

/* ---- our own directories, read by herolib --------------------------------------------------- */

static void
read_by_herolib(const setting *with, int incremental)
{
    hero ours = new_hero("ours", with, incremental, 500000000);
    ourdb_options options = options_for(&ours, 0);
    size_t room = with->record_size_max < TEST_VALUE_MAX ? with->record_size_max : TEST_VALUE_MAX;
    uint8_t value[TEST_VALUE_MAX];
    uint32_t i;
    ourdb *db;
    int round;

    test_phase("width %u, %s, made by OurDB", with->width,
               incremental ? "incremental" : "key-value");
    CHECK_NUMBER(width_of(with->record_nr_max, with->record_size_max), with->width);
    for (round = 0; round < 2; round++) {
        db = OPEN(ours.path, &options);
        check_all(db, &ours);
        for (i = 0; i < 30; i++) {
            uint32_t id = incremental ? ours.next_id : (uint32_t)round * 30 + i * 7;
            size_t len = test_value(id, i, value);

            len = len < room ? len : room;
            if (incremental) {
                our_insert(db, &ours, value, len);
            } else {
                our_set(db, &ours, id, value, len);
            }
        }
        write_on(db, &ours);
        our_delete(db, &ours, live_id(&ours, 4));
        our_delete(db, &ours, live_id(&ours, 9));
        CHECK_OK(ourdb_close(db));
        hero_open(&ours);
        hero_check(&ours);
    }

    /* The last id of all deleted, too: herolib's import knows no gap at either end. */
    db = OPEN(ours.path, &options);
    our_delete(db, &ours, ours.records[ours.count - 1].id);
    CHECK_OK(ourdb_close(db));
    hero_open(&ours);
    hero_check(&ours);

    if (with->width == 2) {
        test_phase("width 2, %s, made by OurDB, grown beyond the width",
                   incremental ? "incremental" : "key-value");
        db = OPEN(ours.path, &options);
        for (i = 0; i < 100; i++) {
            static uint8_t kilobyte[1000];

            our_set(db, &ours, live_id(&ours, 0), kilobyte, sizeof kilobyte);
        }
        CHECK_OK(ourdb_close(db));
        CHECK(!test_exists(test_join(ours.path, "lookup_dump.db/data")));
        CHECK(!test_exists(test_join(ours.path, "lookup_dump.db/.inc")));
    } else if (with->width < 6) {
        test_phase("width %u, %s, made by OurDB, grown into a second file", with->width,
                   incremental ? "incremental" : "key-value");
        options.file_size = 1000;
        db = OPEN(ours.path, &options);
        our_set(db, &ours, live_id(&ours, 0), "x", 1);
        our_set(db, &ours, live_id(&ours, 0), "y", 1);
        CHECK_OK(ourdb_close(db));
        CHECK(test_data_files(ours.path) > 1);
        CHECK(!test_exists(test_join(ours.path, "lookup_dump.db/data")));
        CHECK(!test_exists(test_join(ours.path, "lookup_dump.db/.inc")));
    }
    db = OPEN(ours.path, NULL);
    check_all(db, &ours);
    CHECK_OK(ourdb_destroy(db));
    CHECK(!test_exists(ours.path));
    free_hero(&ours);
}

/* A database that asked for no dump writes none, at any close. */
static void
native(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_NATIVE);
    uint32_t id;
    ourdb *db;
    int round;

    test_phase("a native database writes no dump");
    for (round = 0; round < 3; round++) {
        db = OPEN(test_path("native"), round == 0 ? &options : NULL);
        CHECK_OK(ourdb_insert(db, "x", 1, &id));
        CHECK_OK(ourdb_close(db));
        CHECK(!test_exists(test_path("native/lookup_dump.db")));
    }
    db = OPEN(test_path("native"), NULL);
    CHECK_COUNT(db, 3);
    CHECK_OK(ourdb_destroy(db));
}

/* Values that herolib can't hold don't keep it from reading the others. */
static void
beyond_herolib(void)
{
    static uint8_t large[70000];
    hero ours = new_hero("beyond", &settings[3], 1, 500000000);
    ourdb_options options;
    record *at;
    ourdb *db;

    test_phase("values over 65,535 bytes");
    ours.record_size_max = 70000;
    ours.width = width_of(ours.record_nr_max, ours.record_size_max);
    options = options_for(&ours, 0);
    db = OPEN(ours.path, &options);
    our_insert(db, &ours, "one", 3);
    our_insert(db, &ours, large, sizeof large);
    our_insert(db, &ours, "three", 5);
    CHECK_OK(ourdb_close(db));
    db = OPEN(ours.path, &options);
    check_all(db, &ours);
    CHECK_OK(ourdb_close(db));
    at = find(&ours, 2); /* how the long one appears there is not promised */
    forget(at);
    remember(at, "", 0, 0, 1);
    {
        size_t len;
        uint8_t *dump = test_read_file(test_join(ours.path, "lookup_dump.db/data"), &len);

        CHECK_NUMBER(len, 3 * (4 + ours.width));
        memset(dump + 4 + ours.width + 4, 0, ours.width);
        test_write_file(test_join(ours.path, "lookup_dump.db/data"), dump, len);
        free(dump);
    }
    hero_open(&ours);
    hero_check(&ours);
    test_remove(ours.path);
    free_hero(&ours);
}

/* ---- herolib writes in between -------------------------------------------------------------- */

/* Where herolib's record goes: V begins at 0.db after a reopening, Go goes on at the last one. */
enum place { FIRST_FILE, LAST_FILE, NEW_FILE };

static void
written_in_between(int made_by_herolib, int incremental, enum place place, int deletion)
{
    static const char *const places[] = {"first", "last", "a new"};
    hero both = new_hero("between", &settings[3], incremental, 500000000);
    ourdb_options options = options_for(&both, 0);
    originals kept;
    ourdb *db;
    int round;

    test_phase("made by %s, %s, herolib writes to %s file%s", made_by_herolib ? "herolib" : "OurDB",
               incremental ? "incremental" : "key-value", places[place],
               deletion ? " and deletes" : "");
    if (made_by_herolib) {
        both.file_size = 1500;
        fill(&both, 1);
        hero_close(&both);
        both.file_size = 500000000;
    } else {
        db = OPEN(both.path, &options);
        if (incremental) {
            our_insert(db, &both, "one", 3);
            our_insert(db, &both, "two", 3);
            our_insert(db, &both, "three", 5);
            our_insert(db, &both, "four", 4);
        } else {
            our_set(db, &both, 10, "ten", 3);
            our_set(db, &both, 20, "twenty", 6);
            our_set(db, &both, 30, "thirty", 6);
            our_set(db, &both, 40, "forty", 5);
        }
        CHECK_OK(ourdb_close(db));
    }
    for (round = 0; round < 2; round++) {
        unsigned files;
        size_t i;

        db = OPEN(both.path, &options);
        check_all(db, &both);
        write_on(db, &both);
        CHECK_OK(ourdb_close(db));

        hero_open(&both);
        hero_check(&both);
        files = (unsigned)test_data_files(both.path);
        both.file = (uint16_t)(place == FIRST_FILE ? 0 : place == LAST_FILE ? files - 1 : files);
        /* Our deletions have no location in herolib: what it sets there begins a new chain. */
        for (i = 0; i < both.count; i++) {
            if (newest(&both.records[i]) == NULL) {
                forget(&both.records[i]);
            }
        }
        hero_set(&both, live_id(&both, 0), "herolib was here", 16);
        hero_set(&both, live_id(&both, 1), "and here", 8);
        hero_set(&both, live_id(&both, 1), "", 0);
        hero_set(&both, incremental ? both.next_id : 123 + (uint32_t)round, "new by herolib", 14);
        if (deletion) {
            hero_delete(&both, live_id(&both, 2));
        }
        hero_close(&both);
        kept = keep_originals(&both);

        db = OPEN(both.path, &options);
        check_all(db, &both);
        if (round == 1) { /* and again without a write of ours in between */
            CHECK_OK(ourdb_close(db));
            check_originals(&both, &kept);
            db = OPEN(both.path, &options);
            check_all(db, &both);
        }
        write_on(db, &both);
        check_all(db, &both);
        CHECK_OK(ourdb_close(db));
        check_originals(&both, &kept);
        free_originals(&kept);
        hero_open(&both);
        hero_check(&both);
    }
    db = OPEN(both.path, &options);
    check_all(db, &both);
    CHECK_OK(ourdb_destroy(db));
    CHECK(!test_exists(both.path));
    free_hero(&both);
}

/* The process dies after writing to an adopted directory: that was us, not herolib. */
static void
killed_after_adopting(int incremental)
{
    hero was = new_hero("killed", &settings[3], incremental, 1500);
    ourdb_options options = options_for(&was, 0);
    originals kept;
    ourdb *db;
    int round;

    test_phase("killed after adopting, %s", incremental ? "incremental" : "key-value");
    fill(&was, 1);
    hero_close(&was);
    kept = keep_originals(&was);
    for (round = 0; round < 3; round++) {
        uint64_t commits = (uint64_t)round * 6;
        test_pipe ready = test_make_pipe();
        pid_t child = test_fork();

        if (child == 0) {
            db = OPEN(was.path, &options);
            check_all(db, &was);
            write_on(db, &was);
            test_signal(&ready);
            test_wait_to_be_killed();
        }
        test_await(&ready);
        test_kill(child);
        test_close_pipe(&ready);
        /* The same writes in what is expected here; the commit numbers are known. */
        {
            uint32_t first = live_id(&was, 0);
            uint32_t second = live_id(&was, 1);
            uint32_t third = live_id(&was, 2);

            remember(find(&was, first), "ours", 4, ++commits, 0);
            remember(find(&was, first), "ours again", 10, ++commits, 0);
            remember(find(&was, second), "", 0, ++commits, 0);
            remember(find(&was, third), "", 0, ++commits, 1);
            if (incremental) {
                remember(find_or_add(&was, was.next_id++), "inserted by us", 14, ++commits, 0);
                remember(find_or_add(&was, was.next_id++), "", 0, ++commits, 0);
            } else {
                remember(find(&was, third), "back again", 10, ++commits, 0);
                remember(find_or_add(&was, was.record_nr_max - 2), "set by us", 9, ++commits, 0);
            }
        }
        check_originals(&was, &kept);
    }
    db = OPEN(was.path, &options);
    check_all(db, &was);
    CHECK_LAST_COMMIT(db, 18);
    CHECK_OK(ourdb_close(db));
    check_originals(&was, &kept);
    hero_open(&was);
    hero_check(&was);
    db = OPEN(was.path, &options);
    CHECK_OK(ourdb_destroy(db));
    free_originals(&kept);
    free_hero(&was);
}

int
main(void)
{
    size_t i;
    int incremental;
    int variation;

    test_begin("herolib");
    the_writer_itself();
    for (i = 0; i < SETTING_COUNT; i++) {
        for (incremental = 0; incremental < 2; incremental++) {
            opens(&settings[i], incremental, 1);
            opens(&settings[i], incremental, 0);
            without_dump(&settings[i], incremental, (int)i & 1);
            read_by_herolib(&settings[i], incremental);
        }
    }
    as_of_a_commit();
    empty_directory();
    without_dump_with_deletions();
    native();
    beyond_herolib();
    for (variation = 0; variation < 24; variation++) {
        written_in_between(variation & 1, variation >> 1 & 1, (enum place)(variation >> 3),
                           variation >> 2 & 1);
    }
    killed_after_adopting(0);
    killed_after_adopting(1);
    return test_end();
}
