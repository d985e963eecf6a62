//! What must hold in any database of ours, asked of the rows themselves.

use super::memory::memory_sums;
use super::{Reader, fault, migrate};
use crate::domain::Result;

/// A question whose every answer row is a difference.
struct Check {
    name: &'static str,
    /// Whether it is about the file alone, and can be asked of one of any version.
    of_file: bool,
    sql: &'static str,
}

/// Users whose erasure is under way: of them nothing adds up.
macro_rules! open_erasures {
    () => {
        "(SELECT user_id FROM erasures WHERE finished_at IS NULL)"
    };
}

/// Each question gives rows of one text column; an invariant holds where there are none.
const CHECKS: &[Check] = &[
    Check {
        name: "integrity",
        of_file: true,
        sql: "SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
    },
    Check {
        name: "foreign keys",
        of_file: true,
        sql: "SELECT \"table\" || ' row ' || coalesce(rowid, '?') || ' names a missing row of ' || parent \
              FROM pragma_foreign_key_check",
    },
    Check {
        name: "account totals are the sums of their entries",
        of_file: false,
        sql: concat!(
            "WITH sums AS (SELECT user_id, resource, sum(amount) AS amount, max(id) AS head FROM ledger GROUP BY user_id, resource) \
              SELECT 'user ' || coalesce(a.user_id, s.user_id) || ' resource ' || coalesce(a.resource, s.resource) || \
              ': total ' || coalesce(a.total, 'missing') || ', entries ' || coalesce(s.amount, 'none') || \
              ', head ' || coalesce(a.head, 'missing') || ', newest ' || coalesce(s.head, 'none') \
              FROM accounts a FULL JOIN sums s USING (user_id, resource) \
              WHERE (a.total IS NOT s.amount OR a.head IS NOT s.head) AND user_id NOT IN ",
            open_erasures!()
        ),
    },
    Check {
        name: "day totals are the sums of their entries",
        of_file: false,
        // Side by side and summed up: a full join would look at every sum for every day, having no index there.
        sql: concat!(
            "SELECT 'user ' || user_id || ' resource ' || resource || ' day ' || date(day * 86400, 'unixepoch') || \
              ': total ' || sum(booked) || ', entries ' || sum(amount) \
              FROM (SELECT day, resource, user_id, amount AS booked, 0 AS amount FROM buckets \
              UNION ALL SELECT day, resource, user_id, 0, amount FROM ledger) \
              WHERE user_id NOT IN ",
            open_erasures!(),
            " GROUP BY day, resource, user_id HAVING sum(booked) <> sum(amount)"
        ),
    },
    Check {
        name: "totals by model are the sums of their entries",
        of_file: false,
        sql: concat!(
            "WITH named AS (SELECT e.day, e.user_id, e.amount, \
              json_extract(coalesce(r.metadata, CASE WHEN e.reverses IS NULL THEN e.metadata END), '$.model') AS model, \
              json_type(coalesce(r.metadata, CASE WHEN e.reverses IS NULL THEN e.metadata END), '$.model') AS kind \
              FROM ledger e LEFT JOIN ledger r ON r.id = e.reverses WHERE e.resource = 0 AND e.source <> 4), \
              sides AS (SELECT day, user_id, model, tokens AS booked, 0 AS tokens FROM model_totals UNION ALL \
              SELECT day, user_id, model, 0, amount FROM named WHERE kind = 'text' AND length(model) BETWEEN 1 AND 128) \
              SELECT 'user ' || user_id || ' day ' || date(day * 86400, 'unixepoch') || \
              ': total ' || sum(booked) || ', entries ' || sum(tokens) FROM sides \
              WHERE user_id NOT IN ",
            open_erasures!(),
            " GROUP BY day, user_id, model HAVING sum(booked) <> sum(tokens) AND NOT EXISTS (SELECT 1 FROM buckets b \
              WHERE b.day = sides.day AND b.resource = 0 AND b.user_id = sides.user_id AND b.closing IS NOT NULL)"
        ),
    },
    Check {
        // A closing entry names no models: what they used is at most what the day used.
        name: "totals by model of closed days are within the days' totals",
        of_file: false,
        sql: concat!(
            "SELECT 'user ' || b.user_id || ' day ' || date(b.day * 86400, 'unixepoch') || \
              ': by model ' || sum(t.tokens) || ', total ' || b.amount \
              FROM buckets b JOIN model_totals t ON t.day = b.day AND t.user_id = b.user_id \
              WHERE b.resource = 0 AND b.closing IS NOT NULL AND b.user_id NOT IN ",
            open_erasures!(),
            " GROUP BY b.day, b.user_id HAVING sum(t.tokens) NOT BETWEEN 0 AND b.amount"
        ),
    },
    Check {
        name: "every closed day has the one entry that stands for it",
        of_file: false,
        sql: concat!(
            "SELECT 'user ' || b.user_id || ' resource ' || b.resource || ' day ' || date(b.day * 86400, 'unixepoch') || \
              ' names entry ' || b.closing || ', which is none of its closing' FROM buckets b LEFT JOIN ledger e ON e.id = b.closing \
              WHERE b.closing IS NOT NULL AND (e.source, e.day, e.resource, e.user_id) IS NOT (4, b.day, b.resource, b.user_id) \
              AND b.user_id NOT IN ",
            open_erasures!(),
            " UNION ALL SELECT 'entry ' || e.id || ' closes a day that names ' || coalesce(b.closing, 'none') FROM ledger e \
              LEFT JOIN buckets b ON b.day = e.day AND b.resource = e.resource AND b.user_id = e.user_id \
              WHERE e.source = 4 AND b.closing IS NOT e.id \
              AND e.user_id NOT IN ",
            open_erasures!()
        ),
    },
    Check {
        name: "the newest entry that a day names is one of its chain",
        of_file: false,
        sql: concat!(
            "SELECT 'user ' || b.user_id || ' resource ' || b.resource || ' day ' || date(b.day * 86400, 'unixepoch') || \
              ': entry ' || b.head FROM buckets b LEFT JOIN ledger e ON e.id = b.head \
              WHERE b.head IS NOT NULL AND (e.user_id IS NOT b.user_id OR e.resource IS NOT b.resource) \
              AND b.user_id NOT IN ",
            open_erasures!()
        ),
    },
    Check {
        name: "every entry is on its chain",
        of_file: false,
        sql: concat!(
            "WITH chained AS (SELECT id, previous, lag(id) OVER (PARTITION BY user_id, resource ORDER BY id) AS before FROM ledger \
              WHERE user_id NOT IN ",
            open_erasures!(),
            ") \
              SELECT 'entry ' || id || ' follows ' || coalesce(previous, 'none') || ' instead of ' || coalesce(before, 'none') \
              FROM chained WHERE previous IS NOT before"
        ),
    },
    Check {
        name: "no reversals exceed their entry",
        of_file: false,
        sql: "SELECT 'entry ' || e.id || ' of ' || e.amount || ' is reversed by ' || sum(r.amount) \
              FROM ledger r JOIN ledger e ON e.id = r.reverses \
              GROUP BY e.id HAVING e.amount + sum(r.amount) < 0 OR e.user_id <> max(r.user_id) OR e.resource <> max(r.resource)",
    },
    Check {
        name: "what is reserved is the sum of the open holds",
        of_file: false,
        sql: concat!(
            "WITH held AS (SELECT day, resource, user_id, sum(amount) AS amount FROM reservations WHERE state = 0 \
              GROUP BY day, resource, user_id) \
              SELECT 'user ' || coalesce(b.user_id, h.user_id) || ' resource ' || coalesce(b.resource, h.resource) || \
              ' day ' || date(coalesce(b.day, h.day) * 86400, 'unixepoch') || \
              ': reserved ' || coalesce(b.reserved, 'missing') || ', holds ' || coalesce(h.amount, 'none') \
              FROM buckets b FULL JOIN held h USING (day, resource, user_id) \
              WHERE coalesce(b.reserved, 0) <> coalesce(h.amount, 0) AND user_id NOT IN ",
            open_erasures!()
        ),
    },
    Check {
        name: "stored bytes are the ledger's level",
        of_file: false,
        sql: concat!(
            "WITH live AS (SELECT user_id, sum(size_bytes) AS bytes FROM (",
            memory_sums!(),
            ") GROUP BY user_id), \
              levels AS (SELECT user_id, total FROM accounts WHERE resource = 1) \
              SELECT 'user ' || coalesce(l.user_id, a.user_id) || ': stored ' || coalesce(l.bytes, 0) || \
              ', ledger ' || coalesce(a.total, 0) \
              FROM live l FULL JOIN levels a USING (user_id) WHERE coalesce(l.bytes, 0) <> coalesce(a.total, 0) \
              AND user_id NOT IN ",
            open_erasures!()
        ),
    },
    Check {
        name: "memory totals are the sums of the memories",
        of_file: false,
        sql: concat!(
            "WITH live AS (",
            memory_sums!(),
            ") \
              SELECT 'user ' || coalesce(l.user_id, t.user_id) || ' tier ' || coalesce(l.tier, t.tier) || \
              ': totals ' || coalesce(t.memories, 0) || '/' || coalesce(t.size_bytes, 0) || '/' || coalesce(t.text_bytes, 0) || \
              ', memories ' || coalesce(l.memories, 0) || '/' || coalesce(l.size_bytes, 0) || '/' || coalesce(l.text_bytes, 0) \
              FROM live l FULL JOIN memory_totals t USING (user_id, tier) \
              WHERE (coalesce(l.memories, 0) <> coalesce(t.memories, 0) OR coalesce(l.size_bytes, 0) <> coalesce(t.size_bytes, 0) \
              OR coalesce(l.text_bytes, 0) <> coalesce(t.text_bytes, 0)) AND user_id NOT IN ",
            open_erasures!()
        ),
    },
    Check {
        name: "every vector belongs to a memory, and every memory has one",
        of_file: false,
        sql: "SELECT 'vector ' || v.id || ' without a memory' FROM vectors v \
              WHERE NOT EXISTS (SELECT 1 FROM memories m WHERE m.id = v.id >> 12) \
              UNION ALL SELECT 'memory ' || m.id || ' without a vector' FROM memories m \
              WHERE NOT EXISTS (SELECT 1 FROM vectors v WHERE v.id = m.id << 12)",
    },
    Check {
        // A term begins with the number of the user whose it is.
        name: "every full-text row belongs to a memory of its user, and every memory has one",
        of_file: false,
        sql: "WITH docs AS MATERIALIZED (SELECT DISTINCT doc AS id, CAST(term AS INTEGER) AS user_id FROM word_rows) \
              SELECT 'full-text row ' || d.id || ' of user ' || d.user_id || ' without a memory' FROM docs d \
              WHERE NOT EXISTS (SELECT 1 FROM memories m WHERE m.id = d.id AND m.user_id = d.user_id) \
              UNION ALL SELECT 'memory ' || m.id || ' without a full-text row' FROM memories m \
              WHERE m.id NOT IN (SELECT id FROM docs)",
    },
    Check {
        name: "every vector has length 1",
        of_file: false,
        sql: "SELECT 'vector ' || id || ' has length ' || coalesce(vec_distance_l2(embedding, zeroblob(1536)), 'none') \
              FROM vectors WHERE coalesce(abs(vec_distance_l2(embedding, zeroblob(1536)) - 1.0) > 0.001, 1)",
    },
    Check {
        name: "the ledger's door is shut",
        of_file: false,
        sql: "SELECT 'open for user ' || user_id FROM ledger_door",
    },
];

