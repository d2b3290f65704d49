//! Refreshing: the core's ratchet, committed.

use std::sync::Arc;

use cloakroom_core::event::{EventKind, FeedEntry};
use cloakroom_core::limits::IDEMPOTENCY_KEY_CHARS;
use cloakroom_core::network::Network;
use cloakroom_core::refresh::{Channel, Presented, RefreshDecision, RefreshState};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{Client, Delivery, EndReason, Holder, Session};
use cloakroom_core::subject::SubjectState;
use cloakroom_core::token::opaque::{OpaqueKind, OpaqueToken};
use cloakroom_core::types::Sid;
use cloakroom_store::{Follow, Key, Review, Store};

use crate::authority::Authority;
use crate::clock::draw;
use crate::context::{Context, Error};
use crate::figures::RefreshOutcome;
use crate::opening::Opened;
use crate::stats::Stat;
use crate::transact::{Decision, Draft, Loaded, Wanted};
use crate::verify::{Credential, Verified};

/// What a refresh came to, once committed.
enum Outcome {
    /// Answer this token of this session.
    Answer(RefreshOutcome, Box<Session>, Option<SubjectState>, OpaqueToken),
    /// The session was ended: the token had been used before.
    Reused,
    /// The store went back; nothing ended.
    Ahead(Box<Session>),
}

impl<S: Store> Authority<S> {
    /// Exchanges a refresh token for its successor and a fresh access token.
    ///
    /// However often and concurrently a token is presented within its tolerance, the answer is
    /// one successor. Any other reuse ends the session.
    pub async fn refresh(
        &self,
        token: &str,
        channel: Channel,
        idempotency_key: Option<&str>,
        ctx: &Context,
    ) -> Result<Opened, Error> {
        let refreshed = self.try_refresh(token, channel, idempotency_key, ctx).await;
        self.counters.tallies.refresh(match &refreshed {
            Ok((outcome, _)) => *outcome,
            Err(error) => RefreshOutcome::of_error(error),
        });
        let (outcome, answer) = refreshed?;
        if answer.is_ok() && outcome != RefreshOutcome::RetriedElsewhere {
            self.counters.add(Stat::Refreshed, 1);
        }
        answer
    }

    async fn try_refresh(
        &self,
        token: &str,
        channel: Channel,
        idempotency_key: Option<&str>,
        ctx: &Context,
    ) -> Result<(RefreshOutcome, Result<Opened, Error>), Error> {
        let token = OpaqueToken::parse(OpaqueKind::Refresh, token, &self.keys)?;
        let partition = token.sid.partition();
        if partition.0 >= self.store.partitions() {
            return Err(Refusal::TokenInvalid.into());
        }
        let idempotency = idempotency_key.map(|key| self.idempotency(&token, key)).transpose()?;
        let presented = Presented { token: &token, channel, idempotency };
        // Before anything is rotated: what can't be signed isn't begun.
        self.fresh_ring().await?;
        let keys = vec![Key::Partition, Key::Session(token.sid), Key::Data(token.sid)];
        let nonce = draw(&*self.entropy);
        let mut was_current = false;
        let decide = |loaded: &Loaded| {
            let decision = self.decide_refresh(&presented, nonce, loaded, ctx)?;
            match &decision {
                Decision::Commit(_, Outcome::Answer(..)) => was_current = true,
                // Another request with the same token was faster, and its successor was used since:
                // what was current when it came is late, not stolen, unless it was another's.
                Decision::Commit(_, Outcome::Reused)
                    if was_current && is_last_user(loaded, token.sid, ctx) =>
                {
                    return Err(Refusal::TokenInvalid.into());
                }
                Decision::Commit(..) | Decision::Done(_) | Decision::Load(_) => {}
            }
            Ok(decision)
        };
        let wanted = Wanted::following(keys, Follow::SubjectAndIndex);
        let (outcome, _) = self.transact(partition, wanted, decide).await?;
        Ok(match outcome {
            Outcome::Answer(outcome, session, subject, token) => {
                if outcome == RefreshOutcome::RetriedElsewhere {
                    let kind = EventKind::SessionRetriedElsewhere;
                    self.report(kind, Some(session.sid), session.subject.as_ref(), ctx);
                }
                let answer = self.answer_opened(Arc::new(*session), subject.as_ref(), &token);
                (outcome, answer)
            }
            Outcome::Reused => (RefreshOutcome::Reused, Err(Refusal::RefreshTokenReused.into())),
            Outcome::Ahead(session) => {
                let kind = EventKind::SessionRollbackSeen;
                self.report(kind, Some(session.sid), session.subject.as_ref(), ctx);
                (RefreshOutcome::RollbackSeen, Err(Refusal::TokenInvalid.into()))
            }
        })
    }

    /// Uses a cookie session on purpose: its idle timeout starts anew.
    pub async fn slide(&self, cookie: &str) -> Result<Verified, Error> {
        self.verify(Credential::Cookie(cookie)).await
    }

    fn idempotency(&self, token: &OpaqueToken, key: &str) -> Result<[u8; 32], Error> {
        check_idempotency_key(key)?;
        Ok(self.keys.idempotency_hash(token.generation, key))
    }

