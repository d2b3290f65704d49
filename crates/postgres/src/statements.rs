//! What is asked of the server, with the schema's name in it.

use cloakroom_store::Log;

/// The statements of a store.
pub(crate) struct Statements {
    /// Partition, kinds and names; gives place, version, format, record.
    pub(crate) load: String,
    /// Gives tick, conflict, whether it is durable; nothing where there is no such partition.
    pub(crate) commit: String,
    /// Partition, kind, name, limit; gives name, version, format, record.
    pub(crate) page: String,
    /// Partition, instant, limit; gives kind, name.
    pub(crate) due: String,
    feed: LogStatements,
    audit: LogStatements,
}

/// Those of one log.
pub(crate) struct LogStatements {
    /// Partition, tick, limit; gives tick, place, format, entry.
    pub(crate) forth: String,
    /// The same, from the end.
    pub(crate) back: String,
    /// Partition, tick, limit; gives how many.
    pub(crate) trim: String,
}

impl Statements {
    pub(crate) fn new(schema: &str) -> Self {
        let numbers: Vec<String> = (1..=COMMIT_ARGUMENTS).map(|n| format!("${n}")).collect();
        let numbers = numbers.join(", ");
        Self {
            load: format!(
                "SELECT place, version, format, record FROM {schema}.load_records($1, $2, $3)"
            ),
            commit: format!(
                "SELECT tick, conflict, is_durable FROM {schema}.commit_batch({numbers})"
            ),
            page: format!(
                "SELECT name, version, format, record::text FROM {schema}.records \
                 WHERE partition = $1 AND kind = $2 AND name > $3 \
                 AND (invisible_at IS NULL OR invisible_at > (SELECT clock_timestamp())) \
                 ORDER BY name LIMIT $4"
            ),
            due: format!(
                "SELECT kind, name FROM {schema}.records \
                 WHERE partition = $1 AND review_at < $2 ORDER BY review_at LIMIT $3"
            ),
            feed: LogStatements::new(schema, "feed"),
            audit: LogStatements::new(schema, "audit"),
        }
    }

    /// Those of a log.
    pub(crate) const fn of(&self, log: Log) -> &LogStatements {
        match log {
            Log::Feed => &self.feed,
            Log::Audit => &self.audit,
        }
    }
}

impl LogStatements {
    fn new(schema: &str, table: &str) -> Self {
        // With ties: a page ends where a commit ends.
        let page = |place: &str, order: &str| {
            format!(
                "SELECT tick, place, format, entry FROM ( \
                   SELECT tick, place, format, entry::text FROM {schema}.{table} \
                   WHERE partition = $1 AND tick {place} $2 \
                   ORDER BY tick {order} FETCH FIRST $3 ROWS WITH TIES) page \
                 ORDER BY tick {order}, place {order}"
            )
        };
        Self {
            forth: page(">=", "ASC"),
            back: page("<", "DESC"),
            trim: format!(
                "WITH gone AS (DELETE FROM {schema}.{table} WHERE ctid = ANY (ARRAY( \
                   SELECT ctid FROM {schema}.{table} WHERE partition = $1 AND tick < $2 \
                   ORDER BY tick, place LIMIT $3)) RETURNING 1) \
                 SELECT count(*) FROM gone"
            ),
        }
    }
}

/// How many `commit_batch` takes.
pub(crate) const COMMIT_ARGUMENTS: usize = 32;
