//! Which server a partition lives on, and who tells.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use cloakroom_core::types::Partition;
use redis::Value;
use tokio::task::JoinSet;

use crate::error::RedisError;
use crate::fault::Fault;
use crate::node::{Access, Node};
use crate::settings::{Address, Topology};
use crate::slot;
use crate::value;

/// The way from a partition to its master.
pub(crate) struct Routes {
    topology: Topology,
    namespace: String,
    access: Access,
    /// How to reach those that are only asked for the way.
    guide_access: Access,
    nodes: Mutex<BTreeMap<Address, Arc<Node>>>,
    guides: Vec<Arc<Node>>,
    table: ArcSwap<Table>,
    is_doubted: AtomicBool,
    /// The latest configuration that a sentinel has named, and when it was last named.
    latest: Mutex<Option<(u64, Instant)>>,
    /// The configuration whose master a sentinel last held for down or replaced, and when.
    failing: Mutex<Option<(u64, Instant)>>,
    /// Held by whoever asks for the way.
    asking: tokio::sync::Mutex<()>,
}

/// What was said last.
struct Table {
    /// By partition; one for all where there is but one master.
    masters: Vec<Arc<Node>>,
    asked_at: Option<Instant>,
    /// The former master counts no more, and there is no other yet.
    is_replaced: bool,
}

impl Table {
    const fn new(masters: Vec<Arc<Node>>) -> Self {
        Self { masters, asked_at: None, is_replaced: false }
    }

    /// Whether it was asked for since then, or so lately that asking again would be a stampede.
    fn is_fresh(&self, came_at: Instant, partitions: u16) -> bool {
        let is_lately = |at: Instant| at >= came_at || at.elapsed() < ASK_INTERVAL;
        let count = self.masters.len();
        let is_whole = self.is_replaced || count == 1 || count == usize::from(partitions);
        is_whole && self.asked_at.is_some_and(is_lately)
    }
}

impl Routes {
    /// The way is still to be asked for.
    pub(crate) fn new(
        topology: Topology,
        namespace: &str,
        access: Access,
        guide_access: Access,
    ) -> Result<Self, RedisError> {
        let mut routes = Self {
            topology,
            namespace: namespace.to_owned(),
            access,
            guide_access,
            nodes: Mutex::default(),
            guides: Vec::new(),
            table: ArcSwap::from_pointee(Table::new(Vec::new())),
            is_doubted: AtomicBool::new(true),
            latest: Mutex::default(),
            failing: Mutex::default(),
            asking: tokio::sync::Mutex::new(()),
        };
        let guides = match &routes.topology {
            Topology::Standalone(address) => {
                let masters = vec![routes.node(address)?];
                routes.table.store(Arc::new(Table::new(masters)));
                routes.is_doubted = AtomicBool::new(false);
                Vec::new()
            }
            Topology::Cluster(seeds) => {
                seeds.iter().map(|seed| routes.node(seed)).collect::<Result<_, _>>()?
            }
            Topology::Sentinel { sentinels, .. } => {
                let make = |address: &Address| Node::new(address.clone(), &routes.guide_access);
                let made = sentinels.iter().map(make).map(|node| node.map(Arc::new));
                made.collect::<Result<_, _>>()?
            }
        };
        routes.guides = guides;
        Ok(routes)
    }

    /// Whether another server may take over.
    pub(crate) const fn is_elastic(&self) -> bool {
        match self.topology {
            Topology::Standalone(_) => false,
            Topology::Cluster(_) | Topology::Sentinel { .. } => true,
        }
    }

