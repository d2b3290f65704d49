//! Calls: to the right server, again where that can't do harm, and never past the deadline.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::types::Partition;
use cloakroom_store::StoreError;
use redis::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::RedisError;
use crate::facts::Facts;
use crate::fault::Fault;
use crate::link::{Expects, Link, answer};
use crate::node::Node;
use crate::routes::Routes;
use crate::script::Call;
use crate::settings::Address;

/// The servers of a store.
pub(crate) struct Server {
    pub(crate) routes: Arc<Routes>,
    pub(crate) partitions: u16,
    pub(crate) timeout: Duration,
    /// How many calls may be under way.
    pub(crate) calls: Semaphore,
    /// How many may have a connection of their own.
    pub(crate) own_links: Semaphore,
}

/// What a lost answer leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: it is asked again.
    None,
    /// Whether the call took effect.
    Unknown,
    /// The same, on a connection of its own, with how many replicas there are.
    UnknownAlone,
}

/// An answer, and where it came from.
pub(crate) struct Answer<'a> {
    pub(crate) value: Value,
    pub(crate) node: Arc<Node>,
    pub(crate) link: Arc<Link>,
    /// What `INFO replication` said in the same breath, where it was asked.
    pub(crate) replication: Option<Value>,
    /// As long as it is held, the connection is this call's own.
    _own: Option<SemaphorePermit<'a>>,
}

/// How far a call has come, for when time is up.
#[derive(Default)]
struct Progress {
    is_sent: bool,
    /// On which connection it was sent last.
    link: Option<Arc<Link>>,
    last: Option<StoreError>,
}

