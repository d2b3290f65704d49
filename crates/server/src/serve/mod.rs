//! A running node: its store, its authority, its two listeners and its background work.

mod background;
mod connection;
mod listen;
mod restored;
mod signals;
pub(crate) mod tls;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::{Authority, OpenError, StoreSecret, SystemEntropy};
use cloakroom_core::cookie::CookieConflict;
use cloakroom_core::password::UnsafePasswordRules;
use cloakroom_postgres::ConnectError;
use cloakroom_redis::RedisError;
use cloakroom_store::Durability;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::http::{Door, Shell};
use crate::node_files::{self, NodeFilesError};
use crate::site::Site;
use crate::store::{Holdable, Measured, StoreClock, StoreWatch, copy, open as store};
use crate::{admin, public, settings};

pub(crate) use background::Chore;
pub use listen::Address;
use listen::{Bound, Serving};
pub use signals::{Signals, Told};
use tls::Acceptor;

/// Why a node can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The embedded store can't be opened, or the data directory is another process's.
    #[error(transparent)]
    Store(#[from] cloakroom_embedded::OpenError),
    /// Redis can't be used.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// PostgreSQL can't be used.
    #[error(transparent)]
    Postgres(#[from] ConnectError),
    /// The authority can't be opened over its store.
    #[error(transparent)]
    Authority(#[from] OpenError),
    /// The node's own files can't be used.
    #[error(transparent)]
    Files(#[from] NodeFilesError),
    /// Settings of cookies that don't go together.
    #[error(transparent)]
    Cookies(#[from] CookieConflict),
    /// Settings of passwords that aren't safe.
    #[error(transparent)]
    Passwords(#[from] UnsafePasswordRules),
    /// The store is a copy that was interrupted.
    #[error(
        "a copy into this store isn't finished: run the same `cloakroom store copy` again, or \
         name an empty place"
    )]
    UnfinishedCopy,
    /// A listener can't listen.
    #[error("can't listen on {address}: {cause}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        cause: io::Error,
    },
    /// A certificate or its key can't be used.
    #[error("{}: {why}", path.display())]
    Tls {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// A node that serves.
pub struct Running {
    /// Where the public listener is.
    pub public: Address,
    /// Where the admin listener is.
    pub admin: Address,
    site: Arc<Site>,
    doors: [Serving; 2],
    acceptors: [Option<Acceptor>; 2],
    background: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

/// Starts a node. When this returns, both listeners accept.
pub async fn start(config: Config) -> Result<Running, StartError> {
    listen_for(Arc::new(open(config).await?)).await
}

/// Starts the first node on a store that was put back from a backup: before anybody is listened
/// to, every session in it has ended and every signing key is a new one.
pub async fn start_restored(config: Config) -> Result<Running, StartError> {
    let site = Arc::new(open(config).await?);
    restored::begin_anew(&site).await.map_err(OpenError::from)?;
    listen_for(site).await
}

async fn listen_for(site: Arc<Site>) -> Result<Running, StartError> {
    let config = &site.config;
    let public_tls = config.public_tls.as_ref().map(Acceptor::public).transpose()?;
    let admin_tls = config.admin_tls.as_ref().map(Acceptor::admin).transpose()?;
    let public = Bound::bind(&config.server.public).await?;
    let admin = Bound::bind(&config.server.admin).await?;
    let (stop, stopping) = watch::channel(false);
    let background = background::spawn(&site, &stopping);
    let addresses = (public.address(), admin.address());
    let routes = public::routes(&site);
    let shell = Shell::new(Arc::clone(&site), Door::Public, routes);
    let public = Serving::spawn(public, shell, public_tls.clone(), &site.config);
    let routes = admin::routes(&site, public::standard_routes());
    let shell = Shell::new(Arc::clone(&site), Door::Admin, routes);
    let admin = Serving::spawn(admin, shell, admin_tls.clone(), &site.config);
    // Nobody may be waiting for it: systemd's variable is then unset.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    if let Err(error) = site.authority.report_start(&release(&site)).await {
        tracing::warn!(%error, "the start isn't in the audit log");
    }
    tracing::info!(public = %addresses.0, admin = %addresses.1, "serving");
    Ok(Running {
        public: addresses.0,
        admin: addresses.1,
        site,
        doors: [public, admin],
        acceptors: [public_tls, admin_tls],
        background,
        stop,
    })
}

/// What runs, for the audit log.
fn release(site: &Site) -> String {
    format!("{} on {}", env!("CARGO_PKG_VERSION"), site.authority.store().name())
}

impl Running {
    /// What the handlers share.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Serves until SIGTERM or SIGINT, then drains; a second one stops at once. SIGHUP reads the
    /// certificates again, and whatever `read_again` reads.
    pub async fn run_until_signal(self, mut signals: Signals, mut read_again: impl FnMut()) {
        while signals.next().await == Told::Hangup {
            read_again();
            self.reload();
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        let told_again = async { while signals.next().await == Told::Hangup {} };
        tokio::select! {
            () = self.stop() => {}
            () = told_again => {}
        }
    }

    /// Reads the certificates again; those that can't be read leave the former in use.
    pub fn reload(&self) {
        for acceptor in self.acceptors.iter().flatten() {
            match acceptor.reload() {
                Ok(()) => tracing::info!("certificates read again"),
                Err(error) => tracing::error!(%error, "the former certificate stays in use"),
            }
        }
    }

    /// Stops: accepted requests finish, for `server.drain` at most, what is unwritten is written.
    pub async fn stop(self) {
        let Self { public: _, admin: _, site, doors, acceptors: _, background, stop } = self;
        site.start_draining();
        tracing::info!("draining: no new requests; what was accepted is finished");
        let drain = site.config.server.drain;
        let [public, admin] = doors;
        // The admin listener goes last: until then its `readyz` says that this node is leaving.
        let deadline = tokio::time::Instant::now() + drain;
        public.drain(deadline).await;
        admin.drain(deadline).await;
        // Nobody receives any more only if all loops have ended already.
        let _ = stop.send(true);
        for task in background {
            let _ = tokio::time::timeout(FLUSH_WAIT, task).await;
        }
        if let Err(error) = site.authority.flush_touches().await {
            tracing::warn!(%error, "the last uses of some sessions are not written down");
        }
        site.telemetry.finish().await;
        // The last one closes the store, which waits for its writer: not on a runtime's thread.
        let _ = tokio::task::spawn_blocking(move || drop(site)).await;
        tracing::info!("stopped");
    }
}

/// How long a background loop may take to end.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

/// Opens a node's store and authority; nothing listens yet.
pub(crate) async fn open(config: Config) -> Result<Site, StartError> {
    let entropy = SystemEntropy::new();
    let mut fresh = [0; 32];
    cloakroom::Entropy::fill(&entropy, &mut fresh);
    let master = node_files::master_key(&config, fresh)?;
    let (store, lock) = store::open(&config).await?;
    let store_watch = Arc::new(StoreWatch::default());
    store::patiently(async || store_watch.look(&store).await).await.map_err(OpenError::Store)?;
    if store.name() == "redis" && store_watch.promise() == Durability::Local {
        tracing::warn!(
            "what Redis has acknowledged may be lost with power: see `appendonly` and \
             `appendfsync` in docs/operate/redis.md"
        );
    }
    if copy::is_unfinished(&store).await.map_err(OpenError::Store)? {
        return Err(StartError::UnfinishedCopy);
    }
    let settings = settings::of_config(&config, store.is_shared())?;
    let secret = StoreSecret { master, previous: config.master_key_previous.clone() };
    let clock = Arc::new(StoreClock(Arc::clone(&store_watch)));
    let store = Holdable::new(store);
    if store.is_shared() {
        store.look().await.map_err(OpenError::Store)?;
    }
    let (store, entropy) = (Measured::new(store), Arc::new(entropy));
    let authority = Authority::open(store, settings, secret, clock, entropy).await?;
    let root = match node_files::root_key(&config)? {
        Some(root) => root,
        None => {
            let root = authority.generate_root_key();
            node_files::keep_root_key(&config, &root)?;
            root
        }
    };
    authority.set_root_key(&root);
    Ok(Site::new(authority, config, store_watch, lock)?)
}
