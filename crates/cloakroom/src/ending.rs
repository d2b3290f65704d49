//! Ending sessions: one, one's own, a subject's, all there are. Ended is final.

use std::time::Duration;

use cloakroom_core::event::{EventKind, FeedEntry};
use cloakroom_core::limits::{REASON_CHARS_MAX, TOKEN_LEEWAY};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{EndReason, Ending, Lifecycle, Session};
use cloakroom_core::subject::{Bump, SubjectState};
use cloakroom_core::token::Looks;
use cloakroom_core::token::TokenRefusal;
use cloakroom_core::token::access::jti_partition;
use cloakroom_core::token::opaque::{OpaqueKind, OpaqueToken};
use cloakroom_core::types::{Partition, Sid, Subject, Timestamp};
use cloakroom_store::record::DeniedToken;
use cloakroom_store::{Committed, Durability, Follow, Key, Record, Review, Store, Version};

use crate::authority::Authority;
use crate::context::{Context, Error};
use crate::opening::ended_feed;
use crate::transact::{Decision, Draft, Loaded, Wanted};
use crate::verify::{Credential, Verified};

/// An ending that took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What the store promises about it.
    pub durability: Durability,
}

/// Endings of many sessions by one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedMany {
    /// How many live sessions it ended.
    pub revoked: usize,
    /// What the store promises about it.
    pub durability: Durability,
}

/// Why a session is closed, and what takes its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closing {
    pub(crate) reason: EndReason,
    pub(crate) successor: Option<Sid>,
}

impl From<EndReason> for Closing {
    fn from(reason: EndReason) -> Self {
        Self { reason, successor: None }
    }
}

impl<S: Store> Authority<S> {
    /// Adds the ending of a live session to a batch, with its feed entry and event.
    pub(crate) fn close(
        &self,
        draft: &mut Draft<'_>,
        session: &Session,
        closing: Closing,
        ctx: &Context,
    ) {
        self.close_saying(draft, session, closing, None, ctx);
    }

    fn close_saying(
        &self,
        draft: &mut Draft<'_>,
        session: &Session,
        closing: Closing,
        words: Option<&str>,
        ctx: &Context,
    ) {
        let loaded = draft.loaded;
        let Closing { reason, successor } = closing;
        let now = loaded.now;
        let ended = session.clone().ended(Ending { at: now, reason, successor });
        draft.put_session(ended, Review::At(now.plus(self.settings.keep_ended)));
        // The data goes with the session, unless a successor may take it over.
        if successor.is_none() {
            draft.delete_any(Key::Data(session.sid));
        }
        draft.feed(ended_feed(session, reason, self.forget_at(now)));
        let mut event =
            ctx.event(EventKind::SessionEnded, now, Some(session.sid), session.subject.as_ref());
        let words = words.map(|words| words.chars().take(REASON_CHARS_MAX).collect::<String>());
        event.reason = Some(match words {
            Some(words) if !words.is_empty() => format!("{}: {words}", reason.as_str()),
            Some(_) | None => reason.as_str().to_owned(),
        });
        draft.audit(event);
    }

    /// Takes a session out of its subject's index.
    pub(crate) fn leave_index(&self, draft: &mut Draft<'_>, session: &Session) {
        let loaded = draft.loaded;
        let Some(subject) = &session.subject else { return };
        if !loaded.index(subject).contains(&session.sid) {
            return;
        }
        let mut sids = loaded.index(subject).to_vec();
        sids.retain(|sid| *sid != session.sid);
        draft.put(Key::Index(subject.clone()), Record::Index(sids), Review::Never);
    }

    /// Until when a verifier must remember an ending at `now`: no token of it is valid after.
    pub(crate) fn forget_at(&self, now: Timestamp) -> Timestamp {
        now.plus(self.settings.access_ttl).plus(TOKEN_LEEWAY * 2)
    }

    /// All that an ending of a session decides on.
    async fn load_for_ending(&self, sid: Sid) -> Result<Loaded, Error> {
        let follow = Follow::SubjectAndIndex;
        self.load_following(sid.partition(), &ending_keys(sid), follow).await
    }

    /// Ends a session. `None`: it is over already, or unknown.
    pub(crate) async fn end_with(
        &self,
        sid: Sid,
        closing: Closing,
        words: Option<&str>,
        ctx: &Context,
    ) -> Result<Option<Ended>, Error> {
        self.end_from(None, sid, closing, words, ctx).await
    }

