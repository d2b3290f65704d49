//! Keys of backends: made once, shown once, kept as a hash, gone at once.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cloakroom_core::event::{EventKind, FeedEntry};
use cloakroom_core::limits::PAGE_MAX;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::token::TokenRefusal;
use cloakroom_core::token::opaque::{OpaqueKind, OpaqueToken};
use cloakroom_core::types::{Partition, Secret, Sid, Timestamp, TokenHash};
use cloakroom_store::record::ApiKey;
use cloakroom_store::{Key, Kind, Record, Review, Store};

use crate::authority::Authority;
use crate::clock::draw;
use crate::context::{Context, Error};
use crate::listing::page_end;
use crate::transact::{Decision, Draft, Loaded};

/// A key's name, in characters.
const NAME_CHARS_MAX: usize = 64;
/// Scopes of one key, repetitions included.
const SCOPES_MAX: usize = 16;
/// "Last used" is written when the stored instant is older than this.
const USE_SLACK: Duration = Duration::from_secs(60);
/// Keys whose use waits to be written, at most.
const USES_MAX: usize = 10_000;

/// What a key may be made for. `admin` is all of the others.
pub const SCOPES: [&str; 7] =
    ["admin", "events", "keys", "sessions:read", "sessions:write", "users:read", "users:write"];

/// A key of a backend, proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyIdentity {
    /// Its id; `root` for the node's own.
    pub id: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Whether it is the node's own, which may do everything.
    pub is_root: bool,
}

/// A key to be made.
#[derive(Debug)]
pub struct NewApiKey {
    /// What its operator calls it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it ends by itself.
    pub expires_in: Option<Duration>,
}

/// A key as it is shown: never with its secret.
#[derive(Clone, Debug)]
pub struct ApiKeyView {
    /// Its id.
    pub id: Sid,
    /// What its operator calls it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to within a minute.
    pub last_used_at: Option<Timestamp>,
}

/// Uses of keys that wait to be written down.
#[derive(Debug, Default)]
pub(crate) struct KeyUses(Mutex<BTreeMap<Sid, Timestamp>>);

impl From<&ApiKey> for ApiKeyView {
    fn from(key: &ApiKey) -> Self {
        Self {
            id: key.id,
            name: key.name.clone(),
            scopes: key.scopes.clone(),
            created_at: key.created_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
        }
    }
}

impl ApiKeyIdentity {
    /// Whether the key may do what `scope` names.
    pub fn covers(&self, scope: &str) -> bool {
        self.scopes.iter().any(|own| own == scope || own == "admin")
    }
}

impl<S: Store> Authority<S> {
    /// Whose a backend's key is, and what it may do.
    pub async fn authenticate_api_key(&self, text: &str) -> Result<ApiKeyIdentity, Error> {
        let root = *self.root_key.read().unwrap_or_else(PoisonError::into_inner);
        if root.is_some_and(|root: TokenHash| root.matches(text.as_bytes())) {
            let scopes = vec!["admin".to_owned()];
            return Ok(ApiKeyIdentity { id: "root".into(), scopes, is_root: true });
        }
        let token =
            OpaqueToken::parse(OpaqueKind::ApiKey, text, &self.keys).map_err(|refusal| {
                match refusal {
                    TokenRefusal::WrongType => Refusal::TokenWrongType,
                    TokenRefusal::Invalid | TokenRefusal::KeyRevoked | TokenRefusal::Expired(_) => {
                        Refusal::TokenInvalid
                    }
                }
            })?;
        let key = Key::ApiKey(token.sid);
        let loaded = self.load(Partition::ZERO, std::slice::from_ref(&key)).await?;
        let Some(Record::ApiKey(found)) = loaded.get(&key) else {
            return Err(Refusal::TokenInvalid.into());
        };
        if !found.secret.matches(token.secret.expose()) {
            return Err(Refusal::TokenInvalid.into());
        }
        if found.expires_at.is_some_and(|at| loaded.now >= at) {
            return Err(Refusal::TokenExpired.into());
        }
        self.note_key_use(found, loaded.now);
        let scopes = found.scopes.clone();
        Ok(ApiKeyIdentity { id: found.id.to_string(), scopes, is_root: false })
    }

    /// Whether a key that was proven before is still one: for what goes on long after the proof.
    pub async fn api_key_stands(&self, identity: &ApiKeyIdentity) -> Result<bool, Error> {
        if identity.is_root {
            return Ok(true);
        }
        let Ok(id) = identity.id.parse::<Sid>() else { return Ok(false) };
        let key = Key::ApiKey(id);
        let loaded = self.load(Partition::ZERO, std::slice::from_ref(&key)).await?;
        let Some(Record::ApiKey(found)) = loaded.get(&key) else { return Ok(false) };
        Ok(found.expires_at.is_none_or(|at| loaded.now < at))
    }

