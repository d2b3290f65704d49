//! The schema: which version there is, which one this release needs, and the way between.

use tokio_postgres::Client;

use crate::ConnectError;

/// A step from one version to the next. Steps are never changed once they are released.
struct Migration {
    /// What it leads to.
    version: i32,
    /// The oldest version whose release still works on this one: nodes of two releases run side by
    /// side.
    readable_from: i32,
    sql: &'static str,
}

const MIGRATIONS: [Migration; 3] = [
    Migration { version: 1, readable_from: 1, sql: include_str!("../sql/0001_tables.sql") },
    Migration { version: 2, readable_from: 2, sql: include_str!("../sql/0002_calls.sql") },
    Migration { version: 3, readable_from: 2, sql: include_str!("../sql/0003_following.sql") },
];

/// The version that this release needs.
pub const SCHEMA_VERSION: i32 = 3;
const _: () = assert!(MIGRATIONS[MIGRATIONS.len() - 1].version == SCHEMA_VERSION);

/// What bringing a schema up to date came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The version before; 0: there was none.
    pub from: i32,
    /// The version now.
    pub to: i32,
}

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    version: i32,
    readable_from: i32,
}

impl Found {
    const NOTHING: Self = Self { version: 0, readable_from: 0 };

    fn is_usable(self) -> bool {
        self.version >= SCHEMA_VERSION && self.readable_from <= SCHEMA_VERSION
    }
}

/// Finds out that the schema can be used.
pub(crate) async fn check(client: &Client, schema: &str) -> Result<(), ConnectError> {
    let found = find(client, schema).await?;
    if found.is_usable() {
        return Ok(());
    }
    let schema = schema.to_owned();
    Err(if found.version < SCHEMA_VERSION {
        ConnectError::OldSchema { schema, found: found.version, needed: SCHEMA_VERSION }
    } else {
        ConnectError::NewerSchema { schema, found: found.version }
    })
}

/// Brings the schema up to date, one at a time of all that try.
pub(crate) async fn migrate(
    client: &Client,
    schema: &str,
    partitions: u16,
) -> Result<Migrated, ConnectError> {
    let before = find(client, schema).await?;
    if before.version >= SCHEMA_VERSION {
        check(client, schema).await?;
        return Ok(Migrated { from: before.version, to: before.version });
    }
    let told = |error| ConnectError::of(&error, schema);
    // The lock is the transaction's own, so it works through any pooler and ends with it.
    let begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; \
         SET LOCAL lock_timeout = '{LOCK_WAIT_S}s'; \
         SELECT pg_advisory_xact_lock(hashtextextended('cloakroom:{schema}', 0))"
    );
    client.batch_execute(&begin).await.map_err(told)?;
    match apply(client, schema, partitions).await {
        Ok(migrated) => {
            client.batch_execute("COMMIT").await.map_err(told)?;
            Ok(migrated)
        }
        Err(error) => {
            // The connection is dropped anyway; a failure to roll back changes nothing.
            let _ = client.batch_execute("ROLLBACK").await;
            Err(error)
        }
    }
}

/// The steps that are missing, within the caller's transaction.
async fn apply(client: &Client, schema: &str, partitions: u16) -> Result<Migrated, ConnectError> {
    let told = |error| ConnectError::of(&error, schema);
    // Another node may have been faster.
    let found = find(client, schema).await?;
    if !exists(client, schema).await? {
        client.batch_execute(&format!("CREATE SCHEMA {schema}")).await.map_err(told)?;
    }
    client
        .batch_execute(&format!("SET LOCAL search_path = {schema}, pg_temp"))
        .await
        .map_err(told)?;
    let mut version = found.version;
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > found.version) {
        client.batch_execute(migration.sql).await.map_err(told)?;
        version = migration.version;
        let Migration { readable_from, .. } = migration;
        let release = env!("CARGO_PKG_VERSION");
        let note = format!(
            "INSERT INTO schema_version (version, readable_from, release) \
             VALUES ({version}, {readable_from}, '{release}')"
        );
        client.batch_execute(&note).await.map_err(told)?;
        tracing::info!(schema, version, "the schema was brought up to date");
    }
    if found == Found::NOTHING {
        let last = i32::from(partitions.max(1)) - 1;
        let fill = format!(
            "INSERT INTO partitions (partition) SELECT n FROM generate_series(0, {last}) n"
        );
        client.batch_execute(&fill).await.map_err(told)?;
    }
    Ok(Migrated { from: found.version, to: version })
}

/// How many partitions the store has.
pub(crate) async fn partitions(client: &Client, schema: &str) -> Result<u16, ConnectError> {
    let sql = format!("SELECT count(*), coalesce(max(partition), 0) FROM {schema}.partitions");
    let row = client.query_typed_one(&sql, &[]).await;
    let row = row.map_err(|error| ConnectError::of(&error, schema))?;
    let (count, last): (i64, i32) = (row.get(0), row.get(1));
    let whole = u16::try_from(count).ok().filter(|_| count > 0 && count == i64::from(last) + 1);
    whole.ok_or_else(|| ConnectError::Damaged {
        schema: schema.to_owned(),
        problem: format!("it has {count} partitions, the last of them {last}"),
    })
}

/// Finds out that the tables may be read and written.
pub(crate) async fn check_privileges(client: &Client, schema: &str) -> Result<(), ConnectError> {
    let sql = format!(
        "SELECT string_agg(p || ' on {schema}.' || t, ', ') \
         FROM unnest(ARRAY['partitions', 'records', 'feed', 'audit']) t, \
              unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p \
         WHERE NOT (t = 'partitions' AND p IN ('INSERT', 'DELETE')) \
           AND NOT has_table_privilege('{schema}.' || t, p)"
    );
    let row = client.query_typed_one(&sql, &[]).await;
    let missing: Option<String> = row.map_err(|error| ConnectError::of(&error, schema))?.get(0);
    missing.map_or(Ok(()), |missing| Err(ConnectError::Privilege(format!("it needs {missing}"))))
}

async fn find(client: &Client, schema: &str) -> Result<Found, ConnectError> {
    let told = |error| ConnectError::of(&error, schema);
    // By a query of the catalogue: a name alone may be looked up in what this connection knew of it
    // before it waited for another node.
    let sql = format!(
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = '{schema}' AND c.relname = 'schema_version')"
    );
    if !client.query_typed_one(&sql, &[]).await.map_err(told)?.get::<_, bool>(0) {
        return Ok(Found::NOTHING);
    }
    let sql = format!(
        "SELECT version, readable_from FROM {schema}.schema_version ORDER BY version DESC LIMIT 1"
    );
    let row = client.query_typed_opt(&sql, &[]).await.map_err(told)?;
    Ok(row.map_or(Found::NOTHING, |row| Found { version: row.get(0), readable_from: row.get(1) }))
}

async fn exists(client: &Client, schema: &str) -> Result<bool, ConnectError> {
    let sql = format!("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = '{schema}')");
    let row = client.query_typed_one(&sql, &[]).await;
    row.map(|row| row.get(0)).map_err(|error| ConnectError::of(&error, schema))
}

/// How long a node waits for another one that is bringing the schema up to date.
const LOCK_WAIT_S: u32 = 60;
