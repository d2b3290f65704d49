//! A store for applications that keep tower-sessions and change where its sessions are.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use cloakroom::Cloakroom;
//! use cloakroom_tower_sessions::CloakroomStore;
//! use tower_sessions::SessionManagerLayer;
//!
//! let cloakroom = Cloakroom::memory().await?;
//! let layer = SessionManagerLayer::new(CloakroomStore::new(cloakroom.guard()));
//! # let _ = layer; Ok::<(), cloakroom::StartError>(()) }).unwrap();
//! ```
//!
//! tower-sessions mints the ids and sets the cookie, as always; the authority knows each by its
//! hash. A session that was deleted, or ended by an operator, is over, and a slow request that
//! saves it afterwards brings nothing back.
//!
//! One thing can't be helped from behind this interface: it saves a session whole, so of two
//! requests that change one session at once the last one wins, different keys or not. The
//! `Session` of `cloakroom` doesn't have that.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::guard::{Fault, Guard, HandleHash};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::Object;
use cloakroom_core::types::{Timestamp, TokenHash};
use serde_json::Value;
use time::OffsetDateTime;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store::{Error, Result, SessionStore};

/// The member that holds the session's own data.
const DATA: &str = "data";
/// The member that holds its end, in milliseconds since the epoch.
const EXPIRES: &str = "expires";

/// Sessions of tower-sessions, kept by an authority. Clones are one.
#[derive(Clone)]
pub struct CloakroomStore {
    guard: Arc<dyn Guard>,
}

impl fmt::Debug for CloakroomStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CloakroomStore")
    }
}

impl CloakroomStore {
    /// A store whose authority is this one.
    pub fn new(guard: Arc<dyn Guard>) -> Self {
        Self { guard }
    }

    async fn put(&self, record: &Record) -> std::result::Result<(), Fault> {
        let left = Timestamp::from_millis(millis(record.expiry_date)).since(self.guard.now());
        let left = left.max(Duration::from_secs(1));
        self.guard.put_handle(handle(&record.id), object(record), left).await
    }
}

#[async_trait]
impl SessionStore for CloakroomStore {
    async fn create(&self, record: &mut Record) -> Result<()> {
        // Ids have 128 random bits; another's is met only by whoever repeats one on purpose.
        while self.load(&record.id).await?.is_some() {
            record.id = Id::default();
        }
        self.put(record).await.map_err(backend)
    }

    async fn save(&self, record: &Record) -> Result<()> {
        match self.put(record).await {
            Err(Fault::Refused(Refusal::SessionEnded(reason))) => {
                tracing::debug!(reason = reason.as_str(), "a session that is over stays over");
                Ok(())
            }
            saved => saved.map_err(backend),
        }
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        match self.guard.handle(handle(id)).await {
            Ok(stored) => {
                let record = record(*id, stored.data)?;
                let over = millis(record.expiry_date) <= self.guard.now().as_millis();
                Ok((!over).then_some(record))
            }
            Err(Fault::Refused(Refusal::NotFound | Refusal::SessionEnded(_))) => Ok(None),
            Err(fault) => Err(backend(fault)),
        }
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        self.guard.end_handle(handle(id)).await.map_err(backend)
    }
}

fn backend(fault: Fault) -> Error {
    Error::Backend(fault.to_string())
}

/// The id is what its holder proves the session with, so only its hash leaves the process.
fn handle(id: &Id) -> HandleHash {
    *TokenHash::of(id.to_string().as_bytes()).as_bytes()
}

fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

fn object(record: &Record) -> Object {
    let data: Object =
        record.data.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let expires = (EXPIRES.to_owned(), millis(record.expiry_date).into());
    [(DATA.to_owned(), Value::Object(data)), expires].into_iter().collect()
}

fn record(id: Id, mut stored: Object) -> Result<Record> {
    let unreadable = || Error::Decode("not what tower-sessions kept".to_owned());
    let expires = stored.get(EXPIRES).and_then(Value::as_i64).ok_or_else(unreadable)?;
    let nanos = i128::from(expires) * 1_000_000;
    let expiry_date = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| unreadable())?;
    match stored.remove(DATA) {
        Some(Value::Object(data)) => {
            Ok(Record { id, data: data.into_iter().collect(), expiry_date })
        }
        Some(_) | None => Err(unreadable()),
    }
}

#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide/from-tower-sessions.md")]
mod page {}