    /// Whether what a server holds may be on its way to another.
    pub(crate) const fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster(_))
    }

    /// The master of a partition, as far as is known.
    pub(crate) async fn master(
        self: &Arc<Self>,
        partition: Partition,
        partitions: u16,
    ) -> Result<Arc<Node>, RedisError> {
        if self.is_doubted.load(Ordering::Acquire) {
            // Whoever asks must not go with whoever wants to know: the question would never be put
            // to its end where calls have less time than it takes.
            let routes = Arc::clone(self);
            let asked = tokio::spawn(async move { routes.ask(partitions).await }).await;
            let asked = asked.unwrap_or(Err(RedisError::FailingOver));
            // Whoever is still there may be asked along the old way.
            if self.table.load().masters.is_empty() {
                asked?;
            }
        } else if self.is_old() {
            let routes = Arc::clone(self);
            tokio::spawn(async move { routes.ask(partitions).await });
        }
        let table = self.table.load();
        let number = if table.masters.len() > 1 { usize::from(partition.0) } else { 0 };
        let nobody = || match table.is_replaced {
            true => RedisError::FailingOver,
            false => RedisError::NoOwner(slot::of_partition(&self.namespace, partition)),
        };
        table.masters.get(number).cloned().ok_or_else(nobody)
    }

    /// All masters, each once.
    pub(crate) fn masters(&self) -> Vec<Arc<Node>> {
        let table = self.table.load();
        let by_address = table.masters.iter().map(|node| (&node.address, node));
        by_address.collect::<BTreeMap<_, _>>().into_values().cloned().collect()
    }

    /// The next call asks for the way.
    pub(crate) fn doubt(&self) {
        if self.is_elastic() {
            self.is_doubted.store(true, Ordering::Release);
        }
    }

    /// Goes another way for one partition, as its former master said.
    pub(crate) fn go(&self, partition: Partition, to: &Address) -> Result<(), RedisError> {
        let node = self.node(to)?;
        self.table.rcu(|table| {
            let mut masters = table.masters.clone();
            if let Some(master) = masters.get_mut(usize::from(partition.0)) {
                *master = Arc::clone(&node);
            }
            Table { masters, asked_at: table.asked_at, is_replaced: table.is_replaced }
        });
        Ok(())
    }

    /// The server at an address.
    pub(crate) fn node(&self, address: &Address) -> Result<Arc<Node>, RedisError> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = nodes.get(address) {
            return Ok(Arc::clone(node));
        }
        let node = Arc::new(Node::new(address.clone(), &self.access)?);
        nodes.insert(address.clone(), Arc::clone(&node));
        Ok(node)
    }

    /// Sentinels are asked all the time: a master that is cut off with us says nothing of it.
    fn is_old(&self) -> bool {
        match self.topology {
            Topology::Standalone(_) | Topology::Cluster(_) => false,
            Topology::Sentinel { .. } => {
                let age = self.table.load().asked_at.map(|at| at.elapsed());
                age.is_none_or(|age| age > SENTINEL_INTERVAL) && self.asking.try_lock().is_ok()
            }
        }
    }

    /// Asks for the way; once for all who come meanwhile.
    async fn ask(&self, partitions: u16) -> Result<(), RedisError> {
        let came_at = Instant::now();
        let _asking = self.asking.lock().await;
        let table = self.table.load();
        if table.is_fresh(came_at, partitions) {
            return if table.is_replaced { Err(RedisError::FailingOver) } else { Ok(()) };
        }
        let found = match &self.topology {
            Topology::Standalone(_) => return Ok(()),
            Topology::Cluster(_) => self.ask_cluster(partitions).await,
            Topology::Sentinel { master, .. } => self.ask_sentinels(master).await,
        };
        let was = self.table.load();
        let masters = match &found {
            Ok(masters) => masters.clone(),
            // It may be up again with what it had, and is about to lose what it is told.
            Err(RedisError::FailingOver) => Vec::new(),
            Err(_) => was.masters.clone(),
        };
        let is_replaced = matches!(found, Err(RedisError::FailingOver));
        for gone in
            was.masters.iter().filter(|node| !masters.iter().any(|m| m.address == node.address))
        {
            gone.forget_links();
        }
        self.is_doubted.store(found.is_err(), Ordering::Release);
        let asked_at = Some(Instant::now());
        self.table.store(Arc::new(Table { masters, asked_at, is_replaced }));
        found.map(|_| ())
    }

    async fn ask_cluster(&self, partitions: u16) -> Result<Vec<Arc<Node>>, RedisError> {
        let mut guides = self.masters();
        guides.extend(self.guides.iter().cloned());
        let mut cmd = redis::cmd("CLUSTER");
        cmd.arg("SLOTS");
        let mut problem = RedisError::NoOwner(0);
        let ask = |guide: Arc<Node>| {
            let cmd = cmd.clone();
            async move { ask_node(&guide, &cmd).await }
        };
        let mut asked = ask_nodes(&guides, ask);
        while let Some(Ok((guide, reply))) = asked.join_next().await {
            match reply {
                Ok(reply) => match self.read_slots(&reply, &guide.address, partitions) {
                    Ok(masters) => return Ok(masters),
                    Err(error) => problem = error,
                },
                Err(Fault::Other(text)) if text.contains("cluster support disabled") => {
                    return Err(RedisError::NoCluster(guide.address.to_string()));
                }
                Err(fault) => problem = at_node(&guide, fault),
            }
        }
        Err(problem)
    }

    /// From ranges of slots to the master of each partition.
    fn read_slots(
        &self,
        reply: &Value,
        asked: &Address,
        partitions: u16,
    ) -> Result<Vec<Arc<Node>>, RedisError> {
        let mut ranges = Vec::new();
        for range in value::items(reply) {
            let [first, last, master, ..] = value::items(range) else { continue };
            let [host, port, ..] = value::items(master) else { continue };
            let host = value::text(host).filter(|host| !host.is_empty() && *host != "?");
            let host = host.unwrap_or(&asked.host).to_owned();
            let port = value::number(port).and_then(|port| u16::try_from(port).ok());
            let bounds = value::number(first).zip(value::number(last));
            if let (Some(port), Some((first, last))) = (port, bounds) {
                ranges.push((first..=last, Address { host, port }));
            }
        }
        let owner = |number| {
            let slot = slot::of_partition(&self.namespace, Partition(number));
            let range = ranges.iter().find(|(range, _)| range.contains(&i64::from(slot)));
            let (_, address) = range.ok_or(RedisError::NoOwner(slot))?;
            self.node(address)
        };
        (0..partitions).map(owner).collect()
    }

    /// The master of the latest configuration: during a failover one sentinel knows it before the
    /// others do, and the former master may be up again meanwhile, with what it had. Among those of
    /// one configuration, the master that most of them name.
    async fn ask_sentinels(&self, name: &str) -> Result<Vec<Arc<Node>>, RedisError> {
        let mut problem = RedisError::NoMaster(name.to_owned());
        let mut votes = Votes::new();
        let mut silent = false;
        let ask = |guide: Arc<Node>| {
            let name = name.to_owned();
            async move { named_master(&guide, &name).await }
        };
        let mut asked = ask_nodes(&self.guides, ask);
        while let Some(Ok((guide, reply))) = asked.join_next().await {
            match reply {
                Ok(Some((named, is_replaced))) => {
                    let vote = votes.entry(named).or_default();
                    vote.count += 1;
                    vote.is_replaced |= is_replaced;
                }
                Ok(None) => {}
                Err(fault) => {
                    silent = true;
                    problem = at_node(&guide, fault);
                }
            }
        }
        let Some(((epoch, address), vote)) = elected(votes) else { return Err(problem) };
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if vote.is_replaced {
            *failing = Some((epoch, Instant::now()));
        }
        let now = Instant::now();
        let may_fail = silent && failing.is_some_and(|failing| may_still_fail(epoch, failing, now));
        if vote.is_replaced || may_fail {
            return Err(RedisError::FailingOver);
        }
        *failing = None;
        drop(failing);
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.is_some_and(|latest| is_behind(epoch, latest, Instant::now())) {
            let masters = self.table.load().masters.clone();
            return if masters.is_empty() { Err(RedisError::FailingOver) } else { Ok(masters) };
        }
        *latest = Some((epoch, Instant::now()));
        Ok(vec![self.node(&address)?])
    }
}