/// A difference that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which invariant does not hold.
    pub invariant: &'static str,
    /// Where, and how.
    pub detail: String,
}

/// Asks every question, on one snapshot. At most `limit` differences of each are returned.
pub(crate) fn run(reader: &Reader<'_>, limit: usize) -> Vec<Difference> {
    ask_all(reader, CHECKS.iter(), limit)
}

/// Asks what can be asked of a file of any version.
pub(super) fn run_of_file(reader: &Reader<'_>, limit: usize) -> Vec<Difference> {
    ask_all(reader, CHECKS.iter().filter(|check| check.of_file), limit)
}

fn ask_all<'q>(reader: &Reader<'_>, checks: impl Iterator<Item = &'q Check>, limit: usize) -> Vec<Difference> {
    let mut differences = Vec::new();
    // FTS5 remembers of which pieces its index is made, and looks whether that still holds when a query begins, but not when
    // its integrity is checked: a connection that has read before would miss pieces that others have merged since.
    let refreshed = reader
        .prepare("SELECT EXISTS (SELECT 1 FROM word_rows)")
        .and_then(|mut statement| statement.query_row([], |row| row.get::<_, bool>(0)).map_err(fault));
    if let Err(error) = refreshed {
        differences.push(Difference { invariant: "integrity", detail: error.to_string() });
    }
    for check in checks {
        // What cannot even be asked is a difference too: the file is damaged there.
        let found = ask(reader, check, limit).unwrap_or_else(|error| vec![error.to_string()]);
        differences.extend(found.into_iter().map(|detail| Difference { invariant: check.name, detail }));
    }
    differences
}

fn ask(reader: &Reader<'_>, check: &Check, limit: usize) -> rusqlite::Result<Vec<String>> {
    let mut statement = reader.connection.prepare(check.sql)?;
    let rows = statement.query_map([], |row| row.get(0))?;
    rows.take(limit).collect()
}

/// The version of the schema.
pub(crate) fn schema_version(reader: &Reader<'_>) -> Result<u32> {
    migrate::version(reader.connection)
}

/// The invariants by name, for a report of what was checked.
pub(crate) fn names() -> Vec<&'static str> {
    CHECKS.iter().map(|check| check.name).collect()
}
