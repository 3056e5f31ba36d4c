/*
 * changes: one database follows another.
 *
 * Promise: what ourdb_changes() gives, ourdb_apply() makes of an empty database of the same mode the
 * same database, with every version, commit number and time; in pieces of any size, in any number of
 * steps, over reopenings; twice changes nothing; a gap is refused and changes nothing, so are bytes
 * that are damaged; after a compaction of the sender the receiver ends up with what the sender kept;
 * an erasure arrives. A follower in another process does it over a pipe.
 */
#include "harness.h"

#include <limits.h>

#define IDS 60

static void
work(ourdb *db, unsigned long writes, uint64_t seed)
{
    uint8_t values[3][TEST_VALUE_MAX];
    ourdb_slice slices[3];
    uint32_t ids[3];
    unsigned long i;

    for (i = 0; i < writes; i++) {
        uint32_t id = test_random_below(&seed, IDS);
        uint32_t draw = test_random_below(&seed, 10);
        size_t k;

        if (draw < 5) {
            CHECK_OK(ourdb_set(db, id, values[0], test_value(id, seed, values[0])));
        } else if (draw < 8) {
            for (k = 0; k < 3; k++) {
                ids[k] = (id + (uint32_t)k * 11) % IDS;
                slices[k].data = values[k];
                slices[k].len = test_value(ids[k], seed, values[k]);
            }
            CHECK_OK(ourdb_set_many(db, ids, slices, 3));
        } else if (ourdb_contains(db, id) == OURDB_OK) {
            CHECK_OK(ourdb_delete(db, id));
        }
    }
}

/* Brings `copy` up to date in pieces of `max` bytes; gives the number of pieces. */
static unsigned long
follow(const ourdb *db, ourdb *copy, size_t max)
{
    unsigned long pieces = 0;
    uint64_t have = test_last_commit(copy);

    for (;;) {
        ourdb_buf buf;
        uint64_t next = 0;

        TEST_GARBAGE(buf);
        CHECK_OK(ourdb_changes(db, have, max, &buf, &next));
        CHECK(buf.data != NULL);
        if (buf.len == 0) {
            CHECK_NUMBER(next, have);
            ourdb_free_buf(&buf);
            return pieces;
        }
        CHECK(next > have);
        CHECK_OK(ourdb_apply(copy, buf.data, buf.len));
        CHECK_LAST_COMMIT(copy, next);
        /* A second time it is there already. */
        CHECK_OK(ourdb_apply(copy, buf.data, buf.len));
        CHECK_LAST_COMMIT(copy, next);
        ourdb_free_buf(&buf);
        have = next;
        pieces++;
    }
}

static void
in_pieces(const test_variant *variant)
{
    static const size_t sizes[] = {1, 1000, 100000, 0};
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    ourdb_options plain = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    ourdb *db = OPEN(test_path("sender"), &options);
    char path[TEST_PATH_MAX];
    unsigned long pieces;
    unsigned long before = ULONG_MAX;
    ourdb *copy;
    size_t i;

    test_join_into(path, test_directory, "receiver");
    test_phase("%s: nothing to give", variant->name);
    copy = OPEN(path, &plain);
    CHECK_NUMBER(follow(db, copy, 0), 0);
    CHECK_OK(ourdb_destroy(copy));
    work(db, test_scaled(300), 1);
    for (i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        test_phase("%s: pieces of %lu bytes", variant->name, (unsigned long)sizes[i]);
        copy = OPEN(path, &plain);
        pieces = follow(db, copy, sizes[i]);
        if (sizes[i] == 1) {
            CHECK_NUMBER(pieces, test_last_commit(db)); /* a commit in each */
        }
        CHECK(pieces <= before);
        before = pieces;
        CHECK_SAME(db, copy);
        CHECK_OK(ourdb_close(copy));
        copy = OPEN(path, &plain);
        CHECK_SAME(db, copy);
        CHECK_OK(ourdb_check(copy, NULL, NULL));
        CHECK_OK(ourdb_destroy(copy));
    }
    CHECK_NUMBER(pieces, 1);

    test_phase("%s: over reopenings", variant->name);
    for (i = 0; i < 5; i++) {
        work(db, 20, 100 + i);
        copy = OPEN(path, &plain);
        CHECK(follow(db, copy, 5000) > 0);
        CHECK_SAME(db, copy);
        CHECK_OK(ourdb_close(copy));
    }
    copy = OPEN(path, &plain);
    CHECK_OK(ourdb_destroy(copy));
    CHECK_OK(ourdb_destroy(db));
}

