//! Claims: what may be in them, and changing a session's.

use cloakroom_core::event::{EventKind, FeedEntry};
use cloakroom_core::json::merge_patch;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::Object;
use cloakroom_core::token::access::check_claims;
use cloakroom_core::types::Sid;
use cloakroom_store::{Follow, Key, Review, Store};

use crate::authority::Authority;
use crate::context::{Context, Error};
use crate::listing::Listed;
use crate::transact::{Decision, Draft, Loaded, Wanted};

/// Refuses an object over `max` bytes of JSON; names its largest member.
pub(crate) fn check_size(object: &Object, max: usize) -> Result<(), Refusal> {
    let size = |value: &serde_json::Value| value.to_string().len();
    let total: usize = object.iter().map(|(name, value)| name.len() + size(value) + 4).sum();
    if total <= max {
        return Ok(());
    }
    let largest = object.iter().max_by_key(|(name, value)| name.len() + size(value));
    let largest = largest.map(|(name, _)| name.chars().take(64).collect()).unwrap_or_default();
    Err(Refusal::TooLarge { max, largest })
}

impl<S: Store> Authority<S> {
    /// Refuses claims with registered names, or too many of them.
    pub(crate) fn check_claims(&self, claims: &Object) -> Result<(), Error> {
        check_claims(claims).map_err(|refused| Refusal::InvalidMember {
            member: format!("claims.{}", refused.member),
            why: refused.why.to_owned(),
        })?;
        Ok(check_size(claims, self.settings.max_claims)?)
    }

    /// Refuses a merge patch whose additions have registered names.
    pub(crate) fn check_patch(&self, patch: &Object) -> Result<(), Error> {
        let additions: Object = patch
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        self.check_claims(&additions)
    }

    /// Changes a session's own claims by a merge patch (RFC 7396); null gives the subject's back.
    pub async fn change_claims(
        &self,
        sid: Sid,
        patch: &Object,
        ctx: &Context,
    ) -> Result<Listed, Error> {
        self.check_patch(patch)?;
        if sid.partition().0 >= self.store.partitions() {
            return Err(Refusal::NotFound.into());
        }
        let keys = vec![Key::Partition, Key::Session(sid)];
        let decide = |loaded: &Loaded| {
            let session = loaded.session(sid).ok_or(Refusal::NotFound)?;
            if let Some(ending) = self.ending_of(session, loaded)? {
                return Err(Refusal::SessionEnded(ending.reason).into());
            }
            let mut changed = session.clone();
            merge_patch(&mut changed.claims, patch);
            self.check_claims(&changed.claims)?;
            if changed.claims == session.claims {
                // No change, no entry: a repeated request isn't a second event.
                return Ok(Decision::Done(()));
            }
            let session = changed;
            let mut draft = Draft::of(loaded);
            draft.expect_epochs(&session);
            let kind = EventKind::SessionClaimsChanged;
            draft.feed(FeedEntry::SessionChanged { sid });
            draft.audit(ctx.event(kind, loaded.now, Some(sid), session.subject.as_ref()));
            draft.put_session(session, Review::Keep);
            Ok(draft.commit(()))
        };
        let wanted = Wanted::following(keys, Follow::SubjectAndIndex);
        self.transact(sid.partition(), wanted, decide).await?;
        self.session(sid).await
    }
}