/// Of what was named how often, the master of the latest configuration, with that.
fn elected(votes: Votes) -> Option<((u64, Address), Vote)> {
    votes.into_iter().max_by_key(|((epoch, _), vote)| (*epoch, vote.count))
}

/// Who was named, under which configuration.
type Votes = BTreeMap<(u64, Address), Vote>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Vote {
    count: usize,
    /// Some sentinel is about to name another.
    is_replaced: bool,
}

/// Whether a configuration is older than the latest one and that one may still be relied on:
/// whoever named it may be away for a moment. Not for long, since sentinels that were set up anew
/// count from zero.
fn is_behind(epoch: u64, (latest, named_at): (u64, Instant), now: Instant) -> bool {
    epoch < latest && now.saturating_duration_since(named_at) < EPOCH_KEPT
}

/// Whether a configuration's master may be being replaced still, though nobody who answers says so:
/// whoever said so is silent, and the others learn of it last.
fn may_still_fail(epoch: u64, (failing, told_at): (u64, Instant), now: Instant) -> bool {
    epoch <= failing && now.saturating_duration_since(told_at) < EPOCH_KEPT
}

/// The master that a sentinel names, and under which configuration. That is asked for first: so a
/// former master is never taken for the one of a later configuration. And whether it is being
/// replaced.
async fn named_master(guide: &Node, name: &str) -> Result<Option<((u64, Address), bool)>, Fault> {
    let asked = |what: &str| {
        let mut cmd = redis::cmd("SENTINEL");
        cmd.arg(what).arg(name);
        cmd
    };
    let told = match ask_node(guide, &asked("master")).await {
        Ok(reply) => Told::of(&reply),
        // Without the privilege, or the master, what it names counts least.
        Err(Fault::Privilege(_) | Fault::Other(_)) => Told::default(),
        Err(fault) => return Err(fault),
    };
    let reply = ask_node(guide, &asked("get-master-addr-by-name")).await?;
    Ok(named_address(&reply).map(|address| {
        let is_replaced = told.failing.as_ref() == Some(&address);
        ((told.epoch, address), is_replaced)
    }))
}