    /// The same, deciding first on what was loaded to find out whose session it is.
    pub(crate) async fn end_from(
        &self,
        first: Option<Loaded>,
        sid: Sid,
        closing: Closing,
        words: Option<&str>,
        ctx: &Context,
    ) -> Result<Option<Ended>, Error> {
        let partition = sid.partition();
        if partition.0 >= self.store.partitions() {
            return Ok(None);
        }
        let wanted = Wanted::following(ending_keys(sid), Follow::SubjectAndIndex);
        let decide = |loaded: &Loaded| {
            let Some(session) = loaded.session(sid) else { return Ok(Decision::Done(false)) };
            let subject = loaded.subject_of(session)?;
            let standing = session.standing(subject, loaded.partition()?, loaded.now);
            if let Err(ending) = standing {
                self.found_over(session, ending, loaded);
                return Ok(Decision::Done(false));
            }
            let mut draft = Draft::of(loaded);
            self.close_saying(&mut draft, session, closing, words, ctx);
            self.leave_index(&mut draft, session);
            Ok(draft.commit(true))
        };
        let (_, committed) = self.transact_from(first, partition, wanted, decide).await?;
        Ok(committed.map(|committed| Ended { durability: committed.durability }))
    }

    /// Since when and why a session is over: by its records, or by what this node has seen, which
    /// a store that went back may have lost.
    pub(crate) fn ending_of(
        &self,
        session: &Session,
        loaded: &Loaded,
    ) -> Result<Option<Ending>, Error> {
        let state = loaded.partition()?;
        let standing = session.standing(loaded.subject_of(session)?, state, loaded.now);
        let subject = loaded.subject_of(session)?;
        let ending = standing.err().or_else(|| self.cache.ended_lately(session, subject, state));
        if let Some(ending) = ending {
            self.found_over(session, ending, loaded);
        }
        Ok(ending)
    }

    /// Takes note of a session that was found to be over: whoever is told so may rely on it at this
    /// node at once, whichever node ended it, and even where the store then goes back.
    pub(crate) fn found_over(&self, session: &Session, ending: Ending, loaded: &Loaded) {
        let partition = session.sid.partition();
        let is_timeout =
            matches!(ending.reason, EndReason::IdleTimeout | EndReason::AbsoluteTimeout);
        // A timeout may look otherwise to a node that knows of a later use.
        let subject = loaded.subject_of(session).ok().flatten();
        let known = loaded.partition().ok();
        let is_known =
            known.is_some_and(|p| self.cache.ended_lately(session, subject, p).is_some());
        if !is_timeout && !is_known {
            let entry = ended_feed(session, ending.reason, self.forget_at(loaded.now));
            self.observe(partition, Version::ZERO, &[entry]);
            if session.lifecycle != Lifecycle::Live {
                self.expect_ended(session.sid);
            }
        }
        let mut keys = vec![Key::Session(session.sid), Key::Partition];
        keys.extend(session.subject.clone().map(Key::Subject));
        self.cache.forget(partition, &keys);
    }

    /// Whose session a carried credential proves, live or not, and what its ending decides on.
    /// Faults are faults; a dead or forged one proves nothing.
    ///
    /// A genuine access token counts even when it has expired.
    pub(crate) async fn holder_of(
        &self,
        credential: Credential<'_>,
    ) -> Result<Option<(Sid, Loaded)>, Error> {
        let (kind, text) = match credential {
            Credential::Cookie(text) => (OpaqueKind::Session, text),
            Credential::Refresh(text) => (OpaqueKind::Refresh, text),
            Credential::Access(text) => return self.holder_of_access(text).await,
        };
        let Ok(token) = OpaqueToken::parse(kind, text, &self.keys) else { return Ok(None) };
        if token.sid.partition().0 >= self.store.partitions() {
            return Ok(None);
        }
        let loaded = self.load_for_ending(token.sid).await?;
        let proven = loaded.session(token.sid).is_some_and(|session| session.proves(&token));
        Ok(proven.then_some((token.sid, loaded)))
    }

