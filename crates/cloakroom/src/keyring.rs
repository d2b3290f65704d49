//! The signing keys: made, rotated and revoked by commits to partition 0, which every node follows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use cloakroom_core::event::{Event, EventKind, FeedEntry};
use cloakroom_core::keys::{
    FreshKey, KeyChange, KeyEntropy, KeyRecord, KeyRing, KeyRules, KeyState, RevokeRefused,
    RotateRefused,
};
#[cfg(feature = "mutants")]
use cloakroom_core::mutants::{Mutant, active};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::token::TokenRefusal;
use cloakroom_core::token::access::{self, AccessClaims};
use cloakroom_core::types::{Partition, Secret, Timestamp};
use cloakroom_store::{Batch, Key, Kind, Record, Review, Store, Version};

use crate::authority::Authority;
use crate::clock::draw;
use crate::context::{Context, Error, Unavailable};

/// Keys that a store may hold at once; many more than a sane rotation leaves.
const KEYS_MAX: usize = 1000;

/// How often the keys are read at most because of tokens that name an unknown one.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The keys as this node last read them.
#[derive(Debug)]
pub(crate) struct Ring {
    kept: RwLock<Arc<Reading>>,
    /// Counts the readings, in the order in which they began.
    begun: AtomicU64,
    /// Held by whoever reads them because they may be stale; when that was last tried.
    turn: tokio::sync::Mutex<Timestamp>,
}

/// What one reading of the keys found.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) keys: KeyRing,
    pub(crate) number: u64,
    /// When it began.
    read_at: Timestamp,
}