    fn decide_refresh(
        &self,
        presented: &Presented<'_>,
        nonce: [u8; 16],
        loaded: &Loaded,
        ctx: &Context,
    ) -> Result<Decision<Outcome>, Error> {
        let sid = presented.token.sid;
        let session = loaded.session(sid).ok_or(Refusal::TokenInvalid)?;
        let Holder::Refresh(state) = &session.holder else {
            return Err(Refusal::TokenInvalid.into());
        };
        let subject = loaded.subject_of(session)?;
        if let Some(ending) = self.ending_of(session, loaded)? {
            // Why it ended is told to whoever holds a genuine token of it, and to nobody else.
            return Err(match session.holds_refresh(presented.token) {
                true => Refusal::SessionEnded(ending.reason).into(),
                false => Refusal::TokenInvalid.into(),
            });
        }
        channel_fits(session.delivery, presented.channel)?;
        let rules = self.settings.refresh;
        let idle = session.idle_timeout;
        let token = |token| (Box::new(session.clone()), subject.cloned(), token);
        match state.decide(presented, rules, idle, loaded.now, nonce, &self.keys) {
            RefreshDecision::Rotate { state, token } => {
                Ok(self.decide_rotate(session, state, token, loaded, ctx))
            }
            RefreshDecision::Replay(successor) => {
                let (session, subject, successor) = token(successor);
                let outcome = if elsewhere(&session.client, &ctx.client) {
                    RefreshOutcome::RetriedElsewhere
                } else {
                    RefreshOutcome::Retried
                };
                Ok(Decision::Done(Outcome::Answer(outcome, session, subject, successor)))
            }
            RefreshDecision::Keep => {
                let (session, subject, same) = token(presented.token.clone());
                let kept = RefreshOutcome::Unchanged;
                Ok(Decision::Done(Outcome::Answer(kept, session, subject, same)))
            }
            RefreshDecision::Reused => {
                let mut draft = Draft::of(loaded);
                self.close(&mut draft, session, EndReason::RefreshReused.into(), ctx);
                self.leave_index(&mut draft, session);
                let kind = EventKind::SessionReuseDetected;
                let subject = session.subject.as_ref();
                draft.audit(ctx.event(kind, loaded.now, Some(sid), subject));
                Ok(draft.commit(Outcome::Reused))
            }
            RefreshDecision::Superseded => Err(Refusal::TokenInvalid.into()),
            RefreshDecision::Expired => Err(Refusal::TokenExpired.into()),
            RefreshDecision::Ahead => Ok(Decision::Done(Outcome::Ahead(Box::new(session.clone())))),
        }
    }

    fn decide_rotate(
        &self,
        session: &Session,
        state: RefreshState,
        token: OpaqueToken,
        loaded: &Loaded,
        ctx: &Context,
    ) -> Decision<Outcome> {
        let sid = session.sid;
        let mut draft = Draft::of(loaded);
        let mut next = session.clone();
        next.holder = Holder::Refresh(state);
        next.last_seen_at = next.last_seen_at.max(loaded.now);
        draft.feed(FeedEntry::SessionChanged { sid });
        let subject_name = session.subject.as_ref();
        if elsewhere(&session.client, &ctx.client) {
            let kind = EventKind::SessionRefreshed;
            draft.audit(ctx.event(kind, loaded.now, Some(sid), subject_name));
            next.client.ip = ctx.client.ip;
            next.client.user_agent.clone_from(&ctx.client.user_agent);
        }
        draft.expect_epochs(session);
        draft.put_session(next.clone(), Review::At(next.refused_from()));
        let subject = subject_name.and_then(|name| loaded.subject(name)).cloned();
        let outcome = RefreshOutcome::Rotated;
        draft.commit(Outcome::Answer(outcome, Box::new(next), subject, token))
    }
}

/// A refresh cookie stays a cookie: nothing in a body may turn it into a token that scripts read.
fn channel_fits(delivery: Delivery, channel: Channel) -> Result<(), Refusal> {
    match (delivery, channel) {
        (Delivery::Split, Channel::Cookie) | (Delivery::Bearer, Channel::Body) => Ok(()),
        (Delivery::Split, Channel::Body)
        | (Delivery::Bearer, Channel::Cookie)
        | (Delivery::Cookie, Channel::Body | Channel::Cookie) => Err(Refusal::TokenWrongType),
    }
}

fn is_last_user(loaded: &Loaded, sid: Sid, ctx: &Context) -> bool {
    loaded.session(sid).is_some_and(|session| !elsewhere(&session.client, &ctx.client))
}

/// Whether a request comes from another network or user agent than the session was last used by.
fn elsewhere(known: &Client, given: &Client) -> bool {
    let network = |client: &Client| client.ip.map(Network::of);
    network(known) != network(given) || known.user_agent != given.user_agent
}

pub(crate) fn check_idempotency_key(key: &str) -> Result<(), Error> {
    let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    if visible && IDEMPOTENCY_KEY_CHARS.contains(&key.len()) {
        return Ok(());
    }
    let why = "must be 16 to 128 visible ASCII characters".to_owned();
    Err(Refusal::InvalidMember { member: "Idempotency-Key".into(), why }.into())
}