    async fn holder_of_access(&self, text: &str) -> Result<Option<(Sid, Loaded)>, Error> {
        let (verdict, _) = self.genuine_claims(text).await?;
        let claims = match verdict {
            Ok(claims) => claims,
            Err(TokenRefusal::Expired(claims)) => *claims,
            Err(TokenRefusal::Invalid | TokenRefusal::WrongType | TokenRefusal::KeyRevoked) => {
                return Ok(None);
            }
        };
        let partition = claims.sid.partition();
        if partition.0 >= self.store.partitions() {
            return Ok(None);
        }
        let denied = Key::DeniedToken(claims.jti.as_str().into());
        let mut keys = ending_keys(claims.sid);
        keys.push(denied.clone());
        let loaded = self.load_following(partition, &keys, Follow::SubjectAndIndex).await?;
        let denied = loaded.get(&denied).is_some();
        let Some(session) = loaded.session(claims.sid) else { return Ok(None) };
        let genuine = !denied
            && session.subject.as_ref() == Some(&claims.subject)
            && claims.epoch == session.subject_epoch
            && claims.auth_time.as_secs() >= session.auth_time.as_secs();
        Ok(genuine.then_some((claims.sid, loaded)))
    }

    /// Signs out the session that a credential proves. `None`: there was nothing to end.
    ///
    /// A genuine access token ends its session even when it has expired; a forged or superseded
    /// credential ends nothing.
    pub async fn logout(
        &self,
        credential: Credential<'_>,
        ctx: &Context,
    ) -> Result<Option<Ended>, Error> {
        let Some((sid, loaded)) = self.holder_of(credential).await? else { return Ok(None) };
        self.end_from(Some(loaded), sid, EndReason::SignedOut.into(), None, ctx).await
    }

    /// Ends the session that a token of any kind proves (RFC 7009 section 2.1): holding it is
    /// enough, and the session's other tokens go with it.
    pub async fn revoke_token(&self, token: &str, ctx: &Context) -> Result<Option<Ended>, Error> {
        let credential = match Looks::of(token) {
            Looks::Opaque(OpaqueKind::Session) => Credential::Cookie(token),
            Looks::Opaque(OpaqueKind::Refresh) => Credential::Refresh(token),
            Looks::Jwt => Credential::Access(token),
            Looks::Opaque(OpaqueKind::ApiKey) | Looks::Csrf | Looks::Unknown => return Ok(None),
        };
        self.logout(credential, ctx).await
    }

    /// Ends one of the user's own sessions. Another's and an unknown one are not told apart.
    pub async fn end_own(
        &self,
        verified: &Verified,
        sid: Sid,
        ctx: &Context,
    ) -> Result<Ended, Error> {
        let user = verified.user()?.clone();
        may_end_others(verified, sid)?;
        if sid.partition() != self.partition_of(&user) {
            return Err(Refusal::NotFound.into());
        }
        let loaded = self.load_for_ending(sid).await?;
        let own = loaded.session(sid).is_some_and(|s| s.subject.as_ref() == Some(&user));
        if !own {
            return Err(Refusal::NotFound.into());
        }
        let reason = if sid == verified.session.sid {
            EndReason::SignedOut
        } else {
            EndReason::SignedOutElsewhere
        };
        let ended = self.end_from(Some(loaded), sid, reason.into(), None, ctx).await?;
        // One's own and over already: a request repeated because its answer was lost.
        Ok(ended.unwrap_or(Ended { durability: Durability::Durable }))
    }

    /// Ends all of the user's sessions in one write; the current one may stay, and takes the new
    /// epoch along in the same commit.
    pub async fn end_all_own(
        &self,
        verified: &Verified,
        keep_current: bool,
        ctx: &Context,
    ) -> Result<EndedMany, Error> {
        let user = verified.user()?;
        if verified.session.actor.is_some() {
            return Err(Refusal::ON_BEHALF.into());
        }
        let keep = keep_current.then_some(verified.session.sid);
        self.raise(user, EndReason::SignedOutEverywhere, keep, ctx, |_| {}).await
    }

    /// Signs a subject out everywhere, sign-ins in flight included.
    pub async fn end_subject(&self, subject: &Subject, ctx: &Context) -> Result<EndedMany, Error> {
        self.raise(subject, EndReason::SignedOutEverywhere, None, ctx, |_| {}).await
    }

    /// Raises a subject's epoch: one write ends every session opened so far, and every sign-in
    /// whose credentials were checked before. `change` is made to the record in the same commit.
    pub(crate) async fn raise(
        &self,
        subject: &Subject,
        reason: EndReason,
        keep: Option<Sid>,
        ctx: &Context,
        change: impl Fn(&mut SubjectState) + Send + Sync,
    ) -> Result<EndedMany, Error> {
        let plan = Raise { subject, reason, keep, lost: None };
        self.raise_as(&plan, ctx, change).await
    }

