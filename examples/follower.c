/*
 * A follower: a second database, in another process, is kept up to date over a pipe.
 *
 *     follower DIRECTORY
 *
 * The leader writes to DIRECTORY/leader, and after each round sends what is new; the follower applies
 * it to DIRECTORY/copy, and answers with the last commit that it has. The leader asks for changes
 * from there, so it doesn't matter where the follower begins: empty, or where it was stopped the last
 * time. Over a socket to another machine it would be the same. At the end both are compared.
 *
 * The first thing that fails is reported, and ends the process that it happened in.
 */
#define _XOPEN_SOURCE 700

#include <errno.h>
#include <inttypes.h>
#include <ourdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 20
#define RECORDS 100

/* At most so many bytes at a time, so that neither side needs much memory. */
#define PIECE 65536

static void stop(const char *what, const char *why)
{
    fprintf(stderr, "follower: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static void must(const char *what, int code)
{
    if (code != OURDB_OK)
        stop(what, ourdb_errmsg());
}

/* ---- the pipe: a length, then so many bytes --------------------------------------------------- */

static void send_bytes(int to, const void *data, size_t len)
{
    const char *at = data;

    while (len > 0) {
        ssize_t sent = write(to, at, len);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            stop("send", strerror(errno));
        at += sent;
        len -= (size_t)sent;
    }
}

/* Whether so many bytes came before the other side ended. */
static int receive_bytes(int from, void *data, size_t len)
{
    char *at = data;

    while (len > 0) {
        ssize_t received = read(from, at, len);

        if (received < 0 && errno == EINTR)
            continue;
        if (received < 0)
            stop("receive", strerror(errno));
        if (received == 0)
            return 0;
        at += received;
        len -= (size_t)received;
    }
    return 1;
}

/* ---- the follower ----------------------------------------------------------------------------- */

static void follow(const char *directory, int from, int to)
{
    ourdb *copy = NULL;
    uint64_t len, have;

    must("open the copy", ourdb_open(directory, NULL, &copy));
    must("last commit", ourdb_last_commit(copy, &have));
    send_bytes(to, &have, sizeof have);
    while (receive_bytes(from, &len, sizeof len)) {
        char *changes = malloc(len > 0 ? (size_t)len : 1);

        if (changes == NULL)
            stop("receive", "no memory");
        if (!receive_bytes(from, changes, (size_t)len))
            stop("receive", "the leader ended in the middle");
        must("apply", ourdb_apply(copy, changes, (size_t)len));
        free(changes);
        must("last commit", ourdb_last_commit(copy, &have));
        send_bytes(to, &have, sizeof have);
    }
    must("close the copy", ourdb_close(copy));
}

/* ---- the leader ------------------------------------------------------------------------------- */

/* Sends what the follower doesn't have yet. */
static void bring_up_to_date(ourdb *db, uint64_t *have, int from, int to)
{
    for (;;) {
        ourdb_buf changes;
        uint64_t last, len;

        must("changes", ourdb_changes(db, *have, PIECE, &changes, &last));
        len = changes.len;
        if (len > 0) {
            send_bytes(to, &len, sizeof len);
            send_bytes(to, changes.data, changes.len);
        }
        ourdb_free_buf(&changes);
        if (len == 0)
            return;
        if (!receive_bytes(from, have, sizeof *have))
            stop("receive", "the follower has ended");
    }
}

static void lead(const char *directory, int from, int to)
{
    ourdb *db = NULL;
    uint64_t have;
    int round, i;

    must("open", ourdb_open(directory, NULL, &db));
    if (!receive_bytes(from, &have, sizeof have))
        stop("receive", "the follower has ended");
    for (round = 1; round <= ROUNDS; round++) {
        for (i = 0; i < RECORDS; i++) {
            char text[64];
            uint32_t id;
            int len = snprintf(text, sizeof text, "record %d of round %d", i, round);

            must("insert", ourdb_insert(db, text, (size_t)len, &id));
            if (i % 10 == 0)
                must("delete", ourdb_delete(db, id));
            else if (i % 3 == 0)
                must("set", ourdb_set(db, id, "overwritten", 11));
        }
        bring_up_to_date(db, &have, from, to);
    }
    printf("sent up to commit %" PRIu64 "\n", have);
    must("close", ourdb_close(db));
}

/* ---- both ------------------------------------------------------------------------------------- */

/* Whether two databases hold the same records, with the same commits and times. */
static int same(const char *one, const char *other)
{
    ourdb *dbs[2] = {NULL, NULL};
    ourdb_iter *iters[2] = {NULL, NULL};
    ourdb_record records[2];
    uint64_t count = 0;
    int codes[2], equal, i;

    must("open", ourdb_open(one, NULL, &dbs[0]));
    must("open the copy", ourdb_open(other, NULL, &dbs[1]));
    for (i = 0; i < 2; i++)
        must("scan", ourdb_iter_open(dbs[i], 0, UINT32_MAX, 0, &iters[i]));
    for (;;) {
        for (i = 0; i < 2; i++)
            codes[i] = ourdb_iter_next(iters[i], &records[i]);
        equal = codes[0] == codes[1];
        if (!equal || codes[0] != OURDB_OK)
            break;
        equal = records[0].id == records[1].id && records[0].commit == records[1].commit &&
                records[0].time_us == records[1].time_us && records[0].len == records[1].len &&
                memcmp(records[0].data, records[1].data, records[0].len) == 0;
        if (!equal)
            break;
        count++;
    }
    if (equal && codes[0] != OURDB_NOT_FOUND)
        must("scan", codes[0]);
    for (i = 0; i < 2; i++) {
        ourdb_iter_close(iters[i]);
        must("close", ourdb_close(dbs[i]));
    }
    printf("%" PRIu64 " records are the same in both\n", count);
    return equal;
}

int main(int argc, char **argv)
{
    char leader[4096], copy[4096];
    int down[2], up[2]; /* changes go down, answers come up */
    int status;
    pid_t child;

    if (argc != 2) {
        fprintf(stderr, "usage: follower DIRECTORY\n");
        return EXIT_FAILURE;
    }
    if ((size_t)snprintf(leader, sizeof leader, "%s/leader", argv[1]) >= sizeof leader ||
        (size_t)snprintf(copy, sizeof copy, "%s/copy", argv[1]) >= sizeof copy)
        stop(argv[1], "too long");
    if (pipe(down) != 0 || pipe(up) != 0)
        stop("pipe", strerror(errno));

    child = fork(); /* before anything is open: a child can't use its parent's handles */
    if (child < 0)
        stop("fork", strerror(errno));
    if (child == 0) {
        close(down[1]);
        close(up[0]);
        follow(copy, down[0], up[1]);
        return EXIT_SUCCESS;
    }
    close(down[0]);
    close(up[1]);
    lead(leader, up[0], down[1]);
    close(down[1]); /* the follower sees the end, closes its copy and ends */
    if (waitpid(child, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != EXIT_SUCCESS)
        stop("the follower", "failed");
    close(up[0]);
    return same(leader, copy) ? EXIT_SUCCESS : EXIT_FAILURE;
}
