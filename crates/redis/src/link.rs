//! One connection to one server, on which many calls are under way at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, PushInfo, PushKind, Value};

use crate::facts::Facts;
use crate::fault::Fault;

/// A connection. It is never opened again: what follows on it reached the same server process.
pub(crate) struct Link {
    connection: MultiplexedConnection,
    is_closed: Arc<AtomicBool>,
    facts: ArcSwap<Facts>,
    opened_at: Instant,
    /// When the facts were asked for, in milliseconds since the opening.
    asked_at_ms: AtomicU64,
}

impl Link {
    /// Opens a connection, logs in and asks the server what it is.
    pub(crate) async fn open(client: &Client, timeout: Duration) -> Result<Self, Fault> {
        let is_closed = Arc::new(AtomicBool::new(false));
        let closed = Arc::clone(&is_closed);
        let on_push = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                closed.store(true, Ordering::Release);
            }
            Ok::<(), ()>(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(CALLS_QUEUED_MAX)
            .set_push_sender(on_push);
        let open = client.get_multiplexed_async_connection_with_config(&config);
        let connection = within(timeout, open).await?;
        let link = Self {
            connection,
            is_closed,
            facts: ArcSwap::from_pointee(Facts::default()),
            opened_at: Instant::now(),
            asked_at_ms: AtomicU64::new(0),
        };
        within(timeout, link.inspect()).await?;
        Ok(link)
    }

    /// Whether it is still worth sending something on it.
    pub(crate) fn is_open(&self) -> bool {
        !self.is_closed.load(Ordering::Acquire)
    }

    /// Sends nothing on it any more.
    pub(crate) fn give_up(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// What is known of the server.
    pub(crate) fn facts(&self) -> Arc<Facts> {
        self.facts.load_full()
    }

    /// Asks the server what it is.
    pub(crate) async fn inspect(&self) -> Result<(), Fault> {
        let replies = self.ask_all(&Facts::questions()).await?;
        self.facts.store(Arc::new(Facts::read(replies)?));
        Ok(())
    }

    /// Whether the facts are old; true to one caller, who should ask again.
    pub(crate) fn is_to_be_inspected(&self) -> bool {
        let now_ms = u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let asked_at_ms = self.asked_at_ms.load(Ordering::Relaxed);
        now_ms.saturating_sub(asked_at_ms) >= FACTS_AGE_MS_MAX
            && (self.asked_at_ms)
                .compare_exchange(asked_at_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Sends one command.
    pub(crate) async fn ask(&self, cmd: &Cmd) -> Result<Value, Fault> {
        match self.connection.clone().send_packed_command(cmd).await {
            Ok(value) => answer(value),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Sends several commands at once; each has its own answer, or refusal.
    pub(crate) async fn ask_all(&self, commands: &Pipeline) -> Result<Vec<Value>, Fault> {
        let count = commands.len();
        let sent = self.connection.clone();
        let replies = { sent }.send_packed_commands(commands, 0, count).await;
        replies.map_err(|error| self.failed(error))
    }

    /// Reads strings from one state; each may be refused. None where something was expected and
    /// isn't there.
    pub(crate) async fn get_all(
        &self,
        keys: &[Vec<u8>],
        expects: Expects,
    ) -> Result<Option<Vec<Value>>, Fault> {
        match (keys, expects) {
            ([key], _) => {
                let mut commands = redis::pipe();
                commands.cmd("GET").arg(key.as_slice());
                self.ask_all(&commands).await.map(Some)
            }
            (_, Expects::Values) => self.get_present(keys).await,
            (_, Expects::Gaps) => self.get_each(keys).await.map(Some),
        }
    }

    /// In one command, which takes what is no string for a gap: so that none may remain.
    async fn get_present(&self, keys: &[Vec<u8>]) -> Result<Option<Vec<Value>>, Fault> {
        let mut cmd = redis::cmd("MGET");
        for key in keys {
            cmd.arg(key.as_slice());
        }
        match self.ask(&cmd).await? {
            Value::Array(values) if values.len() == keys.len() => {
                Ok(Some(values).filter(|values| !values.contains(&Value::Nil)))
            }
            _ => Err(Fault::Other("a read had no answer".to_owned())),
        }
    }

    /// In a transaction, whose every command says what it met.
    async fn get_each(&self, keys: &[Vec<u8>]) -> Result<Vec<Value>, Fault> {
        let mut commands = redis::pipe();
        commands.atomic();
        for key in keys {
            commands.cmd("GET").arg(key.as_slice());
        }
        // The first answers only say that a transaction began and commands wait for its end.
        let skipped = keys.len() + 1;
        let sent = self.connection.clone();
        let replies = { sent }.send_packed_commands(&commands, skipped, 1).await;
        match replies.map_err(|error| self.failed(error))?.pop() {
            Some(Value::Array(values)) => Ok(values),
            Some(_) | None => Err(Fault::Other("a transaction had no answer".to_owned())),
        }
    }

    fn failed(&self, error: redis::RedisError) -> Fault {
        let fault = Fault::from(error);
        if matches!(fault, Fault::Lost(_)) {
            self.give_up();
        }
        fault
    }
}

/// What a read is likely to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expects {
    /// All that was asked for.
    Values,
    /// Less.
    Gaps,
}

/// An answer, or the refusal that it is.
pub(crate) fn answer(value: Value) -> Result<Value, Fault> {
    match value {
        Value::ServerError(error) => Err(Fault::from(redis::RedisError::from(error))),
        value => Ok(value),
    }
}

async fn within<T, E: Into<Fault>>(
    timeout: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(timeout, work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(Fault::Lost(format!("no answer within {} ms", timeout.as_millis()))),
    }
}

/// How many calls may stand before the socket of a connection.
const CALLS_QUEUED_MAX: usize = 1024;

/// How old what is known of a server may be before it is asked again: its configuration and its
/// replicas change while it runs.
const FACTS_AGE_MS_MAX: u64 = 10_000;
