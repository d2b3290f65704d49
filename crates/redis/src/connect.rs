//! The start: where the servers are, whether they can be trusted with a store, and its layout.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::types::Partition;
use redis::{ClientTlsConfig, TlsCertificates};
use tokio::sync::Semaphore;

use crate::error::RedisError;
use crate::fault::Fault;
use crate::keys::Keys;
use crate::node::{Access, Node};
use crate::routes::{Routes, at_node};
use crate::script::{Call, PREPARE};
use crate::server::Server;
use crate::settings::{Login, RedisSettings, Target, TlsFiles, Topology};
use crate::value;

/// What somebody connects for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To use the store, which is made where there is none.
    Use,
    /// To look at one that is there.
    Look,
}

/// Connects, checks, and finds the store or makes it.
pub(crate) async fn connect(
    settings: &RedisSettings,
    purpose: Purpose,
) -> Result<Server, RedisError> {
    check(settings)?;
    let mut target = Target::parse(settings.url.expose())?;
    let certificates = if target.is_tls { Some(certificates(&settings.tls)?) } else { None };
    let shared_links = (settings.pool / 4).clamp(1, SHARED_LINKS_MAX);
    let timeout = settings.timeout / 2;
    let guide_login = match &mut target.topology {
        Topology::Sentinel { login, .. } => std::mem::take(login),
        Topology::Standalone(_) | Topology::Cluster(_) => Login::default(),
    };
    let guide_access = Access {
        login: guide_login,
        database: 0,
        certificates: certificates.clone(),
        shared_links: 1,
        timeout,
        expects_master: false,
    };
    let is_cluster = matches!(target.topology, Topology::Cluster(_));
    let access = Access {
        login: target.login,
        database: target.database,
        certificates,
        shared_links,
        timeout,
        expects_master: !is_cluster,
    };
    let routes = Routes::new(target.topology, &settings.namespace, access, guide_access)?;
    let routes = Arc::new(routes);
    let first = routes.master(Partition::ZERO, settings.partitions).await?;
    for node in routes.masters() {
        check_node(&node, is_cluster).await?;
    }
    let partitions = match purpose {
        Purpose::Use => prepare(&first, settings).await?,
        Purpose::Look => look(&first, settings).await?,
    };
    // So far they were asked for as many partitions as a new store would have.
    routes.doubt();
    routes.master(Partition::ZERO, partitions).await?;
    Ok(Server {
        routes,
        partitions,
        timeout: settings.timeout,
        calls: Semaphore::new(settings.pool.max(1) * CALLS_PER_LINK_MAX),
        own_links: Semaphore::new(settings.pool.saturating_sub(shared_links).max(1)),
    })
}

fn check(settings: &RedisSettings) -> Result<(), RedisError> {
    let namespace = &settings.namespace;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if namespace.is_empty() || namespace.len() > 64 || !namespace.chars().all(plain) {
        return Err(RedisError::Namespace(namespace.escape_debug().take(64).collect()));
    }
    if !(1..=PARTITIONS_MAX).contains(&settings.partitions) {
        return Err(RedisError::Partitions(settings.partitions));
    }
    Ok(())
}

fn certificates(files: &TlsFiles) -> Result<TlsCertificates, RedisError> {
    // A second provider in the process would leave the choice open; the first one stays.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let read = |path: &Path| {
        let problem = |error| RedisError::Tls(format!("{} can't be read: {error}", path.display()));
        std::fs::read(path).map_err(problem)
    };
    let root_cert = files.ca.as_deref().map(read).transpose()?;
    let client_tls = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? })
        }
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            let problem = "a certificate needs its key, and a key its certificate";
            return Err(RedisError::Tls(problem.to_owned()));
        }
    };
    Ok(TlsCertificates { client_tls, root_cert })
}

async fn check_node(node: &Node, is_cluster: bool) -> Result<(), RedisError> {
    let link = node.shared().await.map_err(|fault| at_node(node, fault))?;
    let facts = link.facts();
    let address = node.address.to_string();
    match (facts.mode.as_str(), is_cluster) {
        ("cluster", false) => Err(RedisError::PartOfCluster(address)),
        ("standalone", true) => Err(RedisError::NoCluster(address)),
        _ => facts.check(&address),
    }
}

/// Finds the layout or fixes it; says how many partitions the store has.
async fn prepare(node: &Node, settings: &RedisSettings) -> Result<u16, RedisError> {
    let keys = Keys::of(&settings.namespace, Partition::ZERO);
    let named = [keys.layout(), keys.trial(1), keys.trial(2), keys.trial(3)];
    let mut call = Call::script(&PREPARE, &named);
    call.arg(format!("{LAYOUT} {}", settings.partitions));
    let mut cmd = redis::cmd("SCRIPT");
    cmd.arg("LOAD").arg(PREPARE.text());
    let prepared = async {
        let link = node.shared().await?;
        link.ask(&cmd).await?;
        link.ask(&call.cmd).await
    };
    let reply = in_time(node, settings, prepared).await?;
    read_layout(value::text(&reply).unwrap_or_default())
}

/// Finds the layout; writes nothing.
async fn look(node: &Node, settings: &RedisSettings) -> Result<u16, RedisError> {
    let mut cmd = redis::cmd("GET");
    cmd.arg(Keys::of(&settings.namespace, Partition::ZERO).layout());
    let reply = in_time(node, settings, async { node.shared().await?.ask(&cmd).await }).await?;
    match value::text(&reply) {
        Some(layout) => read_layout(layout),
        None => Err(RedisError::NoStore(settings.namespace.clone())),
    }
}

async fn in_time(
    node: &Node,
    settings: &RedisSettings,
    asked: impl Future<Output = Result<redis::Value, Fault>>,
) -> Result<redis::Value, RedisError> {
    let problem = |fault| at_node(node, fault);
    match tokio::time::timeout(settings.timeout, asked).await {
        Ok(reply) => reply.map_err(problem),
        Err(_) => Err(problem(Fault::Lost("it didn't answer in time".to_owned()))),
    }
}

/// How many partitions a store of this layout has.
fn read_layout(layout: &str) -> Result<u16, RedisError> {
    let partitions = match layout.split_once(' ') {
        Some((LAYOUT, partitions)) => partitions.parse().ok(),
        Some(_) | None => None,
    };
    let is_possible = |partitions: &u16| (1..=PARTITIONS_MAX).contains(partitions);
    let unknown = || RedisError::Layout(layout.chars().take(64).collect());
    partitions.filter(is_possible).ok_or_else(unknown)
}

/// The layout of keys and values that this release reads and writes.
const LAYOUT: &str = "1";

const PARTITIONS_MAX: u16 = 1024;

/// More connections than these would only make pipelines shorter.
const SHARED_LINKS_MAX: usize = 8;

/// How many calls may be under way for each connection there may be.
const CALLS_PER_LINK_MAX: usize = 256;

/// A replica's acknowledgement takes a round trip more than its master's.
pub(crate) const WAIT_MARGIN: Duration = Duration::from_millis(50);
