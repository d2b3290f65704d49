//! Calls to the server: a bounded pool, a deadline for each, and what a failure means.

use std::time::Duration;

use cloakroom_store::StoreError;
use deadpool_postgres::{Client, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::ConnectError;
use crate::error::{Effect, is_cut_off, no_connection, store_error, unanswered};
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

    /// Runs a statement that changes nothing. A connection that turns out to be dead is replaced.
    pub(crate) async fn read(
        &self,
        sql: &str,
        arguments: &[Argument<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let deadline = Instant::now() + self.timeout;
        for _ in 1..READ_ATTEMPTS_MAX {
            let lease = self.lease(deadline).await?;
            match lease.run(sql, arguments, deadline).await {
                Err(Failure::Told(error)) if is_cut_off(&error) => {}
                answer => return answer.map_err(|failure| failure.into_store_error(Effect::None)),
            }
        }
        let lease = self.lease(deadline).await?;
        let answer = lease.run(sql, arguments, deadline).await;
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
        sql: &str,
        arguments: &[Argument<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let answer = self.lease.run(sql, arguments, self.deadline).await;
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

/// How often a read is sent: after a restart of the server each connection may be a dead one.
const READ_ATTEMPTS_MAX: usize = 4;

/// How many calls may wait for a connection; more are refused at once.
const WAITING_MAX: usize = 4096;
