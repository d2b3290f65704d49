//! Calls to the server: a bounded pool, a deadline for each, and what a failure means.

use std::time::Duration;

use cloakroom_store::StoreError;
use deadpool_postgres::{Client, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::ConnectError;
use crate::error::{Effect, no_connection, store_error, unanswered};
use crate::settings::Target;

/// The way to the server. Clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pool: Pool,
    timeout: Duration,
}

/// An argument and its type: calls are prepared and run in one round trip, without a statement
/// that would have to be there at the next one.
pub(crate) type Argument<'a> = (&'a (dyn ToSql + Sync), Type);

impl Link {
    /// A pool that connects when it is first needed.
    pub(crate) fn new(
        target: &Target,
        tls: MakeRustlsConnect,
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
        let pool = Pool::builder(manager).max_size(size.max(1)).runtime(Runtime::Tokio1).build();
        let pool = pool.map_err(|error| ConnectError::Unreachable(error.to_string()))?;
        Ok(Self { pool, timeout })
    }

    /// Runs a statement that changes nothing. A connection that turns out to be dead is replaced
    /// once.
    pub(crate) async fn read(
        &self,
        sql: &str,
        arguments: &[Argument<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let deadline = Instant::now() + self.timeout;
        let lease = self.lease(deadline).await?;
        match lease.run(sql, arguments, deadline).await {
            Err(Failure::Told(error)) if error.is_closed() => {}
            answer => return answer.map_err(|failure| failure.into_store_error(Effect::None)),
        }
        let lease = self.lease(deadline).await?;
        let answer = lease.run(sql, arguments, deadline).await;
        answer.map_err(|failure| failure.into_store_error(Effect::None))
    }

    /// Runs a statement that changes something, once.
    pub(crate) async fn write<'a>(
        &self,
        sql: &str,
        arguments: impl AsRef<[Argument<'a>]>,
        deadline: Instant,
    ) -> Result<Vec<Row>, StoreError> {
        let lease = self.lease(deadline).await?;
        let answer = lease.run(sql, arguments.as_ref(), deadline).await;
        answer.map_err(|failure| failure.into_store_error(Effect::Perhaps))
    }

    /// When a call that begins now has to be over.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// How long a commit may wait for others of its partition: what is left is for the answer.
    pub(crate) fn lock_wait_ms(&self) -> i32 {
        i32::try_from(self.timeout.as_millis() / 4 * 3).unwrap_or(i32::MAX).max(1)
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
        sql: &str,
        arguments: &[Argument<'_>],
        deadline: Instant,
    ) -> Result<Vec<Row>, Failure> {
        let client = self.client.as_ref().ok_or(Failure::Gone)?;
        match timeout_at(deadline, client.query_typed(sql, arguments)).await {
            Ok(answer) => {
                self.give_back();
                answer.map_err(Failure::Told)
            }
            Err(_) => Err(Failure::TooLate),
        }
    }

    fn give_back(&mut self) {
        drop(self.client.take());
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

/// How many calls may wait for a connection; more are refused at once.
const WAITING_MAX: usize = 4096;