impl Server {
    /// Makes a call to the master of a partition.
    pub(crate) async fn call(
        &self,
        partition: Partition,
        call: &Call,
        effect: Effect,
    ) -> Result<Answer<'_>, StoreError> {
        self.call_by(Instant::now() + self.timeout, partition, call, effect).await
    }

    /// The same with a deadline of the caller's.
    pub(crate) async fn call_by(
        &self,
        deadline: Instant,
        partition: Partition,
        call: &Call,
        effect: Effect,
    ) -> Result<Answer<'_>, StoreError> {
        let mut progress = Progress::default();
        let until = self.until_answered(partition, call, effect, &mut progress);
        match timeout_at(deadline, until).await {
            Ok(answer) => answer,
            Err(_) => Err(self.late(effect, progress)),
        }
    }

    /// Reads strings from one state without a script, which costs the server a quarter; none where
    /// that needs more than one plain question.
    pub(crate) async fn peek(
        &self,
        deadline: Instant,
        partition: Partition,
        keys: &[Vec<u8>],
        expects: Expects,
    ) -> Result<Option<Vec<Value>>, StoreError> {
        let mut progress = Progress::default();
        let asking = async {
            let _call = self.calls.acquire().await.ok()?;
            let node = self.routes.master(partition, self.partitions).await.ok()?;
            let link = node.shared().await.ok()?;
            progress.is_sent = true;
            progress.link = Some(Arc::clone(&link));
            link.get_all(keys, expects).await.ok().flatten()
        };
        match timeout_at(deadline, asking).await {
            Ok(replies) => Ok(replies),
            Err(_) => Err(self.late(Effect::None, progress)),
        }
    }

    fn late(&self, effect: Effect, progress: Progress) -> StoreError {
        // The server, or the way to it, hangs; what comes after should not hang with it.
        if let Some(link) = progress.link.filter(|_| progress.is_sent) {
            link.give_up();
            self.routes.doubt();
        }
        let why = format!("no answer within {} ms", self.timeout.as_millis());
        match (progress.is_sent, effect, progress.last) {
            (true, Effect::Unknown | Effect::UnknownAlone, _) => StoreError::OutcomeUnknown(why),
            (false, _, Some(last)) => last,
            (true, Effect::None, _) | (false, _, None) => StoreError::Unavailable(why),
        }
    }

    async fn until_answered(
        &self,
        partition: Partition,
        call: &Call,
        effect: Effect,
        progress: &mut Progress,
    ) -> Result<Answer<'_>, StoreError> {
        let busy = |_| StoreError::Unavailable("the store is closed".to_owned());
        let _call = self.calls.acquire().await.map_err(busy)?;
        let mut attempt = Attempt::default();
        loop {
            let node = match &attempt.asked {
                Some(node) => Arc::clone(node),
                None => match self.routes.master(partition, self.partitions).await {
                    Ok(master) => master,
                    Err(error @ RedisError::FailingOver) => {
                        progress.last = Some(StoreError::Unavailable(error.to_string()));
                        attempt.pause().await;
                        attempt.number += 1;
                        continue;
                    }
                    Err(error) => return Err(StoreError::Unavailable(error.to_string())),
                },
            };
            let fault = match self.connect(&node, effect).await {
                Ok((link, own)) => {
                    progress.is_sent = true;
                    progress.link = Some(Arc::clone(&link));
                    match self.send(&link, call, effect, attempt.asked.is_some()).await {
                        Ok((value, replication)) => {
                            return Ok(Answer { value, node, link, replication, _own: own });
                        }
                        Err(Fault::Lost(why)) if effect != Effect::None => {
                            self.routes.doubt();
                            return Err(StoreError::OutcomeUnknown(why));
                        }
                        Err(fault) => {
                            progress.is_sent = false;
                            if effect == Effect::UnknownAlone {
                                node.give_back(Arc::clone(&link));
                            }
                            fault
                        }
                    }
                }
                Err(fault) => fault,
            };
            self.digest(partition, call, &node, fault, &mut attempt, progress).await?;
        }
    }

    async fn connect(
        &self,
        node: &Node,
        effect: Effect,
    ) -> Result<(Arc<Link>, Option<SemaphorePermit<'_>>), Fault> {
        match effect {
            Effect::None | Effect::Unknown => Ok((node.shared().await?, None)),
            Effect::UnknownAlone => {
                let closed = |_| Fault::Other("the store is closed".to_owned());
                let own = self.own_links.acquire().await.map_err(closed)?;
                Ok((node.own().await?, Some(own)))
            }
        }
    }

    async fn send(
        &self,
        link: &Link,
        call: &Call,
        effect: Effect,
        is_asked: bool,
    ) -> Result<(Value, Option<Value>), Fault> {
        let is_alone = effect == Effect::UnknownAlone;
        if !is_asked && !is_alone {
            return Ok((link.ask(&call.cmd).await?, None));
        }
        let mut commands = redis::pipe();
        if is_asked {
            commands.cmd("ASKING");
        }
        commands.add_command(call.cmd.clone());
        if is_alone {
            commands.cmd("INFO").arg("replication");
        }
        let mut replies = link.ask_all(&commands).await?.into_iter();
        if is_asked {
            replies.next();
        }
        let value = answer(replies.next().unwrap_or_default())?;
        Ok((value, replies.next()))
    }

    /// Says how to go on after a fault, or that there is none.
    async fn digest(
        &self,
        partition: Partition,
        call: &Call,
        node: &Node,
        fault: Fault,
        attempt: &mut Attempt,
        progress: &mut Progress,
    ) -> Result<(), StoreError> {
        let unavailable = |error: RedisError| StoreError::Unavailable(error.to_string());
        attempt.asked = None;
        attempt.number += 1;
        match fault {
            Fault::Moved(to) => {
                let to = self.filled(to, node);
                self.routes.go(partition, &to).map_err(unavailable)?;
                self.routes.doubt();
                // Two servers that send us to each other shall not be asked as fast as can be.
                if attempt.number > 2 {
                    attempt.pause().await;
                }
            }
            Fault::Ask(to) => {
                let to = self.filled(to, node);
                attempt.asked = Some(self.routes.node(&to).map_err(unavailable)?);
                if attempt.number > 2 {
                    attempt.pause().await;
                }
            }
            Fault::NoScript if attempt.loads < LOADS_MAX => {
                attempt.loads += 1;
                self.load(call, node).await;
            }
            Fault::Later(_) => {
                progress.last = Some(fault.into_store_error(partition));
                self.routes.doubt();
                attempt.pause().await;
            }
            Fault::Replica(_) if self.routes.is_elastic() => {
                progress.last = Some(fault.into_store_error(partition));
                self.routes.doubt();
                node.forget_links();
                attempt.pause().await;
            }
            Fault::Lost(_) if self.routes.is_elastic() || attempt.number == 1 => {
                progress.last = Some(fault.into_store_error(partition));
                self.routes.doubt();
                if attempt.number > 1 {
                    attempt.pause().await;
                }
            }
            Fault::NoScript
            | Fault::Replica(_)
            | Fault::Lost(_)
            | Fault::NoWrites(_)
            | Fault::WrongType(_)
            | Fault::Login(_)
            | Fault::Privilege(_)
            | Fault::Other(_) => return Err(fault.into_store_error(partition)),
        }
        Ok(())
    }

    /// A redirection without a host means the one that was asked.
    fn filled(&self, to: Address, node: &Node) -> Address {
        if to.host.is_empty() { Address { host: node.address.host.clone(), ..to } } else { to }
    }

    /// Teaches a server the script of a call. Whether it worked shows when the call is repeated.
    async fn load(&self, call: &Call, node: &Node) {
        let Some(script) = call.script else { return };
        if let Ok(link) = node.shared().await {
            let mut cmd = redis::cmd("SCRIPT");
            cmd.arg("LOAD").arg(script.text());
            if let Err(fault) = link.ask(&cmd).await {
                tracing::debug!(node = %node.address, problem = fault.problem(), "no script");
            }
        }
    }
}

/// What was tried so far.
#[derive(Default)]
struct Attempt {
    number: u32,
    loads: u32,
    /// Who was named for this one attempt.
    asked: Option<Arc<Node>>,
}

impl Attempt {
    /// Waits a little, longer from time to time.
    async fn pause(&self) {
        sleep(PAUSE_MIN * 2u32.pow(self.number.min(PAUSE_DOUBLINGS_MAX))).await;
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_DOUBLINGS_MAX: u32 = 4;
/// A server that forgets a script twice within one call is not waited for.
const LOADS_MAX: u32 = 3;

/// What is known of the server at the other end; asks again in the background where it is old.
pub(crate) fn inspected(link: &Arc<Link>) -> Arc<Facts> {
    if link.is_to_be_inspected() {
        let link = Arc::clone(link);
        tokio::spawn(async move { link.inspect().await });
    }
    link.facts()
}