    /// Raises by a plan; what it means to do again and the store has is left as it is.
    pub(crate) async fn raise_as(
        &self,
        plan: &Raise<'_>,
        ctx: &Context,
        change: impl Fn(&mut SubjectState) + Send + Sync,
    ) -> Result<EndedMany, Error> {
        let Raise { subject, reason, keep, lost } = *plan;
        let partition = self.partition_of(subject);
        let keys = vec![Key::Partition, Key::Subject(subject.clone()), Key::Index(subject.clone())];
        let decide = |loaded: &Loaded| {
            let known = loaded.subject(subject);
            if lost.is_some_and(|lost| known.is_some_and(|known| known.was_raised_at(lost.at))) {
                return Ok(Decision::Done(0));
            }
            let mut draft = Draft::of(loaded);
            let revoked = self.decide_raise(&mut draft, plan, &change)?;
            let kind = EventKind::SubjectSignedOutEverywhere;
            let mut event = ctx.event(kind, loaded.now, keep, Some(subject));
            event.reason = Some(reason.as_str().to_owned());
            draft.audit(event);
            Ok(draft.commit(revoked))
        };
        let wanted = Wanted::following(keys, Follow::Sessions { at_least: 1 });
        let (revoked, committed) = self.transact(partition, wanted, decide).await?;
        Ok(EndedMany { revoked, durability: durability(committed) })
    }

    /// Adds the raise of a subject's epoch to a batch; says how many live sessions it ends.
    pub(crate) fn decide_raise(
        &self,
        draft: &mut Draft<'_>,
        plan: &Raise<'_>,
        change: &impl Fn(&mut SubjectState),
    ) -> Result<usize, Error> {
        let loaded = draft.loaded;
        let Raise { subject, reason, keep, lost } = *plan;
        let state = loaded.partition()?;
        let known = loaded.subject(subject);
        let live = |session: &&Session| session.standing(known, state, loaded.now).is_ok();
        let sessions = loaded.index(subject).iter().filter_map(|sid| loaded.session(*sid));
        let live: Vec<&Session> = sessions.filter(live).collect();
        let kept = live.iter().find(|session| Some(session.sid) == keep);
        if keep.is_some() && kept.is_none() {
            // It ended meanwhile, so there is nobody to ask for this.
            return Err(Refusal::SessionEnded(EndReason::SignedOutElsewhere).into());
        }
        let mut record = known.cloned().unwrap_or_else(|| SubjectState::new(subject.clone()));
        match lost {
            Some(lost) => record.raise_again(lost),
            None => record.raise(reason, loaded.now),
        }
        change(&mut record);
        let (epoch, at) = (record.epoch, lost.map_or(loaded.now, |lost| lost.at));
        draft.put(Key::Subject(subject.clone()), Record::Subject(record), Review::Never);
        let sids = kept.map(|session| session.sid).into_iter().collect();
        draft.put(Key::Index(subject.clone()), Record::Index(sids), Review::Never);
        if let Some(session) = kept {
            // Whoever ended everything meanwhile ended this one too.
            draft.expect(Key::Partition);
            let mut session = (*session).clone();
            session.subject_epoch = epoch;
            draft.put_session(session, Review::Keep);
        }
        let subject = subject.clone();
        draft.feed(FeedEntry::SubjectRaised { subject, epoch, except: keep, reason, at });
        Ok(live.len() - usize::from(kept.is_some()))
    }

    /// Ends a session for an operator or a backend, with words of its own for the event. A backend
    /// whose user has signed out says `signed_out`, or `signed_out_elsewhere` where it was from
    /// another session; that is then the reason.
    pub async fn end_session(
        &self,
        sid: Sid,
        words: Option<&str>,
        ctx: &Context,
    ) -> Result<Ended, Error> {
        if sid.partition().0 >= self.store.partitions() {
            return Err(Refusal::NotFound.into());
        }
        let loaded = self.load_for_ending(sid).await?;
        let session = loaded.session(sid).ok_or(Refusal::NotFound)?;
        let subject = loaded.subject_of(session)?;
        let standing = session.standing(subject, loaded.partition()?, loaded.now);
        let already = standing.err().map(|_| Ended { durability: Durability::Durable });
        let told = [EndReason::SignedOut, EndReason::SignedOutElsewhere];
        let told = told.into_iter().find(|reason| words == Some(reason.as_str()));
        let reason = told.unwrap_or(EndReason::EndedByOperator);
        let ended = self.end_from(Some(loaded), sid, reason.into(), words, ctx).await?;
        Ok(ended.or(already).unwrap_or(Ended { durability: Durability::Local }))
    }