/// What a sentinel tells of a master.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    /// The number of the configuration.
    epoch: u64,
    /// Where the master is that it holds for down, or is replacing.
    failing: Option<Address>,
}

impl Told {
    fn of(reply: &Value) -> Self {
        let pairs = value::pairs(reply);
        let field = |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        let epoch = field("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        let is_failing = field("flags").is_some_and(|flags| {
            flags.split(',').any(|flag| matches!(flag, "o_down" | "failover_in_progress"))
        });
        let port = field("port").and_then(|port| port.parse().ok());
        let at = field("ip").zip(port).map(|(host, port)| Address { host: host.to_owned(), port });
        Self { epoch, failing: at.filter(|_| is_failing) }
    }
}

fn named_address(reply: &Value) -> Option<Address> {
    let [host, port] = value::items(reply) else { return None };
    let port = value::number(port).and_then(|port| u16::try_from(port).ok())?;
    Some(Address { host: value::text(host)?.to_owned(), port })
}

/// Asks all of them at once: one that hangs must not keep the others from answering.
fn ask_nodes<T, F>(nodes: &[Arc<Node>], ask: impl Fn(Arc<Node>) -> F) -> JoinSet<(Arc<Node>, T)>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut asked = JoinSet::new();
    for node in nodes {
        let (node, reply) = (Arc::clone(node), ask(Arc::clone(node)));
        asked.spawn(async move { (node, reply.await) });
    }
    asked
}

async fn ask_node(node: &Node, cmd: &redis::Cmd) -> Result<Value, Fault> {
    let late = || Fault::Lost("it didn't answer in time".to_owned());
    let connected = tokio::time::timeout(GUIDE_TIMEOUT, node.shared()).await;
    let link = connected.map_err(|_| late())??;
    match tokio::time::timeout(GUIDE_TIMEOUT, link.ask(cmd)).await {
        Ok(reply) => reply,
        Err(_) => {
            link.give_up();
            Err(late())
        }
    }
}

