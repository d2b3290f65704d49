//! What is asked of the server, with the schema's name in it.

use cloakroom_store::Log;

use crate::link::Route;

/// What is asked.
pub(crate) struct Statement {
    pub(crate) sql: String,
    /// Whether the server keeps it, with its plan, by a name. Only what every request asks is worth
    /// that.
    pub(crate) is_kept: bool,
}

impl Statement {
    pub(crate) const fn once(sql: String) -> Self {
        Self { sql, is_kept: false }
    }
}

/// The statements of a store.
pub(crate) struct Statements {
    /// Gives the server's time.
    pub(crate) now: Statement,
    /// Gives whether a commit that was answered outlives power loss.
    pub(crate) promise: Statement,
    /// Partition, kinds and names; gives place, version, format, record.
    pub(crate) load: Statement,
    /// Partition, kinds, names, kinds to follow to of a subject, from how many sessions on; gives
    /// place, version, format, record, and where there is no place kind and name.
    pub(crate) following: Statement,
    /// Gives tick, conflict, whether it is durable; nothing where there is no such partition.
    pub(crate) commit: Statement,
    /// Partition, kind, name, limit; gives name, version, format, record.
    pub(crate) page: Statement,
    /// Partition, instant, limit; gives kind, name.
    pub(crate) due: Statement,
    feed: LogStatements,
    audit: LogStatements,
}

/// Those of one log.
pub(crate) struct LogStatements {
    /// Partition, tick, limit; gives tick, place, format, entry.
    pub(crate) forth: Statement,
    /// The same, from the end.
    pub(crate) back: Statement,
    /// Partitions, ticks, limit; gives the same as the first, and which of the ticks it is of.
    pub(crate) several: Statement,
    /// Partition, tick, limit; gives how many.
    pub(crate) trim: Statement,
}