static void
incremental(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_MEMORY);
    ourdb *db = OPEN(NULL, &options);
    ourdb *copy = OPEN(NULL, &options);
    uint32_t id;
    int i;

    test_phase("ids that are given out");
    for (i = 0; i < 100; i++) {
        CHECK_OK(ourdb_insert(db, &i, sizeof i, &id));
    }
    CHECK_OK(ourdb_delete(db, 7));
    CHECK_OK(ourdb_delete(db, 100));
    CHECK(follow(db, copy, 300) > 1);
    CHECK_SAME(db, copy);
    CHECK_NEXT_ID(copy, 101);
    CHECK_OK(ourdb_close(copy));
    CHECK_OK(ourdb_close(db));
}

static void
refused(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_MEMORY | OURDB_OPEN_KEY_VALUE);
    ourdb_options other_mode = test_options(NULL, OURDB_OPEN_MEMORY);
    ourdb *db = OPEN(NULL, &options);
    ourdb *copy = OPEN(NULL, &options);
    ourdb_buf first;
    ourdb_buf second;
    ourdb_buf none;
    ourdb *other;
    uint64_t middle;
    uint64_t last;
    uint64_t digest;
    size_t i;

    work(db, 30, 1);
    CHECK_OK(ourdb_changes(db, 0, 2000, &first, &middle));
    CHECK(middle < test_last_commit(db));
    CHECK_OK(ourdb_changes(db, middle, 0, &second, &last));
    CHECK_NUMBER(last, test_last_commit(db));

    test_phase("a gap");
    CHECK_CODE(ourdb_apply(copy, second.data, second.len), OURDB_INCOMPATIBLE);
    CHECK_LAST_COMMIT(copy, 0);
    CHECK_COUNT(copy, 0);

    test_phase("damaged bytes");
    for (i = 0; i < first.len; i += 1 + first.len / 200) {
        first.data[i] ^= 4;
        CHECK_CODE(ourdb_apply(copy, first.data, first.len), OURDB_CORRUPT);
        first.data[i] ^= 4;
    }
    for (i = 1; i < first.len; i += 1 + first.len / 200) {
        CHECK(ourdb_apply(copy, first.data, i) != OURDB_OK);
    }
    /* Whole commits before the damage may be there, and are right. */
    CHECK_OK(ourdb_apply(copy, first.data, first.len));
    CHECK_OK(ourdb_apply(copy, second.data, second.len));
    CHECK_SAME(db, copy);
    CHECK_OK(ourdb_apply(copy, first.data, first.len));
    CHECK_SAME(db, copy);

    test_phase("another mode");
    other = OPEN(NULL, &other_mode);
    CHECK_OK(ourdb_apply(other, first.data, first.len));
    CHECK_LAST_COMMIT(other, middle);
    CHECK_OK(ourdb_close(other));

    test_phase("a database with commits of its own");
    other = OPEN(NULL, &options);
    CHECK_OK(ourdb_set(other, 1, "its own", 7));
    digest = test_contents(other);
    CHECK_CODE(ourdb_apply(other, first.data, first.len), OURDB_INCOMPATIBLE);
    CHECK_NUMBER(test_contents(other), digest);
    CHECK_OK(ourdb_close(other));

    test_phase("a commit beyond the last");
    TEST_GARBAGE(none);
    TEST_GARBAGE(middle);
    CHECK_OK(ourdb_changes(db, last + 1, 0, &none, &middle));
    CHECK_NUMBER(none.len, 0);
    CHECK_NUMBER(middle, last + 1);
    ourdb_free_buf(&none);
    ourdb_free_buf(&first);
    ourdb_free_buf(&second);
    CHECK_OK(ourdb_close(copy));
    CHECK_OK(ourdb_close(db));
}