/// What a fault of a server means at the start.
pub(crate) fn at_node(node: &Node, fault: Fault) -> RedisError {
    let address = node.address.to_string();
    match fault {
        Fault::Login(_) => RedisError::WrongLogin(address),
        Fault::Privilege(text) => RedisError::MissingPrivilege(text),
        Fault::Replica(_) => RedisError::Replica(address),
        Fault::NoWrites(text) => RedisError::ReadOnly(text),
        Fault::Lost(problem) | Fault::Later(problem) => {
            RedisError::Unreachable { address, problem }
        }
        Fault::Moved(_) | Fault::Ask(_) | Fault::NoScript | Fault::WrongType(_) => {
            RedisError::Unexpected { address, problem: fault.problem() }
        }
        Fault::Other(problem) => of_words(address, problem),
    }
}

/// What waiting can't mend is known by its words alone.
fn of_words(address: String, problem: String) -> RedisError {
    let words = problem.to_ascii_lowercase();
    if words.contains("db index") {
        RedisError::NoDatabase(address)
    } else if words.contains("unknown command") && words.contains("sentinel") {
        RedisError::NoSentinel(address)
    } else {
        RedisError::Unexpected { address, problem }
    }
}

/// How often the way is asked for at most.
const ASK_INTERVAL: Duration = Duration::from_millis(50);
/// How often sentinels are asked while all goes well.
const SENTINEL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a sentinel's configuration outranks an earlier one after it was last named.
const EPOCH_KEPT: Duration = Duration::from_secs(10);
/// How long one of several may think about the way.
const GUIDE_TIMEOUT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Address {
        Address { host: "127.0.0.1".to_owned(), port }
    }

    const fn votes(count: usize) -> Vote {
        Vote { count, is_replaced: false }
    }

    #[test]
    fn one_sentinel_that_knows_of_the_failover_outvotes_two_that_do_not_yet() {
        let named = BTreeMap::from([((3, address(1)), votes(2)), ((4, address(2)), votes(1))]);
        assert_eq!(elected(named), Some(((4, address(2)), votes(1))));
    }

    #[test]
    fn of_one_configuration_most_votes_decide() {
        let named = BTreeMap::from([((3, address(1)), votes(2)), ((3, address(2)), votes(1))]);
        assert_eq!(elected(named), Some(((3, address(1)), votes(2))));
        assert_eq!(elected(BTreeMap::new()), None);
    }

    #[test]
    fn an_older_configuration_counts_again_when_nobody_names_the_later_one_for_long() {
        let named_at = Instant::now();
        assert!(is_behind(3, (4, named_at), named_at));
        assert!(!is_behind(4, (4, named_at), named_at));
        assert!(!is_behind(5, (4, named_at), named_at));
        assert!(!is_behind(0, (4, named_at), named_at + EPOCH_KEPT));
    }

    #[test]
    fn a_replacement_is_believed_until_all_deny_it_another_is_named_or_it_was_long_ago() {
        let told_at = Instant::now();
        assert!(may_still_fail(4, (4, told_at), told_at));
        assert!(!may_still_fail(5, (4, told_at), told_at));
        assert!(!may_still_fail(4, (4, told_at), told_at + EPOCH_KEPT));
    }

    #[test]
    fn the_configuration_is_read_from_either_protocol_and_is_the_least_where_it_is_not_told() {
        let pairs = [("name", "main"), ("config-epoch", "7")].map(|(n, v)| (text(n), text(v)));
        let flat = pairs.clone().into_iter().flat_map(|(name, value)| [name, value]).collect();
        assert_eq!(Told::of(&Value::Array(flat)).epoch, 7);
        assert_eq!(Told::of(&Value::Map(pairs.to_vec())).epoch, 7);
        assert_eq!(Told::of(&Value::Nil), Told::default());
    }

    #[test]
    fn a_master_that_is_held_for_down_or_replaced_counts_no_more_though_it_is_up_again() {
        let told = |flags: &str| {
            let pairs = [("ip", "127.0.0.1"), ("port", "1"), ("flags", flags)];
            Told::of(&Value::Map(pairs.map(|(n, v)| (text(n), text(v))).to_vec())).failing
        };
        for flags in ["master", "master,s_down", "master,disconnected"] {
            assert_eq!(told(flags), None, "{flags}");
        }
        for flags in ["master,o_down", "s_down,o_down,master", "master,failover_in_progress"] {
            assert_eq!(told(flags), Some(address(1)), "{flags}");
        }
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }
}
