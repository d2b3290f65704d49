//! Wake-ups from commits to those who follow the logs. Nothing but sooner depends on them.
//!
//! A commit that ends something publishes its partition within its script, so it costs no trip.
//! Whoever follows listens at one server: those of a cluster pass on to each other what is
//! published, and so does a master to its replicas.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cloakroom_core::types::Partition;
use cloakroom_store::wake::Basket;
use futures_util::Stream;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Msg, Value};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::fault::Fault;
use crate::routes::Routes;

/// Receives wake-ups until it is dropped.
pub(crate) struct Wake {
    channel: Arc<str>,
    routes: Arc<Routes>,
    received: Arc<Basket>,
    /// Begun by the first who waits.
    receiver: OnceLock<JoinHandle<()>>,
}

impl Wake {
    /// For the commits of a namespace.
    pub(crate) fn new(routes: Arc<Routes>, namespace: &str) -> Self {
        let channel = format!("{namespace}:changed").into();
        Self { channel, routes, received: Arc::default(), receiver: OnceLock::new() }
    }

    /// Where partitions are published.
    pub(crate) fn channel(&self) -> &str {
        &self.channel
    }

    /// Waits for partitions that have changed; none means any of them.
    pub(crate) async fn changed(&self) -> Vec<Partition> {
        self.receiver.get_or_init(|| {
            let (routes, channel) = (Arc::clone(&self.routes), Arc::clone(&self.channel));
            tokio::spawn(receive(routes, channel, Arc::clone(&self.received)))
        });
        self.received.take().await.unwrap_or_default().into_iter().map(Partition).collect()
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        if let Some(receiver) = self.receiver.get() {
            receiver.abort();
        }
    }
}

/// Listens, and connects anew for as long as it takes; each time at the next server.
async fn receive(routes: Arc<Routes>, channel: Arc<str>, received: Arc<Basket>) {
    let mut is_told = false;
    for attempt in 0.. {
        let masters = routes.masters();
        if let Some(node) = masters.get(attempt % masters.len().max(1)) {
            match node.listen(&channel).await {
                Ok((mut server, mut messages)) => {
                    // Whatever was published while nobody listened.
                    received.put_any();
                    while hear(&mut messages, &received).await || is_there(&mut server).await {}
                }
                Err(Fault::Privilege(why)) if !is_told => {
                    is_told = true;
                    tracing::warn!(
                        why,
                        channel = &*channel,
                        "endings by other nodes are noticed only twice a second: the channel is \
                         closed to this user"
                    );
                }
                Err(fault) => tracing::debug!(problem = fault.problem(), "no wake-ups"),
            }
        }
        sleep(RECONNECT_PAUSE).await;
    }
}

async fn is_there(server: &mut PubSubSink) -> bool {
    timeout(PING_MAX, server.ping::<Value>()).await.is_ok_and(|answer| answer.is_ok())
}

/// Waits for one message. False: none came for so long that the server should be asked whether it
/// is still there, or none can come any more.
async fn hear(messages: &mut PubSubStream, received: &Basket) -> bool {
    let next = std::future::poll_fn(|context| Pin::new(&mut *messages).poll_next(context));
    let message: Option<Msg> = timeout(SILENCE_MAX, next).await.ok().flatten();
    let Some(message) = message else { return false };
    match message.get_payload::<u16>() {
        Ok(partition) => received.put([partition]),
        Err(_) => received.put_any(),
    }
    true
}

/// How long a lost listener waits before it connects again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// How long the answer of a server that is there may take.
const PING_MAX: Duration = Duration::from_secs(2);

/// A connection over which nothing came for so long may be dead without anybody having said so.
const SILENCE_MAX: Duration = Duration::from_secs(10);
