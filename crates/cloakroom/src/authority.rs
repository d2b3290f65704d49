//! The authority: a store, the operator's settings, and everything a node keeps in memory.

use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::digest;
use cloakroom_core::keys::KeyRing;
use cloakroom_core::store_key::{DerivedKeys, WrongMasterKey};
use cloakroom_core::token::access::Expectation;
use cloakroom_core::token::opaque::{OpaqueKind, OpaqueToken};
use cloakroom_core::types::{Partition, Secret, Sid, Subject, Timestamp, TokenHash};
use cloakroom_store::{Key, Store, StoreError};

use crate::api_keys::KeyUses;
use crate::cache::{Cache, Kept, Meters};
use crate::clock::{Clock, Entropy, draw};
use crate::context::{Error, Unavailable};
use crate::events::Reports;
use crate::feed::Followed;
use crate::hashing::HashPool;
use crate::keyring::Ring;
use crate::place::StoreId;
use crate::settings::Settings;
use crate::stats::Counters;
use crate::store_key::{StoreSecret, Unwrapped, unwrapped};
use crate::streams::Streams;
use crate::touch::Touches;
use crate::verify::Checked;

/// Why an authority can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The master key is not this store's.
    #[error(transparent)]
    WrongMasterKey(#[from] WrongMasterKey),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored can't be used.
    #[error("{0}")]
    Unusable(String),
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(Unavailable::Store(error)) => Self::Store(error),
            other => Self::Unusable(other.to_string()),
        }
    }
}

/// A node's own API key, with all scopes. It belongs to the node, not to the store.
#[derive(Debug)]
pub struct RootKey(Secret<String>);

impl RootKey {
    /// The key as it was written to the node's file.
    pub fn from_text(text: &str) -> Self {
        Self(Secret::new(text.to_owned()))
    }

    /// The key's text: a secret, for the node's file.
    pub fn expose_text(&self) -> &str {
        self.0.expose()
    }
}

/// The session authority over a store.
pub struct Authority<S> {
    pub(crate) store: S,
    pub(crate) settings: Settings,
    pub(crate) keys: DerivedKeys,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) cache: Cache,
    /// Access tokens whose signature was checked and that weren't denied, by digest of all bytes.
    pub(crate) access_tokens: Kept<[u8; 32], Checked>,
    pub(crate) ring: Ring,
    pub(crate) touches: Touches,
    pub(crate) reports: Reports,
    pub(crate) key_uses: KeyUses,
    pub(crate) followed: Followed,
    pub(crate) streams: Arc<Streams>,
    pub(crate) counters: Counters,
    pub(crate) unwrapped: Unwrapped,
    pub(crate) hashing: HashPool,
    pub(crate) root_key: RwLock<Option<TokenHash>>,
    gateway_audience: [String; 1],
}

impl<S: Store> Authority<S> {
    /// Opens an authority over a store; a store without one is set up first.
    pub async fn open(
        store: S,
        settings: Settings,
        secret: StoreSecret,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, OpenError> {
        let unwrapped = unwrapped(&store, &secret, &*clock, &*entropy).await?;
        let keys = DerivedKeys::derive(&unwrapped.key);
        let capacity = usize::try_from(settings.verify.capacity).unwrap_or(usize::MAX);
        let shared = settings.hs256_secret.as_ref();
        let ring = KeyRing::new(Vec::new(), &keys, shared)
            .map_err(|fault| OpenError::Unusable(fault.to_string()))?;
        let authority = Self {
            cache: Cache::new(store.partitions(), capacity),
            access_tokens: Kept::new(capacity),
            ring: Ring::new(ring),
            touches: Touches::default(),
            reports: Reports::default(),
            key_uses: KeyUses::default(),
            followed: Followed::new(store.partitions()),
            streams: Arc::new(Streams::new(store.partitions(), unwrapped.store_id)),
            counters: Counters::new(clock.now()),
            unwrapped,
            hashing: HashPool::new(settings.password_pool, settings.argon2),
            root_key: RwLock::new(None),
            gateway_audience: [settings.gateway_audience.clone()],
            store,
            settings,
            keys,
            clock,
            entropy,
        };
        authority.tend_keys().await?;
        Ok(authority)
    }

    /// What the operator decided.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The keys derived from the store's own.
    pub fn keys(&self) -> &DerivedKeys {
        &self.keys
    }

    /// This node's counters of a session, for whoever knows it by a genuine credential.
    pub fn meters(&self, sid: Sid) -> Arc<Meters> {
        self.cache.meters(sid)
    }

    /// The authority's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Makes a root key for this node.
    pub fn generate_root_key(&self) -> RootKey {
        let sid = Sid::new(self.now(), Partition::ZERO, draw(&*self.entropy));
        let secret = Secret::new(draw(&*self.entropy));
        let kind = OpaqueKind::ApiKey;
        let token = OpaqueToken { kind, sid, lineage: 0, generation: 0, secret };
        RootKey(token.encode(&self.keys))
    }

    /// Takes this node's root key from now on.
    pub fn set_root_key(&self, key: &RootKey) {
        let hash = TokenHash::of(key.expose_text().as_bytes());
        *self.root_key.write().unwrap_or_else(PoisonError::into_inner) = Some(hash);
    }

    /// Whether the store answers.
    pub async fn ready(&self) -> Result<(), Error> {
        self.in_time(self.store.now()).await?;
        let loaded = self.load(Partition::ZERO, &[Key::Partition, Key::Settings]).await?;
        loaded.partition()?;
        Ok(())
    }

    /// What tells this store from any other.
    pub(crate) fn store_id(&self) -> StoreId {
        self.unwrapped.store_id
    }

    pub(crate) fn partition_of(&self, subject: &Subject) -> Partition {
        self.keys.partition_of(subject, self.store.partitions())
    }

    /// What an access token for this authority must say at `now`.
    pub(crate) fn expectation(&self, now: Timestamp) -> Expectation<'_> {
        Expectation {
            issuer: &self.settings.issuer,
            audiences: &self.settings.audience,
            foreign_audiences: &self.gateway_audience,
            now,
        }
    }

    pub(crate) fn token_digest(&self, text: &str) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        bytes
    }
}
