//! Wake-ups from commits to those who follow the logs. Nothing but sooner depends on them.
//!
//! A `NOTIFY` within a commit would make all commits of the whole server queue behind one lock
//! until they are on disk. So it is sent afterwards, by itself, for all commits of a moment.

use std::collections::BTreeSet;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cloakroom_core::types::Partition;
use cloakroom_store::wake::Basket;
use tokio::task::JoinHandle;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::tell;
use crate::link::Link;
use crate::statements::Statement;

/// Sends and receives wake-ups. Both ends run until it is dropped.
pub(crate) struct Wake {
    sent: Arc<Basket>,
    sender: JoinHandle<()>,
    received: Arc<Basket>,
    /// Begun by the first who waits.
    receiver: OnceLock<JoinHandle<()>>,
    listen: Listen,
}

/// How to listen: a pooled connection can't.
#[derive(Clone)]
pub(crate) struct Listen {
    pub(crate) config: Config,
    pub(crate) tls: MakeRustlsConnect,
    pub(crate) channel: String,
}

impl Wake {
    /// Sends over the store's own connections.
    pub(crate) fn new(link: Link, listen: Listen) -> Self {
        let sent = Arc::new(Basket::default());
        let sender = tokio::spawn(send(link, listen.channel.clone(), Arc::clone(&sent)));
        let (received, receiver) = (Arc::default(), OnceLock::new());
        Self { sent, sender, received, receiver, listen }
    }

    /// Lets all nodes know, soon.
    pub(crate) fn announce(&self, partition: Partition) {
        self.sent.put([partition.0]);
    }

    /// Waits for partitions that have changed; none means any of them.
    pub(crate) async fn changed(&self) -> Vec<Partition> {
        self.receiver
            .get_or_init(|| tokio::spawn(receive(self.listen.clone(), Arc::clone(&self.received))));
        self.received.take().await.unwrap_or_default().into_iter().map(Partition).collect()
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.sender.abort();
        if let Some(receiver) = self.receiver.get() {
            receiver.abort();
        }
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wake").finish_non_exhaustive()
    }
}

/// Announces what was committed, a few times a second at most.
async fn send(link: Link, channel: String, sent: Arc<Basket>) {
    // It needn't outlive a power loss, so it waits for no flush, and holds the lock that all
    // notifying transactions share as briefly.
    let notify = Statement::once(
        "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)".to_owned(),
    );
    loop {
        let payload = sent.take().await.map(|partitions| spell(&partitions)).unwrap_or_default();
        let arguments: [crate::link::Argument<'_>; 2] =
            [(&channel, Type::TEXT), (&payload, Type::TEXT)];
        // A wake-up that is lost costs half a second.
        if let Err(error) = link.read(&notify, &arguments).await {
            tracing::debug!("a wake-up was lost: {error}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Listens, and connects anew for as long as it takes.
async fn receive(listen: Listen, received: Arc<Basket>) {
    loop {
        if let Err(error) = hear(&listen, &received).await {
            tracing::debug!("wake-ups can't be heard: {}", tell(&error));
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn hear(listen: &Listen, received: &Basket) -> Result<(), tokio_postgres::Error> {
    let (client, mut connection) = listen.config.connect(listen.tls.clone()).await?;
    let sql = format!("LISTEN {}", listen.channel);
    let mut asking = std::pin::pin!(client.batch_execute(&sql));
    let mut is_listening = false;
    loop {
        let message = tokio::select! {
            answer = &mut asking, if !is_listening => {
                answer?;
                is_listening = true;
                // Whatever was announced while nobody listened.
                received.put_any();
                continue;
            }
            message = poll_fn(|context| connection.poll_message(context)) => message,
        };
        match message {
            None => return Ok(()),
            Some(Err(error)) => return Err(error),
            Some(Ok(AsyncMessage::Notification(heard))) => match read(heard.payload()) {
                Some(partitions) => received.put(partitions),
                None => received.put_any(),
            },
            Some(Ok(_)) => {}
        }
    }
}

/// Partitions as a payload; empty for more than fit into one.
fn spell(partitions: &BTreeSet<u16>) -> String {
    let numbers: Vec<String> = partitions.iter().map(u16::to_string).collect();
    let payload = numbers.join(",");
    if payload.len() > PAYLOAD_BYTES_MAX { String::new() } else { payload }
}

/// The partitions of a payload; none where it names none that can be read.
fn read(payload: &str) -> Option<BTreeSet<u16>> {
    payload.split(',').map(|number| number.parse().ok()).collect()
}

/// At most so often is anything announced by one node: all commits in between share it.
const PAUSE: Duration = Duration::from_millis(5);

/// How long a lost listener waits before it connects again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// Below PostgreSQL's 8000.
const PAYLOAD_BYTES_MAX: usize = 7000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_survive_their_payload() {
        let some = BTreeSet::from([0, 7, u16::MAX]);
        assert_eq!(spell(&some), "0,7,65535");
        assert_eq!(read(&spell(&some)), Some(some));
        assert_eq!(spell(&(0..=u16::MAX).collect()), "");
        assert_eq!(read(""), None);
        assert_eq!(read("1,x"), None);
    }
}
