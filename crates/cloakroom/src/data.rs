//! A session's data: versioned, so that no update is lost.

use std::sync::Arc;

use cloakroom_core::event::{EventKind, FeedEntry};
use cloakroom_core::json::merge_patch;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{Lifecycle, Object};
use cloakroom_core::types::Sid;
use cloakroom_store::{Follow, Key, Record, Review, Store, StoreError, Version};
use serde_json::Value;

use crate::authority::Authority;
use crate::claims::check_size;
use crate::context::{Context, Error};
use crate::transact::{Decision, Draft, Loaded, Wanted};

/// Data that is kept in memory, at most: about as many bytes as it takes there.
const KEPT_BYTES_MAX: usize = 4 * 1024;
/// What an object takes beside its texts: room for eleven members, however few it has.
const OBJECT_BYTES: usize = 640;

/// A session's data and its version.
#[derive(Clone, Debug)]
pub struct DataView {
    /// The data.
    pub data: Object,
    /// Its version; zero where nothing was ever stored.
    pub version: Version,
}

/// The condition of a write (RFC 9110 section 13.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// None was made.
    Any,
    /// There must be data.
    Exists,
    /// The data must have this version.
    Version(Version),
}

impl<S: Store> Authority<S> {
    /// A live session's data.
    ///
    /// Where the cache may decide that it lives, as in a verification, nothing else is read that
    /// decides over it; and where nobody else writes, small data is kept beside the session.
    pub async fn data(&self, sid: Sid) -> Result<DataView, Error> {
        if let Some((session, meters)) = self.living_by_cache(sid) {
            if let Some(kept) = meters.data(&session) {
                return Ok(DataView::clone(&kept));
            }
            let keys = [Key::Session(sid), Key::Data(sid)];
            let loaded = self.load(sid.partition(), &keys).await?;
            // Ended elsewhere, it may have taken its data along.
            if loaded.session(sid).is_some_and(|session| session.lifecycle == Lifecycle::Live) {
                let data = loaded.data(sid).cloned().unwrap_or_default();
                let view = DataView { data, version: loaded.version(&keys[1]) };
                if self.may_keep(&view) {
                    meters.keep_data(session, Arc::new(view.clone()));
                }
                return Ok(view);
            }
        }
        self.with_data(sid, |loaded, view| {
            let _ = loaded;
            Ok(Decision::Done(view))
        })
        .await
    }

    /// Another node's write is heard of with a delay, in which its own client must not be shown
    /// what was before.
    fn may_keep(&self, view: &DataView) -> bool {
        self.settings.verify.max_staleness.is_none() && bytes_of(&view.data) <= KEPT_BYTES_MAX
    }

    /// Replaces a live session's data.
    pub async fn put_data(
        &self,
        sid: Sid,
        data: Object,
        condition: IfMatch,
        ctx: &Context,
    ) -> Result<DataView, Error> {
        check_size(&data, self.settings.max_data)?;
        self.change_data(sid, condition, ctx, |current| *current = data.clone()).await
    }

    /// Changes a live session's data by a merge patch (RFC 7396), atomically.
    pub async fn patch_data(
        &self,
        sid: Sid,
        patch: &Object,
        condition: IfMatch,
        ctx: &Context,
    ) -> Result<DataView, Error> {
        self.change_data(sid, condition, ctx, |current| merge_patch(current, patch)).await
    }

    async fn change_data(
        &self,
        sid: Sid,
        condition: IfMatch,
        ctx: &Context,
        change: impl Fn(&mut Object) + Send + Sync,
    ) -> Result<DataView, Error> {
        let mut tried: Option<Object> = None;
        let changed = self.with_data(sid, |loaded, view| {
            let met = match condition {
                IfMatch::Any => true,
                IfMatch::Exists => view.version != Version::ZERO,
                IfMatch::Version(version) => view.version == version,
            };
            if !met {
                // What we tried to store is there: our own commit, of unknown outcome.
                return match &tried {
                    Some(tried) if loaded.in_doubt && *tried == view.data => {
                        Ok(Decision::Done(view))
                    }
                    // Or somebody wrote since, on what was before or on what we wrote: a "no" might
                    // be wrong.
                    Some(_) if loaded.in_doubt => {
                        let why = "another write followed".to_owned();
                        Err(StoreError::OutcomeUnknown(why).into())
                    }
                    Some(_) | None => Err(Refusal::PreconditionFailed.into()),
                };
            }
            let mut data = view.data.clone();
            change(&mut data);
            check_size(&data, self.settings.max_data)?;
            if data == view.data && view.version != Version::ZERO {
                // No change, no entry: a repeated request isn't a second event.
                return Ok(Decision::Done(view));
            }
            tried = Some(data.clone());
            let view = DataView { data, ..view };
            let mut draft = Draft::of(loaded);
            // The session must still be as it was judged: nothing is saved onto an ended one.
            draft.expect(Key::Session(sid));
            if let Some(session) = loaded.session(sid) {
                draft.expect_epochs(session);
            }
            draft.put(Key::Data(sid), Record::Data(view.data.clone()), Review::Never);
            draft.feed(FeedEntry::SessionChanged { sid });
            let subject = loaded.session(sid).and_then(|session| session.subject.as_ref());
            let kind = EventKind::SessionDataChanged;
            draft.audit(ctx.event(kind, loaded.now, Some(sid), subject));
            Ok(draft.commit(view))
        });
        let changed = changed.await;
        if matches!(changed, Err(Error::Refused(Refusal::PreconditionFailed))) {
            // Another write took effect that this node may not have heard of yet: whoever was
            // refused for it reads what it wrote, not what was kept.
            self.cache.evict(sid);
        }
        changed
    }

    async fn with_data(
        &self,
        sid: Sid,
        mut decide: impl FnMut(&Loaded, DataView) -> Result<Decision<DataView>, Error> + Send,
    ) -> Result<DataView, Error> {
        if sid.partition().0 >= self.store.partitions() {
            return Err(Refusal::NotFound.into());
        }
        let keys = vec![Key::Partition, Key::Session(sid), Key::Data(sid)];
        let judged = |loaded: &Loaded| {
            let session = loaded.session(sid).ok_or(Refusal::NotFound)?;
            if let Some(ending) = self.ending_of(session, loaded)? {
                return Err(Refusal::SessionEnded(ending.reason).into());
            }
            let data = loaded.data(sid).cloned().unwrap_or_default();
            decide(loaded, DataView { data, version: loaded.version(&Key::Data(sid)) })
        };
        let wanted = Wanted::following(keys, Follow::SubjectAndIndex);
        let (mut view, committed) = self.transact(sid.partition(), wanted, judged).await?;
        if let Some(committed) = committed {
            view.version = committed.tick;
        }
        Ok(view)
    }
}

/// About how many bytes data takes in memory.
fn bytes_of(data: &Object) -> usize {
    let members: usize = data.iter().map(|(name, value)| name.len() + bytes_of_value(value)).sum();
    OBJECT_BYTES.max(OBJECT_BYTES / 11 * data.len()) + members
}

/// What a value takes beside its place in what holds it.
fn bytes_of_value(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(|value| 32 + bytes_of_value(value)).sum(),
        Value::Object(members) => bytes_of(members),
    }
}
