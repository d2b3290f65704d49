//! Opening a store: what the server must be, and what it must hold.

use std::time::Duration;

use cloakroom_store::owners::Owners;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::tell;
use crate::link::{Link, Route};
use crate::settings::{Target, check_schema};
use crate::statements::Statements;
use crate::wake::{Listen, Wake};
use crate::{ConnectError, Migrated, PostgresSettings, PostgresStore, TIMEOUT_MIN, schema, tls};

/// Opens a store.
pub(crate) async fn connect(settings: &PostgresSettings) -> Result<PostgresStore, ConnectError> {
    let door = Door::open(settings).await?;
    let name = settings.schema.as_str();
    if settings.migrate {
        schema::migrate(&door.client, name, settings.partitions).await?;
    } else {
        schema::check(&door.client, name).await?;
    }
    schema::check_privileges(&door.client, name).await?;
    let partitions = schema::partitions(&door.client, name).await?;
    let patience = settings.timeout.max(TIMEOUT_MIN);
    let route = door.route(patience).await?;
    let link = Link::new(&door.target, door.tls.clone(), route, settings.pool, patience)?;
    let listen = Listen {
        config: door.target.config.clone(),
        tls: door.tls.clone(),
        channel: format!("{name}_changed"),
    };
    let wake = Wake::new(link.clone(), listen);
    let (statements, schema) = (Statements::new(name, route), name.to_owned());
    let owners = Owners::new();
    Ok(PostgresStore { link, statements, schema, partitions, wake, owners })
}

/// Brings a schema up to date.
pub(crate) async fn migrate(settings: &PostgresSettings) -> Result<Migrated, ConnectError> {
    let door = Door::open(settings).await?;
    schema::migrate(&door.client, &settings.schema, settings.partitions).await
}

/// A connection to look around with; the pool's are made when they are needed.
struct Door {
    client: Client,
    _task: AbortOnDrop,
    target: Target,
    tls: MakeRustlsConnect,
}

impl Door {
    async fn open(settings: &PostgresSettings) -> Result<Self, ConnectError> {
        check_schema(&settings.schema)?;
        let target = Target::parse(settings.url.expose())?;
        let tls = tls::connector(target.tls, &settings.tls)?;
        let patience = settings.timeout.max(TIMEOUT_MIN);
        let (client, task) = timeout(patience, dial(&target, &tls))
            .await
            .map_err(|_| ConnectError::Unreachable("it doesn't answer in time".to_owned()))?
            .map_err(|error| ConnectError::of(&error, &settings.schema))?;
        let door = Self { client, _task: AbortOnDrop(task), target, tls };
        // What can't even say what it is within that time can't keep a promise either.
        timeout(patience, door.look_around(&settings.schema))
            .await
            .map_err(|_| ConnectError::Unreachable("it doesn't answer in time".to_owned()))??;
        Ok(door)
    }

    /// Finds out whether a pooler stands between: then two connections meet one server process, or
    /// one connection two. Named statements of one client would be another one's there.
    async fn route(&self, patience: Duration) -> Result<Route, ConnectError> {
        // Where a pooler has a single process for us all, the one who holds it makes the other one
        // wait.
        let found = timeout(patience, self.compare_processes()).await;
        match found {
            Ok(Ok(route)) => Ok(route),
            Ok(Err(error)) => Err(ConnectError::Unreachable(tell(&error))),
            Err(_) => Ok(Route::Pooled),
        }
    }

    async fn compare_processes(&self) -> Result<Route, tokio_postgres::Error> {
        let (other, task) = dial(&self.target, &self.tls).await?;
        let _other_ends = AbortOnDrop(task);
        let mut route = Route::Direct;
        // A pooler that serves others meanwhile could look direct once.
        for _ in 0..LOOKS {
            let before = process_id(&self.client).await?;
            self.client.batch_execute("SET cloakroom.seen_by = 'one'").await?;
            other.batch_execute("SET cloakroom.seen_by = 'other'").await?;
            other.batch_execute("BEGIN").await?;
            let of_other = process_id(&other).await?;
            let after = process_id(&self.client).await?;
            other.batch_execute("ROLLBACK").await?;
            // A pooler that resets what comes back may deal out the others meanwhile, each in its
            // turn, so that only what was set there tells that it was away.
            let is_kept = seen_by(&self.client).await?.as_deref() == Some("one")
                && seen_by(&other).await?.as_deref() == Some("other");
            if before != after || of_other == before || !is_kept {
                route = Route::Pooled;
            }
        }
        tracing::debug!(?route, "the way to the database");
        Ok(route)
    }