/* The live records are the same, and so is what is left of their history. */
static void
after_a_compaction(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    ourdb_options plain = test_options(NULL, OURDB_OPEN_MEMORY | OURDB_OPEN_KEY_VALUE);
    ourdb *db = OPEN(test_path("compacted"), &options);
    ourdb *up_to_date = OPEN(NULL, &plain);
    ourdb *behind = OPEN(NULL, &plain);
    ourdb *empty = OPEN(NULL, &plain);
    ourdb *pieces = OPEN(NULL, &plain);
    uint32_t id;

    test_phase("%s: after a compaction", variant->name);
    work(db, 200, 3);
    follow(db, behind, 0);
    work(db, 200, 4);
    for (id = 0; id < IDS; id += 9) {
        if (ourdb_contains(db, id) == OURDB_OK) {
            CHECK_OK(ourdb_delete(db, id));
        }
    }
    follow(db, up_to_date, 0);
    COMPACT(db, 0);
    CHECK_NUMBER(follow(db, up_to_date, 0), 0); /* it notices nothing */
    CHECK(follow(db, behind, 0) > 0);
    CHECK(follow(db, empty, 0) > 0);
    CHECK(follow(db, pieces, 500) > 1);
    for (id = 0; id < IDS; id++) {
        ourdb_buf value;

        if (ourdb_get(db, id, &value) == OURDB_OK) {
            CHECK_VALUE(up_to_date, id, value.data, value.len);
            CHECK_VALUE(behind, id, value.data, value.len);
            CHECK_VALUE(empty, id, value.data, value.len);
            CHECK_VALUE(pieces, id, value.data, value.len);
            ourdb_free_buf(&value);
        } else {
            CHECK_ABSENT(up_to_date, id);
            CHECK_ABSENT(behind, id);
            CHECK_ABSENT(empty, id);
            CHECK_ABSENT(pieces, id);
        }
    }
    CHECK_SAME(db, empty);
    CHECK_SAME(db, pieces);
    test_phase("%s: and on", variant->name);
    work(db, 50, 5);
    follow(db, up_to_date, 0);
    follow(db, behind, 0);
    follow(db, empty, 100);
    CHECK_SAME(db, empty);
    CHECK_COUNT(behind, test_count(db));
    CHECK_COUNT(up_to_date, test_count(db));
    CHECK_OK(ourdb_close(up_to_date));
    CHECK_OK(ourdb_close(behind));
    CHECK_OK(ourdb_close(empty));
    CHECK_OK(ourdb_close(pieces));
    CHECK_OK(ourdb_destroy(db));
}

static void
an_erasure(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_MEMORY | OURDB_OPEN_KEY_VALUE);
    ourdb *db = OPEN(NULL, &options);
    ourdb *copy = OPEN(NULL, &options);
    ourdb *late = OPEN(NULL, &options);
    ourdb_buf buf;
    ourdb_records history;
    uint64_t last;
    size_t i;

    test_phase("an erasure");
    CHECK_OK(ourdb_set(db, 1, "a secret", 8));
    CHECK_OK(ourdb_set(db, 1, "a new secret", 12));
    CHECK_OK(ourdb_set(db, 2, "another", 7));
    follow(db, copy, 0);
    CHECK_OK(ourdb_erase(db, 1));
    follow(db, copy, 0);
    follow(db, late, 0);
    CHECK_ABSENT(copy, 1);
    CHECK_CODE(ourdb_get_version(copy, 1, 1, &buf), OURDB_NOT_FOUND);
    CHECK_CODE(ourdb_get_version(late, 1, 1, &buf), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_history(copy, 1, 0, &history));
    CHECK_NUMBER(history.items[0].flags, OURDB_RECORD_DELETED | OURDB_RECORD_ERASED);
    for (i = 0; i < history.count; i++) {
        CHECK(history.items[i].data == NULL);
    }
    ourdb_free_records(&history);
    CHECK_OK(ourdb_changes(db, 0, 0, &buf, &last));
    for (i = 0; i + 6 <= buf.len; i++) {
        CHECK(memcmp(buf.data + i, "secret", 6) != 0);
    }
    ourdb_free_buf(&buf);
    CHECK_SAME(db, copy);
    CHECK_OK(ourdb_close(db));
    CHECK_OK(ourdb_close(copy));
    CHECK_OK(ourdb_close(late));
}

