//! Calls to the server: a bounded pool, a deadline for each, and what a failure means.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use cloakroom_store::StoreError;
use deadpool_postgres::{
    Client, Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime,
};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Row;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::ConnectError;
use crate::error::{Effect, is_cut_off, is_forgotten, no_connection, store_error, unanswered};
use crate::settings::Target;
use crate::statements::Statement;

/// The way to the server. Clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pool: Pool,
    timeout: Duration,
}

/// An argument and its type.
pub(crate) type Argument<'a> = (&'a (dyn ToSql + Sync), Type);

/// Whether a connection is the same server process from one transaction to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// It is, so statements and settings can be kept there.
    Direct,
    /// A pooler deals transactions out to server processes.
    Pooled,
}

impl Link {
    /// A pool that connects when it is first needed.
    pub(crate) fn new(
        target: &Target,
        tls: MakeRustlsConnect,
        route: Route,
        size: usize,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let mut config = target.config.clone();
        // What hangs longer than a call may last is of no use to any.
        if config.get_connect_timeout().is_none_or(|given| *given > timeout) {
            config.connect_timeout(timeout);
        }
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config, tls, recycling);
        let pool = Pool::builder(manager).max_size(size.max(1)).runtime(Runtime::Tokio1);
        let pool = match route {
            Route::Direct => pool.post_create(Hook::async_fn(|client, _| {
                Box::pin(async { client.batch_execute(SETTINGS).await.map_err(HookError::Backend) })
            })),
            Route::Pooled => pool,
        };
        let pool = pool.build().map_err(|error| ConnectError::Unreachable(error.to_string()))?;
        Ok(Self { pool, timeout })
    }

    /// Runs a statement that changes nothing. A connection that turns out to be dead is replaced.
    pub(crate) async fn read(
        &self,
        statement: &Statement,
        arguments: &[Argument<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let deadline = Instant::now() + self.timeout;
        for _ in 1..READ_ATTEMPTS_MAX {
            let lease = self.lease(deadline).await?;
            match lease.run(statement, arguments, deadline).await {
                Err(Failure::Told(error)) if is_cut_off(&error) => {}
                answer => return answer.map_err(|failure| failure.into_store_error(Effect::None)),
            }
        }
        let lease = self.lease(deadline).await?;
        let answer = lease.run(statement, arguments, deadline).await;
        answer.map_err(|failure| failure.into_store_error(Effect::None))
    }

    /// A connection for a statement that changes something. A quarter of the time is left for its
    /// answer, so that what waited too long is told from what may have happened.
    pub(crate) async fn begin(&self) -> Result<Write, StoreError> {
        let began = Instant::now();
        let wait_until = began + self.timeout / 4 * 3;
        let lease = self.lease(wait_until).await?;
        Ok(Write { lease, wait_until, deadline: began + self.timeout })
    }

    /// Closes all connections.
    pub(crate) fn close(&self) {
        self.pool.close();
    }

    async fn lease(&self, deadline: Instant) -> Result<Lease, StoreError> {
        if self.pool.status().waiting >= WAITING_MAX {
            return Err(StoreError::Unavailable("too many calls are waiting".to_owned()));
        }
        match timeout_at(deadline, self.pool.get()).await {
            Ok(Ok(client)) => Ok(Lease { client: Some(client) }),
            Ok(Err(error)) => Err(no_connection(&error)),
            Err(_) => Err(StoreError::Unavailable("no connection could be had in time".to_owned())),
        }
    }
}

/// A statement that is about to be sent, and changes something.
pub(crate) struct Write {
    lease: Lease,
    wait_until: Instant,
    deadline: Instant,
}

impl Write {
    /// How long a commit may wait for others of its partition, in milliseconds.
    pub(crate) fn lock_wait_ms(&self) -> i32 {
        let left = self.wait_until.saturating_duration_since(Instant::now());
        // Zero would mean for ever.
        i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1)
    }

    /// Runs the statement, once.
    pub(crate) async fn run(
        self,
        statement: &Statement,
        arguments: &[Argument<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let answer = self.lease.run(statement, arguments, self.deadline).await;
        answer.map_err(|failure| failure.into_store_error(Effect::Perhaps))
    }
}

/// A connection for one statement. When that has no answer, the connection isn't given back: the
/// next call would wait behind it.
struct Lease {
    client: Option<Client>,
}

/// Why there is no answer to a statement.
enum Failure {
    Told(tokio_postgres::Error),
    TooLate,
    Gone,
}

impl Lease {
    async fn run(
        mut self,
        statement: &Statement,
        arguments: &[Argument<'_>],
        deadline: Instant,
    ) -> Result<Vec<Row>, Failure> {
        let client = self.client.as_ref().ok_or(Failure::Gone)?;
        match timeout_at(deadline, ask(client, statement, arguments)).await {
            Ok(answer) => {
                // What isn't known any more, or means something else by now, is forgotten with the
                // connection.
                if !answer.as_ref().is_err_and(is_forgotten) {
                    self.give_back();
                }
                answer.map_err(Failure::Told)
            }
            Err(_) => Err(Failure::TooLate),
        }
    }

    fn give_back(&mut self) {
        drop(self.client.take());
    }
}

/// Sends a statement: by its name, when the connection knows it or may learn it, else with all of
/// its text. Either way it is one round trip, but for the first by name.
async fn ask(
    client: &Client,
    statement: &Statement,
    arguments: &[Argument<'_>],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    if !statement.is_kept {
        return client.query_typed(&statement.sql, arguments).await;
    }
    let types: Vec<Type> = arguments.iter().map(|(_, kind)| kind.clone()).collect();
    let known = client.prepare_typed_cached(&statement.sql, &types).await?;
    let quiet: Vec<Quiet<'_>> = arguments.iter().map(|(value, _)| Quiet(*value)).collect();
    let values: Vec<&(dyn ToSql + Sync)> = quiet.iter().map(|value| value as _).collect();
    client.query(&known, &values).await
}

/// An argument that isn't shown: the client library logs the arguments of named statements, and
/// hashes of secrets are among them.
struct Quiet<'a>(&'a (dyn ToSql + Sync));

impl fmt::Debug for Quiet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl ToSql for Quiet<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.0.to_sql_checked(kind, out)
    }

    fn accepts(_: &Type) -> bool {
        // The argument itself checks it.
        true
    }

    fn to_sql_checked(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.0.to_sql_checked(kind, out)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(unanswered) = self.client.take() {
            drop(Object::take(unanswered));
        }
    }
}

impl Failure {
    fn into_store_error(self, effect: Effect) -> StoreError {
        match self {
            Self::Told(error) => store_error(&error, effect),
            Self::TooLate => unanswered("it doesn't answer in time".to_owned(), effect),
            Self::Gone => StoreError::Unavailable("the connection is gone".to_owned()),
        }
    }
}

/// A plan that is kept may be made while a table is nearly empty, and is used long after it has
/// grown: it has to go by the index from the first.
const SETTINGS: &str = "
    SET enable_seqscan = off;
    SET enable_hashjoin = off;
    SET enable_mergejoin = off;
    SET plan_cache_mode = force_generic_plan";

/// How often a read is sent: after a restart of the server each connection may be a dead one.
const READ_ATTEMPTS_MAX: usize = 4;

/// How many calls may wait for a connection; more are refused at once.
const WAITING_MAX: usize = 4096;
