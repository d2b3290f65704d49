//! Subjects: claims that all of a subject's sessions share, disabling, erasing.

use std::sync::Arc;

use cloakroom_core::event::EventKind;
use cloakroom_core::json::merge_patch;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{Client, EndReason, Ending, Object, Session};
use cloakroom_core::subject::SubjectState;
use cloakroom_core::types::Subject;
use cloakroom_store::{Durability, Follow, Key, Review, Store};

use crate::authority::Authority;
use crate::context::{Context, Error};
use crate::ending::{EndedMany, Raise, durability};
use crate::throttle::NameHash;
use crate::transact::{Decision, Draft, Loaded, Wanted};
use crate::users::user_keys;

/// A subject as it is shown.
#[derive(Clone, Debug)]
pub struct SubjectView {
    /// What is kept of it.
    pub state: Arc<SubjectState>,
    /// How many of its sessions live.
    pub live_sessions: usize,
    /// What the store promises about the endings that this change brought with it.
    pub ended: Option<Durability>,
}

/// What is to change of a subject.
#[derive(Clone, Debug, Default)]
pub struct SubjectPatch {
    /// A merge patch (RFC 7396) of the claims.
    pub claims: Option<Object>,
    /// Disabling ends all sessions, and none can be opened; enabling revives none.
    pub disabled: Option<bool>,
}

impl<S: Store> Authority<S> {
    /// A subject that has, or had, a session or a user.
    pub async fn subject(&self, subject: &Subject) -> Result<SubjectView, Error> {
        let key = Key::Subject(subject.clone());
        let loaded = self.load(self.partition_of(subject), &[key]).await?;
        let state = loaded.subject(subject).ok_or(Refusal::NotFound)?;
        let live_sessions = self.sessions_of(subject).await?.len();
        Ok(SubjectView { state: Arc::new(state.clone()), live_sessions, ended: None })
    }

    /// Changes a subject. One that was never heard of comes into being by it: it can be given
    /// claims, or be disabled, before its first session.
    pub async fn patch_subject(
        &self,
        subject: &Subject,
        patch: SubjectPatch,
        ctx: &Context,
    ) -> Result<SubjectView, Error> {
        if let Some(claims) = &patch.claims {
            self.check_patch(claims)?;
        }
        let decide = |loaded: &Loaded| self.decide_patch(subject, &patch, loaded, ctx);
        let wanted = Wanted::following(user_keys(subject), Follow::Sessions { at_least: 1 });
        let (state, committed) = self.transact(self.partition_of(subject), wanted, decide).await?;
        let live_sessions = self.sessions_of(subject).await?.len();
        let ended = (patch.disabled == Some(true)).then(|| durability(committed));
        Ok(SubjectView { state: Arc::new(state), live_sessions, ended })
    }

    fn decide_patch(
        &self,
        subject: &Subject,
        patch: &SubjectPatch,
        loaded: &Loaded,
        ctx: &Context,
    ) -> Result<Decision<SubjectState>, Error> {
        let at = loaded.now;
        let known = loaded.subject(subject);
        let state = known.cloned().unwrap_or_else(|| SubjectState::new(subject.clone()));
        let mut claims = state.claims.clone();
        if let Some(patch) = &patch.claims {
            merge_patch(&mut claims, patch);
            self.check_claims(&claims)?;
        }
        let toggled = patch.disabled.filter(|wanted| *wanted != state.disabled_at.is_some());
        let claims_changed = claims != state.claims;
        if !claims_changed && toggled.is_none() && known.is_some() {
            return Ok(Decision::Done(state));
        }
        let apply = |state: &mut SubjectState| {
            state.claims.clone_from(&claims);
            match toggled {
                Some(true) => state.disabled_at = Some(at),
                Some(false) => state.disabled_at = None,
                None => {}
            }
        };
        let mut draft = Draft::of(loaded);
        self.decide_state(&mut draft, subject, (toggled, false), &apply)?;
        let kind = match toggled {
            Some(true) => EventKind::UserDisabled,
            Some(false) => EventKind::UserEnabled,
            None => EventKind::SubjectChanged,
        };
        draft.audit(ctx.event(kind, at, None, Some(subject)));
        let mut next = state;
        if toggled == Some(true) {
            next.raise(EndReason::UserDisabled, at);
        }
        apply(&mut next);
        Ok(draft.commit(next))
    }

    /// Erases what is known of a subject: its sessions end and lose what they hold, its claims and
    /// its user go. Its epoch stays, so that nothing comes back.
    pub async fn erase_subject(
        &self,
        subject: &Subject,
        ctx: &Context,
    ) -> Result<EndedMany, Error> {
        let mut name = None;
        let mut seen = false;
        let decide = |loaded: &Loaded| {
            if loaded.subject(subject).is_none() && loaded.user(subject).is_none() {
                return Err(Refusal::NotFound.into());
            }
            if let Some(missing) = unloaded_contents(subject, loaded) {
                return Ok(Decision::Load(missing));
            }
            if seen && is_erased(subject, loaded) {
                // Our own commit of unknown outcome took effect.
                return Ok(Decision::Done(0));
            }
            seen = true;
            name = name.or(loaded.user(subject).map(|user| NameHash(user.identifier_hash)));
            let mut draft = Draft::of(loaded);
            let revoked = match loaded.user(subject) {
                Some(_) => self.decide_delete(&mut draft, subject, ctx)?,
                None => {
                    let plan =
                        Raise { subject, reason: EndReason::UserDisabled, keep: None, lost: None };
                    let change = |state: &mut SubjectState| state.claims = Object::new();
                    self.decide_raise(&mut draft, &plan, &change)?
                }
            };
            self.scrub_sessions(&mut draft, subject);
            let kind = EventKind::SubjectErased;
            draft.audit(ctx.event(kind, loaded.now, None, Some(subject)));
            Ok(draft.commit(revoked))
        };
        let keys = user_keys(subject);
        let (revoked, committed) = self.transact(self.partition_of(subject), keys, decide).await?;
        if let Some(name) = name {
            self.let_go(name, subject).await?;
        }
        Ok(EndedMany { revoked, durability: durability(committed) })
    }

    /// Ends the records of a subject's sessions one by one, without what they said of their user.
    fn scrub_sessions(&self, draft: &mut Draft<'_>, subject: &Subject) {
        let loaded = draft.loaded;
        let sessions = loaded.index(subject).iter().filter_map(|sid| loaded.session(*sid));
        for session in sessions {
            let reason = EndReason::UserDisabled;
            let ending = Ending { at: loaded.now, reason, successor: None };
            let mut ended: Session = session.clone().ended(ending);
            ended.claims = Object::new();
            ended.client = Client::default();
            draft.put_session(ended, Review::At(loaded.now.plus(self.settings.keep_ended)));
            draft.delete_any(Key::Data(session.sid));
        }
    }
}

fn is_erased(subject: &Subject, loaded: &Loaded) -> bool {
    loaded.user(subject).is_none()
        && loaded.index(subject).is_empty()
        && loaded.subject(subject).is_some_and(|state| state.claims.is_empty())
}

/// The sessions of a subject and their data, where they aren't loaded.
fn unloaded_contents(subject: &Subject, loaded: &Loaded) -> Option<Vec<Key>> {
    let sids = loaded.index(subject).iter();
    let missing: Vec<Key> = sids
        .flat_map(|sid| [Key::Session(*sid), Key::Data(*sid)])
        .filter(|key| !loaded.has(key))
        .collect();
    (!missing.is_empty()).then_some(missing)
}
