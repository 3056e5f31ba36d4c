#include <inttypes.h>
#include <ourdb.h>
#include <stdio.h>

int main(void)
{
    ourdb *db = NULL;
    ourdb_records history = {0};
    uint32_t id;
    size_t i;
    int code = ourdb_open("mydb", NULL, &db);            /* made if it isn't there */

    if (code == OURDB_OK) code = ourdb_insert(db, "hello", 5, &id);       /* a record */
    if (code == OURDB_OK) code = ourdb_set(db, id, "world!", 6);          /* a newer version */
    if (code == OURDB_OK) code = ourdb_history(db, id, 0, &history);      /* all versions */
    if (code != OURDB_OK) fprintf(stderr, "ourdb: %s\n", ourdb_errmsg());

    for (i = 0; i < history.count; i++)                  /* newest first */
        printf("record %" PRIu32 ", commit %" PRIu64 ": %.*s\n", history.items[i].id,
               history.items[i].commit, (int)history.items[i].len, (const char *)history.items[i].data);
    ourdb_free_records(&history);
    return ourdb_close(db) == OURDB_OK && code == OURDB_OK ? 0 : 1;
}
