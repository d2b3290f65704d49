//! The authority behind one layer: what an application holds.

#[cfg(feature = "embedded")]
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use cloakroom_core::guard::Guard;
use cloakroom_core::store_key::MasterKey;
use cloakroom_store::Store;
use cloakroom_store::memory::MemoryStore;
use cloakroom_tower::CloakroomLayer;

mod defaults;
#[cfg(feature = "embedded")]
mod files;
mod local;

use crate::authority::{Authority, OpenError};
use crate::clock::{Clock, SystemClock, SystemEntropy, draw};
use crate::settings::Settings;
use crate::store_key::StoreSecret;
use local::Local;

/// Partitions of a store in memory.
const MEMORY_PARTITIONS: u16 = 16;

/// Why an application's authority doesn't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The authority can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The settings can't be taken.
    #[error("{0}")]
    Settings(String),
    /// A file of the data directory can't be read or made.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The embedded store can't be opened.
    #[cfg(feature = "embedded")]
    #[error(transparent)]
    Embedded(#[from] cloakroom_embedded::OpenError),
    /// The server can't be used.
    #[cfg(feature = "remote")]
    #[error(transparent)]
    Remote(#[from] cloakroom_client::ConnectError),
}

/// A session authority for an application, in this process or on a server: the same to whoever
/// uses it. Clones are one.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use cloakroom::{Cloakroom, CurrentUser};
/// use axum::{Router, routing::get};
///
/// async fn me(user: CurrentUser) -> String {
///     format!("you are {}", user.id())
/// }
///
/// let cloakroom = Cloakroom::memory().await?;
/// let app: Router = Router::new().route("/me", get(me)).layer(cloakroom.layer());
/// # let _ = app; Ok::<(), cloakroom::StartError>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Cloakroom {
    guard: Arc<dyn Guard>,
}

impl std::fmt::Debug for Cloakroom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cloakroom")
    }
}

impl Cloakroom {
    /// Sessions in this process's memory, gone with it: for trying out, and for tests.
    pub async fn memory() -> Result<Self, StartError> {
        let clock = SystemClock;
        let store = MemoryStore::new(MEMORY_PARTITIONS, move || clock.now());
        let master = MasterKey::from_bytes(draw(&SystemEntropy::new()));
        Self::over(store, master, Settings::standard()?).await
    }

    /// Sessions in a directory of this machine, for this process alone. The directory is made, and
    /// its key beside the store in `master.key`, for its owner only. `cloakroom serve` with this
    /// as its `data_dir` reads the same sessions.
    #[cfg(feature = "embedded")]
    pub async fn embedded(dir: impl AsRef<Path>) -> Result<Self, StartError> {
        let dir = dir.as_ref();
        let master = files::master_key(dir, draw(&SystemEntropy::new()))?;
        let options = cloakroom_embedded::Options::default();
        let store = cloakroom_embedded::Embedded::open(&dir.join(files::STORE), options)?;
        Self::over(store, master, Settings::standard()?).await
    }

    /// Sessions in any store, such as `RedisStore` or `PostgresStore`, with settings of your own.
    ///
    /// The master key opens the store's own key; every process over one store needs the same. For
    /// a store that others write to, [`Settings::shared`] says so.
    pub async fn over<S: Store + 'static>(
        store: S,
        master: MasterKey,
        settings: Settings,
    ) -> Result<Self, StartError> {
        let secret = StoreSecret { master, previous: None };
        let entropy = Arc::new(SystemEntropy::new());
        let authority =
            Authority::open(store, settings, secret, Arc::new(SystemClock), entropy).await?;
        Ok(Self::of(Arc::new(authority)))
    }

    /// An authority that is open already. Its background work is done from here on.
    pub fn of<S: Store + 'static>(authority: Arc<Authority<S>>) -> Self {
        Self { guard: Arc::new(Local::start(authority)) }
    }

    /// The authority is the server whose admin listener is at `url`; the key needs the scopes
    /// `sessions:read` and `sessions:write`.
    ///
    /// Checked at once: a wrong key or address is an error here, not at the first request.
    #[cfg(feature = "remote")]
    pub async fn remote(url: &str, api_key: &str) -> Result<Self, StartError> {
        let remote = cloakroom_client::Remote::connect(url, api_key).await?;
        Ok(Self { guard: Arc::new(remote) })
    }

    /// The one layer. Add it after all routes.
    pub fn layer(&self) -> CloakroomLayer {
        CloakroomLayer::new(self.guard())
    }

    /// The authority itself, for what no layer does.
    pub fn guard(&self) -> Arc<dyn Guard> {
        Arc::clone(&self.guard)
    }
}
