//! Proving oneself again by password, and changing it.

use std::sync::Arc;

use cloakroom_core::event::{EventKind, FeedEntry};
use cloakroom_core::identifier::Identifier;
use cloakroom_core::limits::PASSWORD_BYTES_MAX;
use cloakroom_core::password::{self, PasswordRejected};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{EndReason, Holder, Session};
use cloakroom_core::subject::{SubjectState, User};
use cloakroom_core::token::opaque::{OpaqueKind, OpaqueToken};
use cloakroom_core::types::{Secret, Subject, Timestamp};
use cloakroom_store::{Follow, Key, Record, Review, Store};

use crate::authority::Authority;
use crate::clock::draw;
use crate::context::{Context, Error, Unavailable};
use crate::ending::{Raise, durability};
use crate::opening::Opened;
use crate::signin::{ACR_PASSWORD, AMR_PASSWORD, Proven, Ticket};
use crate::throttle::NameHash;
use crate::transact::{Decision, Draft, Loaded, Wanted};
use crate::verify::Verified;

/// A step-up about to be committed: the same through all retries.
struct StepUp<'a> {
    /// The session as it was proven by the request's credential.
    before: &'a Session,
    subject: &'a Subject,
    ticket: Ticket,
    secret: Secret<[u8; 32]>,
}

/// A session with its new credential.
type Stepped = (Box<Session>, Option<SubjectState>, OpaqueToken);

impl<S: Store> Authority<S> {
    /// Proves the user of a live session anew: `auth_time` is now, the lifetimes start anew, and
    /// so does the credential; the former ones are void.
    ///
    /// A wrong password counts as a failed sign-in and changes nothing.
    pub async fn reauthenticate(
        &self,
        verified: &Verified,
        password: Secret<String>,
        ctx: &Context,
    ) -> Result<Opened, Error> {
        let proven = self.prove_user(verified, &password, ctx).await?;
        self.fresh_ring().await?;
        let session = &verified.session;
        let step = self.step_up(session, &proven)?;
        let mut keys = vec![Key::Partition, Key::Session(session.sid)];
        keys.push(Key::Subject(step.subject.clone()));
        let decide = |loaded: &Loaded| {
            if let Some(stepped) = own_step(&step, loaded) {
                return Ok(Decision::Done(stepped));
            }
            let (next, token) = decide_step(self, &step, loaded)?;
            let mut draft = Draft::of(loaded);
            draft.expect_epochs(&next);
            log_step(&mut draft, &next, loaded.now, ctx);
            draft.put_session(next.clone(), Review::At(next.refused_from()));
            let known = loaded.subject(step.subject).cloned();
            Ok(draft.commit((Box::new(next), known, token)))
        };
        let ((session, subject, token), _) =
            self.transact(session.sid.partition(), keys, decide).await?;
        self.answer_opened(Arc::new(*session), subject.as_ref(), &token)
    }

    /// Changes the password of the user of a live session. In the same commit the user's other
    /// sessions end and this one gets a new credential.
    pub async fn change_password(
        &self,
        verified: &Verified,
        current: Secret<String>,
        new: Secret<String>,
        ctx: &Context,
    ) -> Result<Opened, Error> {
        let proven = self.prove_user(verified, &current, ctx).await?;
        let identifier = stored_identifier(&proven.user)?;
        let hash = self.hash_chosen(&new, &identifier).await?;
        self.fresh_ring().await?;
        let step = self.step_up(&verified.session, &proven)?;
        let sid = step.before.sid;
        let subject = step.subject;
        let keys = vec![
            Key::Partition,
            Key::Session(sid),
            Key::Subject(subject.clone()),
            Key::User(subject.clone()),
            Key::Index(subject.clone()),
        ];
        let wanted = Wanted::following(keys, Follow::Sessions { at_least: 1 });
        let decide = |loaded: &Loaded| {
            if let Some(stepped) = own_step(&step, loaded) {
                return Ok(Decision::Done(stepped));
            }
            self.decide_change(&step, &hash, loaded, ctx)
        };
        let ((session, subject, token), committed) =
            self.transact(sid.partition(), wanted, decide).await?;
        let opened = self.answer_opened(Arc::new(*session), subject.as_ref(), &token)?;
        Ok(Opened { ended: Some(durability(committed)), ..opened })
    }