    async fn look_around(&self, schema: &str) -> Result<(), ConnectError> {
        let sql = "SELECT current_setting('server_version_num')::integer, \
                   current_setting('server_version'), current_setting('server_encoding'), \
                   current_setting('default_transaction_isolation'), current_user::text, \
                   current_setting('fsync'), current_setting('synchronous_commit')";
        let row = self.client.query_typed_one(sql, &[]).await;
        let row = row.map_err(|error| ConnectError::of(&error, schema))?;
        let text = |number| row.get::<_, String>(number);
        judge(
            row.get(0),
            &Server { version: text(1), encoding: text(2), isolation: text(3), user: text(4) },
        )?;
        if text(5) != "on" || text(6) == "off" {
            tracing::warn!(
                fsync = text(5),
                synchronous_commit = text(6),
                "the database may lose commits that it acknowledged when its machine fails"
            );
        }
        Ok(())
    }
}

/// A connection's task, which ends with whoever holds this.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn dial(
    target: &Target,
    tls: &MakeRustlsConnect,
) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
    let (client, connection) = target.config.connect(tls.clone()).await?;
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("a connection ended: {}", tell(&error));
        }
    });
    Ok((client, task))
}

async fn process_id(client: &Client) -> Result<i32, tokio_postgres::Error> {
    Ok(client.query_typed_one("SELECT pg_backend_pid()", &[]).await?.get(0))
}

/// What was set for this session, where it is still the same.
async fn seen_by(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    let sql = "SELECT current_setting('cloakroom.seen_by', true)";
    Ok(client.query_typed_one(sql, &[]).await?.get(0))
}

/// What a server says of itself.
struct Server {
    version: String,
    encoding: String,
    isolation: String,
    user: String,
}

/// Whether a server will do.
fn judge(version_number: i32, server: &Server) -> Result<(), ConnectError> {
    if version_number < VERSION_MIN {
        return Err(ConnectError::TooOld(server.version.clone()));
    }
    if server.encoding != "UTF8" {
        return Err(ConnectError::Encoding(server.encoding.clone()));
    }
    // Under a stricter isolation a commit that waited for another one would see the state before
    // it, and fail.
    if server.isolation != "read committed" {
        return Err(ConnectError::Isolation {
            found: server.isolation.clone(),
            user: server.user.clone(),
        });
    }
    Ok(())
}

/// How often it is looked whether a pooler stands between.
const LOOKS: usize = 3;

/// The first version with `FETCH FIRST … WITH TIES`.
const VERSION_MIN: i32 = 130_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        Server {
            version: "13.0".to_owned(),
            encoding: "UTF8".to_owned(),
            isolation: "read committed".to_owned(),
            user: "app".to_owned(),
        }
    }

    #[test]
    fn a_server_that_is_too_old_or_set_otherwise_is_refused() {
        assert!(judge(VERSION_MIN, &server()).is_ok());
        let told = |number, server: Server| {
            judge(number, &server).err().map(|error| error.to_string()).unwrap_or_default()
        };
        let old = told(120_022, Server { version: "12.22".to_owned(), ..server() });
        assert_eq!(old, "the server is PostgreSQL 12.22; at least version 13 is needed");
        let latin = told(VERSION_MIN, Server { encoding: "LATIN1".to_owned(), ..server() });
        assert!(latin.contains("UTF8"), "{latin}");
        let strict = told(VERSION_MIN, Server { isolation: "serializable".to_owned(), ..server() });
        assert!(strict.contains("ALTER ROLE \"app\" SET"), "{strict}");
    }
}