impl Statements {
    pub(crate) fn new(schema: &str, route: Route) -> Self {
        let numbers: Vec<String> = (1..=COMMIT_ARGUMENTS).map(|n| format!("${n}")).collect();
        let numbers = numbers.join(", ");
        Self {
            now: Statement::once("SELECT clock_timestamp()".to_owned()),
            promise: Statement::once(
                "SELECT current_setting('fsync') = 'on' \
                 AND current_setting('synchronous_commit') <> 'off'"
                    .to_owned(),
            ),
            load: load(schema, route),
            following: following(schema, route),
            commit: Statement {
                sql: format!(
                    "SELECT tick, conflict, is_durable FROM {schema}.commit_batch({numbers})"
                ),
                is_kept: route == Route::Direct,
            },
            page: Statement::once(format!(
                "SELECT name, version, format, record::text FROM {schema}.records \
                 WHERE partition = $1 AND kind = $2 AND name > $3 \
                 AND (invisible_at IS NULL OR invisible_at > (SELECT clock_timestamp())) \
                 ORDER BY name LIMIT $4"
            )),
            due: Statement::once(format!(
                "SELECT kind, name FROM {schema}.records \
                 WHERE partition = $1 AND review_at < $2 ORDER BY review_at LIMIT $3"
            )),
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

/// One statement and so one state, and one look at the clock. Where nothing can be kept in a
/// connection, a function keeps its plan.
///
/// `OFFSET 0` keeps the subquery one: joined, with a plan made while the table was nearly empty,
/// the records were looked up by their partition alone and compared with the keys one by one.
fn load(schema: &str, route: Route) -> Statement {
    match route {
        Route::Pooled => Statement::once(format!(
            "SELECT place, version, format, record FROM {schema}.load_records($1, $2, $3)"
        )),
        Route::Direct => Statement {
            sql: format!(
                "SELECT k.place, r.version, r.format, r.record::text \
                 FROM unnest($2, $3) WITH ORDINALITY AS k (kind, name, place) \
                 CROSS JOIN LATERAL ( \
                     SELECT o.version, o.format, o.record, o.invisible_at \
                     FROM {schema}.records o \
                     WHERE o.partition = $1 AND o.kind = k.kind AND o.name = k.name OFFSET 0) r \
                 WHERE r.invisible_at IS NULL OR r.invisible_at > (SELECT clock_timestamp())"
            ),
            is_kept: true,
        },
    }
}

/// The same, and what the found records name.
fn following(schema: &str, route: Route) -> Statement {
    match route {
        Route::Pooled => Statement::once(format!(
            "SELECT place, version, format, record, kind, name \
             FROM {schema}.load_following($1, $2, $3, $4, $5)"
        )),
        Route::Direct => Statement {
            sql: format!(
                "WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now), \
                 asked AS MATERIALIZED ( \
                     SELECT k.place, k.kind, r.version, r.format, r.record, r.subject \
                     FROM unnest($2, $3) WITH ORDINALITY AS k (kind, name, place) \
                     CROSS JOIN LATERAL ( \
                         SELECT o.version, o.format, o.record, o.subject, o.invisible_at \
                         FROM {schema}.records o \
                         WHERE o.partition = $1 AND o.kind = k.kind AND o.name = k.name \
                         OFFSET 0) r \
                     WHERE r.invisible_at IS NULL OR r.invisible_at > (SELECT now FROM clock) \
                 ), named AS ( \
                     SELECT f.kind, a.subject AS name \
                     FROM asked a CROSS JOIN unnest($4) AS f (kind) \
                     WHERE a.kind = 'session' AND a.subject IS NOT NULL \
                     UNION \
                     SELECT 'session', s.sid \
                     FROM asked a CROSS JOIN json_array_elements_text(a.record -> 's') AS s (sid) \
                     WHERE a.kind = 'index' AND json_array_length(a.record -> 's') >= $5 \
                 ) \
                 SELECT place, version, format, record::text, NULL::text, NULL::text FROM asked \
                 UNION ALL \
                 SELECT NULL::bigint, r.version, r.format, r.record::text, r.kind, r.name \
                 FROM named n \
                 CROSS JOIN LATERAL ( \
                     SELECT o.version, o.format, o.record, o.kind, o.name, o.invisible_at \
                     FROM {schema}.records o \
                     WHERE o.partition = $1 AND o.kind = n.kind AND o.name = n.name OFFSET 0) r \
                 WHERE r.invisible_at IS NULL OR r.invisible_at > (SELECT now FROM clock)"
            ),
            is_kept: true,
        },
    }
}

impl LogStatements {
    fn new(schema: &str, table: &str) -> Self {
        // With ties: a page ends where a commit ends.
        let page = |place: &str, order: &str| {
            Statement::once(format!(
                "SELECT tick, place, format, entry FROM ( \
                   SELECT tick, place, format, entry::text FROM {schema}.{table} \
                   WHERE partition = $1 AND tick {place} $2 \
                   ORDER BY tick {order} FETCH FIRST $3 ROWS WITH TIES) page \
                 ORDER BY tick {order}, place {order}"
            ))
        };
        Self {
            forth: page(">=", "ASC"),
            back: page("<", "DESC"),
            several: Statement::once(format!(
                "SELECT page.tick, page.place, page.format, page.entry, f.number \
                 FROM unnest($1, $2) WITH ORDINALITY AS f (partition, tick, number) \
                 CROSS JOIN LATERAL ( \
                   SELECT l.tick, l.place, l.format, l.entry::text FROM {schema}.{table} l \
                   WHERE l.partition = f.partition AND l.tick >= f.tick \
                   ORDER BY l.tick FETCH FIRST $3 ROWS WITH TIES) page \
                 ORDER BY f.number, page.tick, page.place"
            )),
            trim: Statement::once(format!(
                "WITH gone AS (DELETE FROM {schema}.{table} WHERE ctid = ANY (ARRAY( \
                   SELECT ctid FROM {schema}.{table} WHERE partition = $1 AND tick < $2 \
                   ORDER BY tick, place LIMIT $3)) RETURNING 1) \
                 SELECT count(*) FROM gone"
            )),
        }
    }
}

/// How many `commit_batch` takes.
pub(crate) const COMMIT_ARGUMENTS: usize = 32;