    /// Hashes a new password of this identifier's user, if it may be chosen.
    pub(crate) async fn hash_chosen(
        &self,
        new: &Secret<String>,
        identifier: &Identifier,
    ) -> Result<String, Error> {
        let normal = self.chosen(new, identifier)?;
        self.hashing.hash(normal, draw(&*self.entropy)).await
    }

    /// A new password, normalised, if this identifier's user may choose it.
    pub(crate) fn chosen(
        &self,
        new: &Secret<String>,
        identifier: &Identifier,
    ) -> Result<Secret<String>, Refusal> {
        let rules = self.settings.password;
        let rejected = |why: PasswordRejected| Refusal::PasswordRejected(why.to_string());
        if new.expose().len() > PASSWORD_BYTES_MAX {
            return Err(rejected(PasswordRejected::TooLong { max: rules.max() }));
        }
        let normal = password::normalise(new.expose());
        password::check_new(&normal, identifier, rules).map_err(rejected)?;
        Ok(normal)
    }

    /// Checks the password of a live session's own user, counted like a sign-in: a stolen session
    /// must not be a way to guess it.
    async fn prove_user(
        &self,
        verified: &Verified,
        password: &Secret<String>,
        ctx: &Context,
    ) -> Result<Proven, Error> {
        let outcome = self.try_prove_user(verified, password, ctx).await;
        self.counters.tallies.reauthentication(&outcome);
        outcome
    }

    async fn try_prove_user(
        &self,
        verified: &Verified,
        password: &Secret<String>,
        ctx: &Context,
    ) -> Result<Proven, Error> {
        let subject = verified.user()?;
        if verified.session.actor.is_some() {
            return Err(Refusal::ON_BEHALF.into());
        }
        let sid = Some(verified.session.sid);
        let Some(password) = self.presented(password) else {
            self.report(EventKind::SigninFailed, sid, Some(subject), ctx);
            return Err(Refusal::CredentialsInvalid.into());
        };
        let candidate = self.load_candidate(subject).await?;
        let name = match &candidate.user {
            Some(user) => NameHash(user.identifier_hash),
            None => self.name_of_nobody(subject.as_str()),
        };
        let attempt = match self.count_attempt(name, ctx).await {
            Ok((attempt, _)) => attempt,
            Err(refused) => return Err(self.throttled(refused, sid, Some(subject), ctx)),
        };
        let Some(proven) = self.check_password(candidate, &password, sid, ctx).await? else {
            return Err(Refusal::CredentialsInvalid.into());
        };
        self.forgive(attempt).await;
        Ok(proven)
    }