impl Ring {
    pub(crate) fn new(keys: KeyRing) -> Self {
        let read_at = Timestamp::default();
        Self {
            kept: RwLock::new(Arc::new(Reading { keys, number: 0, read_at })),
            begun: AtomicU64::new(0),
            turn: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn last(&self) -> Arc<Reading> {
        Arc::clone(&self.kept.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps what was read, unless a later reading was faster.
    fn keep(&self, reading: Reading) -> bool {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let is_newer = kept.number < reading.number;
        if is_newer {
            *kept = Arc::new(reading);
        }
        is_newer
    }
}

/// The keys as stored, with their versions.
struct StoredKeys {
    ring: KeyRing,
    versions: Vec<(Key, Version)>,
}

impl StoredKeys {
    fn version(&self, key: &Key) -> Version {
        let found = self.versions.iter().find(|(known, _)| known == key);
        found.map_or(Version::ZERO, |(_, version)| *version)
    }
}

impl<S: Store> Authority<S> {
    /// Does what is due to the signing keys: makes, activates, retires, removes. To be called
    /// every half minute; on several nodes one commit wins and the others follow it.
    pub async fn tend_keys(&self) -> Result<(), Error> {
        let ctx = Context::system();
        self.change_keys(&ctx, |ring, now, rules| Ok(ring.plan(now, rules))).await
    }

    /// Lets the next key take over, if it was published long enough for every verifier.
    pub async fn rotate_keys(&self, ctx: &Context) -> Result<(), Error> {
        let rotate = |ring: &KeyRing, now, rules: &KeyRules| {
            ring.rotate_now(now, rules).map_err(|refused| {
                Error::Refused(Refusal::Conflict(match refused {
                    RotateRefused::SharedSecret => {
                        "an HS256 secret is changed in the configuration"
                    }
                    RotateRefused::NotYet { .. } => {
                        "the next key has been published for too short a time"
                    }
                }))
            })
        };
        self.change_keys(ctx, rotate).await
    }

    /// Makes a key verify nothing any more, at once.
    pub async fn revoke_key(&self, kid: &str, ctx: &Context) -> Result<(), Error> {
        let revoke = |ring: &KeyRing, now, rules: &KeyRules| {
            ring.revoke(kid, now, rules).map_err(|refused| {
                Error::Refused(match refused {
                    RevokeRefused::Unknown => Refusal::NotFound,
                    RevokeRefused::SharedSecret => {
                        Refusal::Conflict("an HS256 secret is changed in the configuration")
                    }
                })
            })
        };
        self.change_keys(ctx, revoke).await
    }

    /// The signing keys there are.
    pub fn key_records(&self) -> Vec<KeyRecord> {
        self.ring.last().keys.records().cloned().collect()
    }

    /// The public key set (RFC 7517).
    pub fn jwks(&self) -> serde_json::Value {
        self.ring.last().keys.jwks(self.now())
    }

    /// Reads the keys again.
    pub(crate) async fn load_ring(&self) -> Result<(), Error> {
        let number = self.ring.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let read_at = self.now();
        let keys = self.stored_keys().await?.ring;
        if self.ring.keep(Reading { keys, number, read_at }) {
            self.access_tokens.clear();
        }
        Ok(())
    }

    /// The keys to sign and to verify by. Where partition 0 wasn't read for `max_staleness` they
    /// are read anew: another node may have revoked one.
    pub(crate) async fn fresh_ring(&self) -> Result<Arc<Reading>, Error> {
        #[cfg(feature = "mutants")]
        if active(Mutant::KeysTrustedForever) {
            return Ok(self.ring.last());
        }
        if !self.is_ring_fresh()
            && let Err(fault) = self.refresh_ring().await
            && !self.within_outage_grace(Partition::ZERO)
        {
            return Err(fault);
        }
        Ok(self.ring.last())
    }

    fn is_ring_fresh(&self) -> bool {
        // An only writer knows what it did.
        let Some(max) = self.settings.verify.max_staleness else { return true };
        let read_at = self.ring.last().read_at.max(self.cache.fresh_at(Partition::ZERO));
        self.now().since(read_at) < max
    }

    /// Reads the keys once for all who wait for it.
    async fn refresh_ring(&self) -> Result<(), Error> {
        let asked = self.now();
        let deadline = asked.plus(self.settings.store_timeout);
        let mut tried_at = self.within(deadline, self.ring.turn.lock()).await?;
        if self.is_ring_fresh() {
            return Ok(());
        }
        if *tried_at > asked {
            return Err(Unavailable::Deadline.into());
        }
        *tried_at = self.now();
        self.load_ring().await
    }

    /// The claims of a genuine access token. One that names a key that this node doesn't know may
    /// be signed by a key that another node has just made: the keys are read once more. With the
    /// keys that said so.
    pub(crate) async fn genuine_claims(
        &self,
        text: &str,
    ) -> Result<(Result<AccessClaims, TokenRefusal>, Arc<Reading>), Error> {
        let ring = self.fresh_ring().await?;
        let now = self.now();
        let verdict = access::verify(text, &ring.keys, &self.expectation(now));
        let is_unknown = matches!(verdict, Err(TokenRefusal::Invalid))
            && self.settings.verify.max_staleness.is_some()
            && access::names_unknown_key(text, &ring.keys, now);
        if !is_unknown {
            return Ok((verdict, ring));
        }
        let ring = self.ring_read_since(now).await?;
        Ok((access::verify(text, &ring.keys, &self.expectation(self.now())), ring))
    }

    /// The keys as a reading found them that began after `asked`. However many ask, the store is
    /// read every [`LOOK_AGAIN`] at most: anybody can make up the name of a key.
    async fn ring_read_since(&self, asked: Timestamp) -> Result<Arc<Reading>, Error> {
        let deadline = asked.plus(self.settings.store_timeout);
        let mut tried_at = self.within(deadline, self.ring.turn.lock()).await?;
        if self.ring.last().read_at <= asked {
            if *tried_at > asked {
                return Err(Unavailable::Deadline.into());
            }
            let rest = tried_at.plus(LOOK_AGAIN).since(self.now());
            if !rest.is_zero() {
                self.clock.sleep(rest).await;
            }
            *tried_at = self.now();
            self.load_ring().await?;
        }
        Ok(self.ring.last())
    }

    async fn stored_keys(&self) -> Result<StoredKeys, Error> {
        let page = self.store.page(Partition::ZERO, Kind::SigningKey, None, KEYS_MAX);
        let mut records = Vec::new();
        let mut versions = Vec::new();
        for (key, found) in self.in_time(page).await? {
            versions.push((key, found.version));
            if let Record::SigningKey(record) = found.record {
                records.push(record);
            }
        }
        let shared = self.settings.hs256_secret.as_ref();
        let ring = KeyRing::new(records, &self.keys, shared)
            .map_err(|fault| Unavailable::Key(fault.to_string()))?;
        Ok(StoredKeys { ring, versions })
    }

    async fn change_keys(
        &self,
        ctx: &Context,
        plan: impl Fn(&KeyRing, Timestamp, &KeyRules) -> Result<Vec<KeyChange>, Error> + Send,
    ) -> Result<(), Error> {
        let rules = KeyRules {
            algorithm: self.settings.algorithm,
            rotation: self.settings.key_rotation,
            access_ttl: self.settings.access_ttl.max(self.settings.gateway_ttl),
        };
        let deadline = self.now().plus(self.settings.store_timeout);
        loop {
            // Every change of keys writes the store's settings anew: of two nodes' plans one wins,
            // also where there is no key yet. Read before the keys, so that it is no newer.
            let settings = self.load(Partition::ZERO, &[Key::Settings]).await?;
            let stored = self.stored_keys().await?;
            let now = self.now();
            let changes = plan(&stored.ring, now, &rules)?;
            let mut batch = Batch::default();
            for change in changes {
                self.stage(&mut batch, &stored, change, now, ctx)?;
            }
            if batch.writes.is_empty() {
                break;
            }
            let Some(record) = settings.get(&Key::Settings).cloned() else {
                return Err(Unavailable::Missing("its settings".into()).into());
            };
            let version = settings.version(&Key::Settings);
            batch.put(Key::Settings, version, record, Review::Never);
            if self.try_commit(Partition::ZERO, batch, deadline).await?.is_some() {
                break;
            }
            if self.now() >= deadline {
                return Err(Unavailable::Deadline.into());
            }
        }
        self.load_ring().await
    }

    fn stage(
        &self,
        batch: &mut Batch,
        stored: &StoredKeys,
        change: KeyChange,
        now: Timestamp,
        ctx: &Context,
    ) -> Result<(), Error> {
        match change {
            KeyChange::Generate(algorithm, fresh) => {
                let entropy = KeyEntropy {
                    seed: Secret::new(draw(&*self.entropy)),
                    nonce: draw(&*self.entropy),
                };
                let record = KeyRecord::generate(algorithm, fresh, &entropy, &self.keys, now)
                    .map_err(|fault| Unavailable::Key(fault.to_string()))?;
                let kid = record.kid.as_str();
                announce(batch, kid, record.state.name(), EventKind::KeyCreated, now, ctx);
                match fresh {
                    FreshKey::Next => {}
                    // The first key of a store is made and takes over in one.
                    FreshKey::Active => {
                        batch.audit(key_event(kid, EventKind::KeyActivated, now, ctx));
                    }
                }
                let key = Key::SigningKey(record.kid.as_str().into());
                batch.put(key, Version::ZERO, Record::SigningKey(record), Review::Never);
            }
            KeyChange::Put(record) => {
                let kind = match record.state {
                    KeyState::Next => EventKind::KeyCreated,
                    KeyState::Active => EventKind::KeyActivated,
                    KeyState::Retired => EventKind::KeyRetired,
                    KeyState::Revoked => EventKind::KeyRevoked,
                };
                announce(batch, record.kid.as_str(), record.state.name(), kind, now, ctx);
                let key = Key::SigningKey(record.kid.as_str().into());
                let version = stored.version(&key);
                batch.put(key, version, Record::SigningKey(record), Review::Never);
            }
            KeyChange::Remove(kid) => {
                let key = Key::SigningKey(kid.as_str().into());
                let version = stored.version(&key);
                batch.delete(key, version);
                let state = "removed".to_owned();
                batch.feed(FeedEntry::KeyChanged { kid: kid.as_str().to_owned(), state });
            }
        }
        Ok(())
    }
}

fn announce(
    batch: &mut Batch,
    kid: &str,
    state: &str,
    kind: EventKind,
    now: Timestamp,
    ctx: &Context,
) {
    batch.feed(FeedEntry::KeyChanged { kid: kid.to_owned(), state: state.to_owned() });
    batch.audit(key_event(kid, kind, now, ctx));
}

fn key_event(kid: &str, kind: EventKind, now: Timestamp, ctx: &Context) -> Event {
    let mut event = ctx.event(kind, now, None, None);
    event.reason = Some(kid.to_owned());
    event
}
