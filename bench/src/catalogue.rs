//! What is measured: the rows of the tables, by group.

/// A group of rows is a table.
pub struct Group {
    /// Its heading.
    pub title: &'static str,
    /// Its rows.
    pub rows: &'static [Row],
}

/// One thing that is measured, where less is better.
pub struct Row {
    /// Its name in the JSON.
    pub name: &'static str,
    /// What the table says.
    pub title: &'static str,
    /// Of its figures.
    pub unit: &'static str,
}

const fn row(name: &'static str, title: &'static str, unit: &'static str) -> Row {
    Row { name, title, unit }
}

/// All of it, in the order of the tables.
pub const GROUPS: &[Group] = &[
    Group {
        title: "Writing",
        rows: &[
            row("insert", "insert in order, one commit each", "ns"),
            row("insert_batch", "insert in order, 1,000 a commit", "ns"),
            row("set", "overwrite at random, one commit each", "ns"),
            row("set_batch", "overwrite at random, 1,000 a commit", "ns"),
            row("delete", "delete at random, one commit each", "ns"),
        ],
    },
    Group {
        title: "Reading",
        rows: &[
            row("get", "get at random", "ns"),
            row(
                "get_dependent",
                "get at random, each id out of the value before",
                "ns",
            ),
            row(
                "get_batch",
                "get at random, 100 a call or transaction",
                "ns",
            ),
            row(
                "get_overwritten",
                "get at random after the overwriting",
                "ns",
            ),
        ],
    },
    Group {
        title: "Reading with two threads",
        rows: &[
            row("get_two", "get at random", "ns"),
            row(
                "get_dependent_two",
                "get at random, each id out of the value before",
                "ns",
            ),
            row(
                "get_batch_two",
                "get at random, 100 a call or transaction",
                "ns",
            ),
        ],
    },
    Group {
        title: "In order",
        rows: &[
            row("scan", "scan", "ns"),
            row("scan_keys", "scan of ids alone", "ns"),
            row("above", "the next id above, one call each", "ns"),
            row("scan_overwritten", "scan after the overwriting", "ns"),
            row(
                "scan_keys_overwritten",
                "scan of ids after the overwriting",
                "ns",
            ),
            row("scan_compacted", "scan after a compaction", "ns"),
            row(
                "scan_keys_compacted",
                "scan of ids after a compaction",
                "ns",
            ),
        ],
    },
    Group {
        title: "Reading and writing with two threads",
        rows: &[
            row("mixed_95", "95 gets, 5 sets", "ns"),
            row("mixed_50", "50 gets, 50 sets", "ns"),
        ],
    },
    Group {
        title: "Versions",
        rows: &[
            row("history", "the last ten values of a record", "ns"),
            row("compact", "compaction, for each record", "ns"),
        ],
    },
    Group {
        title: "Durable",
        rows: &[
            row("durable", "set, on disk before the call returns", "µs"),
            row("durable_eight", "the same with eight threads", "µs"),
        ],
    },
    Group {
        title: "Opening and closing",
        rows: &[
            row("close", "close after the load", "ms"),
            row("open", "open after a close", "ms"),
            row("open_killed", "open after a kill", "ms"),
            row(
                "lost_killed",
                "records lost by the kill, of the last 10,000",
                "",
            ),
        ],
    },
    Group {
        title: "Memory and disk",
        rows: &[
            row("own_open", "own memory after opening", "MB"),
            row("own_used", "own memory after all reads and writes", "MB"),
            row(
                "resident_open",
                "resident memory after opening, with mapped files",
                "MB",
            ),
            row(
                "resident_peak",
                "resident memory at most, with mapped files",
                "MB",
            ),
            row("disk", "on disk after load and close", "MB"),
            row(
                "disk_overwritten",
                "on disk after every record was overwritten once",
                "MB",
            ),
        ],
    },
    Group {
        title: "The benchmark's own part",
        rows: &[
            row("make_value", "making a value, in each write", "ns"),
            row(
                "check_value",
                "choosing an id and checking a value, in each read",
                "ns",
            ),
        ],
    },
];