/* ---- in another process -------------------------------------------------------------------- */

static void
write_all(int to, const void *data, size_t len)
{
    const char *at = data;

    while (len > 0) {
        ssize_t written = write(to, at, len);

        VERIFY(written > 0);
        at += written;
        len -= (size_t)written;
    }
}

/* Whether there was that much to read before the end. */
static int
read_all(int from, void *data, size_t len)
{
    char *at = data;

    while (len > 0) {
        ssize_t count = read(from, at, len);

        VERIFY(count >= 0);
        if (count == 0) {
            return 0;
        }
        at += count;
        len -= (size_t)count;
    }
    return 1;
}

/* The follower: lengths and bytes come in until the pipe ends. */
static void
be_a_follower(int from, const char *path)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    ourdb *copy = OPEN(path, &options);
    uint64_t len;

    while (read_all(from, &len, sizeof len)) {
        uint8_t *bytes = malloc((size_t)len);

        VERIFY(bytes != NULL && read_all(from, bytes, (size_t)len));
        VERIFY_OK(ourdb_apply(copy, bytes, (size_t)len));
        free(bytes);
    }
    VERIFY_OK(ourdb_close(copy));
}

static void
in_another_process(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    char path[TEST_PATH_MAX];
    test_pipe channel = test_make_pipe();
    uint64_t have = 0;
    unsigned long round;
    ourdb *db;
    ourdb *copy;
    pid_t child;

    test_phase("a follower in another process");
    test_join_into(path, test_directory, "follower");
    child = test_fork();
    if (child == 0) {
        test_close_end(&channel, 1);
        be_a_follower(channel.ends[0], path);
        _exit(0);
    }
    test_close_end(&channel, 0);
    db = OPEN(test_path("leader"), &options);
    for (round = 0; round < test_scaled(40); round++) {
        ourdb_buf buf;
        uint64_t len;

        work(db, 10, round + 1);
        if (round % 10 == 9) {
            COMPACT(db, 1);
        }
        CHECK_OK(ourdb_changes(db, have, 0, &buf, &have));
        len = buf.len;
        if (len > 0) {
            write_all(channel.ends[1], &len, sizeof len);
            write_all(channel.ends[1], buf.data, buf.len);
        }
        ourdb_free_buf(&buf);
    }
    test_close_end(&channel, 1);
    test_wait(child);
    options.flags = OURDB_OPEN_READ_ONLY;
    copy = OPEN(path, &options);
    CHECK_LAST_COMMIT(copy, test_last_commit(db));
    CHECK_COUNT(copy, test_count(db));
    for (round = 0; round < IDS; round++) {
        ourdb_buf value;

        if (ourdb_get(db, (uint32_t)round, &value) == OURDB_OK) {
            CHECK_VALUE(copy, (uint32_t)round, value.data, value.len);
            ourdb_free_buf(&value);
        } else {
            CHECK_ABSENT(copy, (uint32_t)round);
        }
    }
    CHECK_OK(ourdb_close(copy));
    CHECK_OK(ourdb_destroy(db));
}

int
main(void)
{
    size_t i;

    test_begin("changes");
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        in_pieces(&test_variants[i]);
        after_a_compaction(&test_variants[i]);
    }
    incremental();
    refused();
    an_erasure();
    in_another_process();
    return test_end();
}