    /// Makes a key. Its secret is answered here and never again.
    ///
    /// A key can't make a key that may do what it itself may not.
    pub async fn create_api_key(
        &self,
        new: NewApiKey,
        maker: &ApiKeyIdentity,
        ctx: &Context,
    ) -> Result<(ApiKeyView, Secret<String>), Error> {
        check_new(&new, maker)?;
        let id = Sid::new(self.now(), Partition::ZERO, draw(&*self.entropy));
        let secret = Secret::new(draw(&*self.entropy));
        let kind = OpaqueKind::ApiKey;
        let token = OpaqueToken { kind, sid: id, lineage: 0, generation: 0, secret };
        let key = Key::ApiKey(id);
        let decide = |loaded: &Loaded| {
            if let Some(Record::ApiKey(made)) = loaded.get(&key) {
                // Our own commit of unknown outcome.
                return Ok(Decision::Done(ApiKeyView::from(made)));
            }
            let record = ApiKey {
                id,
                name: new.name.clone(),
                scopes: new.scopes.clone(),
                secret: token.hash(),
                created_at: loaded.now,
                expires_at: new.expires_in.map(|span| loaded.now.plus(span)),
                last_used_at: None,
            };
            let view = ApiKeyView::from(&record);
            // Filed for when it ends, so that the clean-up takes it away.
            let review = record.expires_at.map_or(Review::Never, Review::At);
            let until = record.expires_at;
            let mut draft = Draft::of(loaded);
            draft.put_until(key.clone(), Record::ApiKey(record), review, until);
            draft.feed(FeedEntry::RecordChanged);
            let mut event = ctx.event(EventKind::ApiKeyCreated, loaded.now, None, None);
            event.reason = Some(id.to_string());
            draft.audit(event);
            Ok(draft.commit(view))
        };
        let (view, _) = self.transact(Partition::ZERO, vec![key.clone()], decide).await?;
        Ok((view, token.encode(&self.keys)))
    }

    /// The keys there are, by id. `after` is the last id of a former page.
    pub async fn api_keys(
        &self,
        after: Option<Sid>,
        limit: usize,
    ) -> Result<(Vec<ApiKeyView>, Option<Sid>), Error> {
        let limit = limit.clamp(1, PAGE_MAX);
        let after = after.map(Key::ApiKey);
        let page = self.store.page(Partition::ZERO, Kind::ApiKey, after.as_ref(), limit + 1);
        let found = self.in_time(page).await?;
        let keys = found.iter().filter_map(|(_, found)| found.record.as_api_key());
        let mut keys: Vec<ApiKeyView> = keys.map(ApiKeyView::from).collect();
        let next = page_end(&mut keys, limit, |key| key.id);
        Ok((keys, next))
    }

    /// Takes a key away; from the answer on it is nobody's.
    pub async fn delete_api_key(&self, id: Sid, ctx: &Context) -> Result<(), Error> {
        let key = Key::ApiKey(id);
        let mut began = false;
        let decide = |loaded: &Loaded| {
            if loaded.get(&key).is_none() {
                // Gone by our own commit of unknown outcome, or never there.
                return if began { Ok(Decision::Done(())) } else { Err(Refusal::NotFound.into()) };
            }
            began = true;
            let mut draft = Draft::of(loaded);
            draft.delete(key.clone());
            draft.feed(FeedEntry::RecordChanged);
            let mut event = ctx.event(EventKind::ApiKeyDeleted, loaded.now, None, None);
            event.reason = Some(id.to_string());
            draft.audit(event);
            Ok(draft.commit(()))
        };
        self.transact(Partition::ZERO, vec![key.clone()], decide).await?;
        Ok(())
    }

    fn note_key_use(&self, key: &ApiKey, now: Timestamp) {
        if key.last_used_at.is_some_and(|at| now.since(at) < USE_SLACK) {
            return;
        }
        let mut uses = self.key_uses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if uses.len() < USES_MAX {
            uses.insert(key.id, now);
        }
    }

    /// Writes down which keys were used. To be called every few seconds.
    pub async fn flush_key_uses(&self) -> Result<(), Error> {
        let uses = {
            let mut uses = self.key_uses.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *uses)
        };
        for (id, used_at) in uses {
            let key = Key::ApiKey(id);
            let decide = |loaded: &Loaded| {
                let Some(Record::ApiKey(stored)) = loaded.get(&key) else {
                    return Ok(Decision::Done(()));
                };
                if stored.last_used_at >= Some(used_at) {
                    return Ok(Decision::Done(()));
                }
                let record = ApiKey { last_used_at: Some(used_at), ..stored.clone() };
                let until = record.expires_at;
                let mut draft = Draft::of(loaded);
                let record = Record::ApiKey(record);
                draft.put_until(key.clone(), record, Review::Keep, until);
                Ok(draft.commit(()))
            };
            self.transact(Partition::ZERO, vec![key.clone()], decide).await?;
        }
        Ok(())
    }
}

fn check_new(new: &NewApiKey, maker: &ApiKeyIdentity) -> Result<(), Error> {
    let invalid = |member: &str, why: &str| {
        Error::from(Refusal::InvalidMember { member: member.into(), why: why.into() })
    };
    let name = new.name.trim();
    if name.is_empty()
        || name.chars().count() > NAME_CHARS_MAX
        || name.chars().any(char::is_control)
    {
        return Err(invalid("name", "must be 1 to 64 characters without control characters"));
    }
    if !(1..=SCOPES_MAX).contains(&new.scopes.len()) {
        return Err(invalid("scopes", "must name 1 to 16 scopes"));
    }
    for scope in &new.scopes {
        if !SCOPES.contains(&scope.as_str()) {
            return Err(invalid("scopes", "must be scopes that there are"));
        }
        if !maker.covers(scope) {
            return Err(Refusal::Forbidden("a key can't give what it doesn't have").into());
        }
    }
    if new.expires_in.is_some_and(|span| span.is_zero()) {
        return Err(invalid("expires_in", "must be a positive number of seconds"));
    }
    Ok(())
}