    /// Ends every session there is: one epoch per partition. Repeatable; where it fails, a part
    /// may have ended. The epochs decide; the instant is for information.
    pub async fn end_everything(&self, ctx: &Context) -> Result<Timestamp, Error> {
        let at = self.now();
        // Partition 0 goes last: its entry tells everybody that all have ended.
        for number in (0..self.store.partitions()).rev() {
            self.end_partition(Partition(number), ctx).await?;
        }
        Ok(at)
    }

    pub(crate) async fn end_partition(
        &self,
        partition: Partition,
        ctx: &Context,
    ) -> Result<(), Error> {
        let decide = |loaded: &Loaded| {
            let mut state = *loaded.partition()?;
            state.epoch += 1;
            // Ever later, whatever this node's clock says: an older record is one that was lost.
            let next = state.bumped_at.plus(Duration::from_millis(1));
            let seen = self.cache.all_ended_at(partition);
            state.bumped_at = loaded.now.max(next).max(seen);
            let mut draft = Draft::of(loaded);
            draft.put(Key::Partition, Record::Partition(state), Review::Never);
            draft.feed(FeedEntry::AllEnded { at: state.bumped_at });
            if partition == Partition::ZERO {
                draft.audit(ctx.event(EventKind::AllEnded, loaded.now, None, None));
            }
            Ok(draft.commit(()))
        };
        self.transact(partition, vec![Key::Partition], decide).await?;
        Ok(())
    }

    /// Denies one access token until it expires; longer than any token lives is as good as that.
    pub async fn deny_token(
        &self,
        jti: &str,
        expires_at: Timestamp,
        ctx: &Context,
    ) -> Result<Ended, Error> {
        // Taken until the leeway is over, by a node whose clock may be late.
        self.deny_until(jti, expires_at.plus(2 * TOKEN_LEEWAY), ctx).await
    }

    /// Denies one access token until nobody takes it any more.
    pub(crate) async fn deny_until(
        &self,
        jti: &str,
        until: Timestamp,
        ctx: &Context,
    ) -> Result<Ended, Error> {
        let partition = jti_partition(jti).filter(|p| p.0 < self.store.partitions());
        let Some(partition) = partition else {
            let why = "not the jti of a token issued here".to_owned();
            return Err(Refusal::InvalidMember { member: "jti".into(), why }.into());
        };
        let key = Key::DeniedToken(jti.into());
        let decide = |loaded: &Loaded| {
            let until = until.min(self.forget_at(loaded.now));
            let is_denied = match loaded.get(&key) {
                Some(Record::DeniedToken(known)) => known.until >= until,
                Some(_) | None => false,
            };
            if is_denied {
                // Whoever is told so may rely on it at this node at once.
                let entry = FeedEntry::TokenDenied { jti: jti.to_owned(), until };
                self.observe(partition, Version::ZERO, &[entry]);
                return Ok(Decision::Done(()));
            }
            if until <= loaded.now {
                return Ok(Decision::Done(()));
            }
            let mut draft = Draft::of(loaded);
            let record = Record::DeniedToken(DeniedToken { until });
            draft.put_until(key.clone(), record, Review::At(until), Some(until));
            draft.feed(FeedEntry::TokenDenied { jti: jti.to_owned(), until });
            let mut event = ctx.event(EventKind::TokenDenied, loaded.now, None, None);
            event.reason = Some(jti.to_owned());
            draft.audit(event);
            Ok(draft.commit(()))
        };
        let ((), committed) = self.transact(partition, vec![key.clone()], decide).await?;
        Ok(Ended { durability: durability(committed) })
    }
}

/// A raise of a subject's epoch.
#[derive(Clone, Copy)]
pub(crate) struct Raise<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) reason: EndReason,
    /// The one session that is taken along.
    pub(crate) keep: Option<Sid>,
    /// The raise that is done again, since a store that went back has lost it.
    pub(crate) lost: Option<Bump>,
}

/// A session that somebody opened on behalf of a user ends itself only.
fn may_end_others(verified: &Verified, sid: Sid) -> Result<(), Refusal> {
    if verified.session.actor.is_some() && sid != verified.session.sid {
        return Err(Refusal::ON_BEHALF);
    }
    Ok(())
}

/// What the store promised; an answer without a commit rests on an earlier one.
pub(crate) fn durability(committed: Option<Committed>) -> Durability {
    committed.map_or(Durability::Durable, |committed| committed.durability)
}

/// The records of a session that its ending decides on, beside what belongs to its subject.
fn ending_keys(sid: Sid) -> Vec<Key> {
    vec![Key::Partition, Key::Session(sid), Key::Data(sid)]
}