    fn step_up<'a>(&self, before: &'a Session, proven: &Proven) -> Result<StepUp<'a>, Error> {
        let subject = before.subject.as_ref().ok_or(Refusal::CredentialsRequired)?;
        let secret = Secret::new(draw(&*self.entropy));
        Ok(StepUp { before, subject, ticket: proven.ticket, secret })
    }

    fn decide_change(
        &self,
        step: &StepUp<'_>,
        hash: &str,
        loaded: &Loaded,
        ctx: &Context,
    ) -> Result<Decision<Stepped>, Error> {
        let StepUp { before: Session { sid, .. }, subject, .. } = step;
        let gone = Refusal::SessionEnded(EndReason::UserDisabled);
        let user = loaded.user(subject).ok_or(gone)?;
        let (mut next, token) = decide_step(self, step, loaded)?;
        let mut draft = Draft::of(loaded);
        let plan =
            Raise { subject, reason: EndReason::PasswordChanged, keep: Some(*sid), lost: None };
        let at = loaded.now;
        let change = |record: &mut SubjectState| record.password_changed_at = Some(at);
        // It expects the partition as it was read, since it takes a session along.
        self.decide_raise(&mut draft, &plan, &change)?;
        // The raise takes the session along as it was; what is stored is the one stepped up.
        draft.take_back(&Key::Session(*sid));
        let mut known = loaded.subject(subject).cloned();
        if let Some(known) = &mut known {
            known.raise(plan.reason, at);
            change(known);
            next.subject_epoch = known.epoch;
        }
        draft.put_session(next.clone(), Review::At(next.refused_from()));
        let user = User {
            password: Some(hash.to_owned()),
            password_changed_at: Some(at),
            reset: None,
            ..user.clone()
        };
        let key = Key::User(user.id.clone());
        draft.put(key, Record::User(user), Review::Never);
        log_step(&mut draft, &next, at, ctx);
        draft.audit(ctx.event(EventKind::UserPasswordChanged, at, Some(*sid), Some(subject)));
        Ok(draft.commit((Box::new(next), known, token)))
    }
}

/// The session with its new credential, if it still is as it was proven.
fn decide_step<S: Store>(
    authority: &Authority<S>,
    step: &StepUp<'_>,
    loaded: &Loaded,
) -> Result<(Session, OpaqueToken), Error> {
    let session = loaded.session(step.before.sid).ok_or(Refusal::TokenInvalid)?;
    let (known, partition) = (loaded.subject_of(session)?, loaded.partition()?);
    if let Some(ending) = authority.ending_of(session, loaded)? {
        return Err(Refusal::SessionEnded(ending.reason).into());
    }
    step.ticket.check(known, partition)?;
    if session.auth_time != step.before.auth_time {
        // Another step-up came first: the credential of this request is void.
        return Err(Refusal::TokenInvalid.into());
    }
    let (mut next, token) = session.clone().stepped_up(loaded.now, step.secret.clone());
    // `auth_time`, `amr` and `acr` speak of one authentication: a password now isn't the
    // second factor of then.
    next.amr = vec![AMR_PASSWORD.to_owned()];
    next.acr = ACR_PASSWORD.to_owned();
    Ok((next, token))
}

/// What our own commit of unknown outcome left, if it took effect.
fn own_step(step: &StepUp<'_>, loaded: &Loaded) -> Option<Stepped> {
    let session = loaded.session(step.before.sid)?;
    let (kind, lineage) = match &session.holder {
        Holder::Cookie { lineage, .. } => (OpaqueKind::Session, *lineage),
        Holder::Refresh(refresh) => (OpaqueKind::Refresh, refresh.lineage),
    };
    let secret = step.secret.clone();
    let token = OpaqueToken { kind, sid: session.sid, lineage, generation: 0, secret };
    let known = loaded.subject(step.subject);
    let partition = loaded.partition().ok()?;
    let stands = session.standing(known, partition, loaded.now).is_ok();
    (stands && session.proves(&token)).then(|| (Box::new(session.clone()), known.cloned(), token))
}

fn log_step(draft: &mut Draft<'_>, next: &Session, at: Timestamp, ctx: &Context) {
    let (sid, auth_time) = (next.sid, next.auth_time);
    draft.feed(FeedEntry::SessionSteppedUp { sid, auth_time });
    let kind = EventKind::SessionSteppedUp;
    draft.audit(ctx.event(kind, at, Some(sid), next.subject.as_ref()));
}

/// A user's identifier as it was taken when it was stored.
pub(crate) fn stored_identifier(user: &User) -> Result<Identifier, Error> {
    Identifier::parse(&user.identifier)
        .map_err(|_| Unavailable::Missing("a readable identifier of a user".into()).into())
}
