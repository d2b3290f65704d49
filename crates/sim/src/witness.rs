//! Asking a node, and judging its answer by what the book knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use cloakroom::core::event::Actor;
use cloakroom::{Context, Credential, Error, Opened, Verified, Via};
use cloakroom_core::refresh::Channel;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{Client, Delivery, Grant, Holder, Object, Session};
use cloakroom_core::token::opaque::{OpaqueKind, OpaqueToken};
use cloakroom_core::types::{Partition, Sid, Subject, Timestamp};

use crate::book::{Book, Track};
use crate::plan::{
    ABSOLUTE, GRACE, IDLE, MAX_STALENESS, PATIENCE, REFRESH_TTL, RETRY_WINDOW, SKEW_MAX,
    STORE_TIMEOUT, Shape, millis,
};
use crate::rules::{
    ACKNOWLEDGED_IS_DURABLE, LOST_ANSWER_COSTS_NOTHING, NEVER_EARLY_NEVER_LATE, ONE_LINEAGE,
    REVOKED_IS_REFUSED, UNKNOWN_IS_NEITHER,
};
use crate::schedule::{Millis, Moment};
use crate::tally::ClientKind;
use crate::world::{Held, Node, START, World};

/// Two nodes' clocks differ by this at most.
const SKEW: Millis = 2 * SKEW_MAX;
/// What is used within this of a timeout may be too late: writing it down takes its time.
const FLUSH: Millis = 3_000;
/// Leeway of tokens, and the rounding of their times.
const LEEWAY: Millis = 6_000;

/// Who asks for a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// The session's owner.
    Honest(ClientKind),
    /// Somebody with a copy.
    Thief,
}

/// A credential to be verified.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Of which session.
    pub sid: Sid,
    /// Its text.
    pub text: Arc<str>,
    /// An access token: when it is over. A session cookie otherwise.
    pub access_until: Option<Millis>,
}

/// A refresh to be asked for.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// Of which session.
    pub sid: Sid,
    /// The token.
    pub token: Arc<str>,
    /// How it is presented.
    pub channel: Channel,
    /// The `Idempotency-Key`.
    pub key: Option<String>,
    /// Who asks.
    pub party: Party,
    /// Since when the presented token lies where it was taken from.
    pub address: u8,
}

/// Where and when a call was served.
#[derive(Clone, Copy)]
pub struct Call {
    /// By which node.
    pub node: usize,
    /// In which of its lives.
    pub life: u32,
    /// When it began.
    pub begin: Moment,
}

/// The context of a user at an address.
pub fn user(address: u8) -> Context {
    Context {
        actor: Actor::User(None),
        client: Client {
            ip: Some([192, 0, 2, address].into()),
            user_agent: Some("sim".to_owned()),
            label: None,
        },
        request_id: None,
    }
}

/// The context of an operator.
pub fn operator() -> Context {
    Context { actor: Actor::Operator, client: Client::default(), request_id: None }
}

/// What a sign-in grants here.
pub fn grant(subject: &Subject, delivery: Delivery, label: &str, address: u8) -> Grant {
    let client = Client { label: Some(label.to_owned()), ..user(address).client };
    Grant {
        subject: Some(subject.clone()),
        delivery,
        remember: false,
        claims: Object::new(),
        amr: vec!["pwd".to_owned()],
        acr: "aal1".to_owned(),
        actor: None,
        idle_timeout: None,
        lifetime: None,
        client,
    }
}

impl World {
    /// Notes that a node begins to serve a call.
    pub fn begin(&self, node: usize) -> Call {
        Call { node, life: self.life(node), begin: self.handle.moment() }
    }

    /// What a holder now has.
    pub fn held_of(&self, opened: &Opened) -> Held {
        let now = self.handle.now();
        let until = |expires_in: u64| now + expires_in * 1000;
        Held {
            sid: opened.session.sid,
            delivery: opened.session.delivery,
            token: opened.token.expose().as_str().into(),
            access: opened
                .access
                .as_ref()
                .map(|access| (access.token.expose().as_str().into(), until(access.expires_in))),
        }
    }

    /// Whether a session may be over by the clock of some node; one without a record is.
    pub fn is_expired(&self, session: Option<&Session>, now: Moment) -> bool {
        let latest = START.plus(millis(now.at + SKEW_MAX));
        session.is_none_or(|session| latest >= session.refused_from())
    }

    /// Verifies a credential at a node, and judges the answer.
    pub async fn verify(&self, call: Call, node: &Node, probe: &Probe) -> Result<(), Error> {
        let due = self.book().session(probe.sid).map(Session::refused_from);
        let credential = match probe.access_until {
            Some(_) => Credential::Access(&probe.text),
            None => Credential::Cookie(&probe.text),
        };
        let answer = node.verify(credential).await;
        let end = self.handle.moment();
        let mut book = self.book();
        book.tally.judged += 1;
        book.note(end, Some(probe.sid), || {
            let what = if probe.access_until.is_some() { "access token" } else { "cookie" };
            let began = call.begin.at;
            let answer = answer.as_ref().map(drop);
            format!("node {} verifies an {what} (since {began}): {answer:?}", call.node)
        });
        match &answer {
            Ok(verified) => {
                let judge = Judge { world: self, book: &mut book, call, end };
                judge.accepted(probe, verified);
            }
            Err(Error::Refused(refusal)) => {
                let judge = Judge { world: self, book: &mut book, call, end };
                judge.refused(probe.sid, refusal, Some(probe), due);
            }
            Err(Error::Unavailable(_) | Error::Overloaded) => book.tally.unavailable += 1,
        }
        drop(book);
        self.stop_if_broken();
        answer.map(drop)
    }

    /// Opens a session for a user whose credentials take a while to be checked.
    pub async fn open_session(&self, call: Call, node: &Node, grant: Grant) -> Result<Held, Error> {
        let subject = grant.subject.clone();
        let label = grant.client.label.clone().unwrap_or_default();
        let context = Context { client: grant.client.clone(), ..user(0) };
        let opened = async {
            let Some(subject) = &subject else { return Err(Error::Overloaded) };
            let ticket = node.ticket(subject).await?;
            let checking = self.handle.moment();
            self.book().checking.insert(label.clone(), checking);
            self.pause(20, 900).await;
            node.open_with_ticket(grant, ticket, &[], &context).await
        };
        let opened = opened.await;
        let end = self.handle.moment();
        let mut book = self.book();
        let sid = opened.as_ref().ok().map(|opened| opened.session.sid);
        book.note(end, sid, || {
            let answer = opened.as_ref().map(|opened| opened.session.sid);
            format!("node {} opens {label} for {subject:?}: {answer:?}", call.node)
        });
        let held = opened.map(|opened| self.held_of(&opened));
        if let Ok(held) = &held
            && !book.tracks.contains_key(&held.sid)
        {
            let text = "an opening was answered that isn't stored".to_owned();
            book.violate(ACKNOWLEDGED_IS_DURABLE, end, Some(held.sid), text);
        }
        drop(book);
        if let Ok(held) = &held {
            self.hold(held);
        }
        self.stop_if_broken();
        held
    }

    /// Refreshes at a node, and judges the answer.
    pub async fn refresh(
        &self,
        call: Call,
        node: &Node,
        rotation: &Rotation,
    ) -> Result<Held, Error> {
        let presented = OpaqueToken::parse(OpaqueKind::Refresh, &rotation.token, node.keys());
        let Ok(presented) = presented else { return Err(Error::Overloaded) };
        let due = self.book().session(rotation.sid).map(Session::refused_from);
        let context = user(rotation.address);
        let key = rotation.key.as_deref();
        let answer = node.refresh(&rotation.token, rotation.channel, key, &context).await;
        let end = self.handle.moment();
        let mut book = self.book();
        count_refresh(&mut book, rotation.party, answer.is_ok());
        book.note(end, Some(rotation.sid), || {
            format!(
                "node {} refreshes generation {} for {:?} (since {}): {:?}",
                call.node,
                presented.generation,
                rotation.party,
                call.begin.at,
                answer.as_ref().map(|opened| generation(&opened.session))
            )
        });
        let mut judge = Judge { world: self, book: &mut book, call, end };
        let key = key.map(|key| node.keys().idempotency_hash(presented.generation, key));
        match &answer {
            Ok(opened) => judge.rotated(rotation, &presented, key, opened),
            Err(Error::Refused(Refusal::RefreshTokenReused)) => {
                judge.reused(rotation, presented.generation, key);
            }
            Err(Error::Refused(refusal)) => {
                // A holder who was overtaken twice holds nothing that counts.
                let current = judge.book.session(rotation.sid).map_or(0, generation);
                if presented.generation + 1 >= current {
                    let stored = judge.book.session(rotation.sid);
                    let own = stored.and_then(|s| due_of(s, presented.generation));
                    let due = due.map(|due| own.map_or(due, |own| due.min(own)));
                    judge.refused(rotation.sid, refusal, None, due);
                }
            }
            Err(Error::Unavailable(_) | Error::Overloaded) => book.tally.unavailable += 1,
        }
        drop(book);
        let held = answer.map(|opened| self.held_of(&opened));
        if let (Ok(held), Party::Honest(_)) = (&held, rotation.party) {
            self.hold(held);
        }
        self.stop_if_broken();
        held
    }
}

fn count_refresh(book: &mut Book, party: Party, answered: bool) {
    book.tally.judged += 1;
    match party {
        Party::Honest(kind) => *book.tally.honest_refreshes.entry(kind).or_default() += 1,
        Party::Thief => {
            book.tally.thief_refreshes += 1;
            book.tally.thief_answered += u64::from(answered);
        }
    }
}

fn generation(session: &Session) -> u32 {
    match &session.holder {
        Holder::Refresh(state) => state.generation,
        Holder::Cookie { .. } => 0,
    }
}

/// From when on the predecessor of a session's token is refused for its own age, if that is the
/// generation asked for.
fn due_of(session: &Session, presented: u32) -> Option<Timestamp> {
    let Holder::Refresh(state) = &session.holder else { return None };
    let predecessor = state.predecessor.as_ref().filter(|_| presented < state.generation)?;
    Some(predecessor.issued_at.plus(session.idle_timeout))
}

/// Judges one answer.
struct Judge<'a> {
    world: &'a World,
    book: &'a mut Book,
    call: Call,
    end: Moment,
}

impl Judge<'_> {
    fn violate(&mut self, invariant: &'static str, sid: Sid, text: impl Into<String>) {
        self.book.violate(invariant, self.end, Some(sid), text.into());
    }

    /// A "yes": the session must not have been over, as far as the node could know.
    fn accepted(mut self, probe: &Probe, verified: &Verified) {
        let begin = self.call.begin;
        let Some(track) = self.book.tracks.get(&probe.sid).cloned() else {
            self.violate(UNKNOWN_IS_NEITHER, probe.sid, "a session that never was is accepted");
            return;
        };
        if let Via::Access(claims) = &verified.via
            && let Some(denial) = self.book.denied.get(&claims.jti)
            && (denial.at.is_some_and(|at| self.is_known(at)) || self.was_told(&denial.told))
        {
            let text = format!("a token is accepted after its denial: {denial:?}");
            self.violate(REVOKED_IS_REFUSED, probe.sid, text);
        }
        if probe.access_until.is_some()
            && let Some(denial) = self.book.revocation_of(&probe.text)
            && (denial.at.is_some_and(|at| self.is_key_known(at)) || self.was_told(&denial.told))
        {
            let text = format!("a token is accepted after its key was revoked: {denial:?}");
            self.violate(REVOKED_IS_REFUSED, probe.sid, text);
        }
        self.judge_ended(probe.sid, &track);
        let late = begin.at.saturating_sub(SKEW);
        let opened = track.opened.at;
        let last_use = match &verified.session.holder {
            Holder::Cookie { .. } => track.used.at + IDLE + IDLE / 20 + FLUSH,
            Holder::Refresh(_) => {
                let rotated = track.rotations.values().map(|rotation| rotation.moment.at).max();
                rotated.unwrap_or(opened).max(opened) + REFRESH_TTL
            }
        };
        if late > opened + ABSOLUTE || late > last_use {
            self.violate(NEVER_EARLY_NEVER_LATE, probe.sid, "it is accepted after its expiry");
        }
        if probe.access_until.is_some_and(|until| late > until + LEEWAY) {
            self.violate(NEVER_EARLY_NEVER_LATE, probe.sid, "an expired token is accepted");
        }
        if let Some(track) = self.book.tracks.get_mut(&probe.sid) {
            track.used = self.end;
        }
    }

    /// Whether a node had to know, when this call began, of what took effect at `effect`.
    fn is_known(&self, effect: Moment) -> bool {
        match self.world.plan.shape {
            Shape::StoreRead => effect < self.call.begin,
            Shape::Cached => effect.at + MAX_STALENESS <= self.call.begin.at,
            // Unless a commit is answered in time, what it may have changed is read anew.
            Shape::Embedded => effect.at + STORE_TIMEOUT <= self.call.begin.at,
        }
    }

    /// The same of what took effect on a signing key. Keys are kept by every node.
    fn is_key_known(&self, effect: Moment) -> bool {
        match self.world.plan.shape {
            Shape::StoreRead | Shape::Cached => effect.at + MAX_STALENESS <= self.call.begin.at,
            Shape::Embedded => false,
        }
    }

    fn judge_ended(&mut self, sid: Sid, track: &Track) {
        if let Some((ended, reason)) = track.ended
            && self.is_known(ended)
        {
            let text = format!("accepted though it ended at {ended:?} ({})", reason.as_str());
            self.violate(REVOKED_IS_REFUSED, sid, text);
        }
        if self.was_told(&track.told) {
            let (node, told) = (self.call.node, &track.told);
            let text = format!("node {node} accepts it, and had said that it ended: {told:?}");
            self.violate(REVOKED_IS_REFUSED, sid, text);
        }
    }

    /// Whether the node that served this call had said so before it began.
    fn was_told(&self, told: &BTreeMap<usize, (Moment, u32)>) -> bool {
        let Call { node, life, begin } = self.call;
        told.get(&node).is_some_and(|(told, when)| *when == life && *told < begin)
    }

    /// A "no": the session must be over, or the credential must.
    fn refused(
        mut self,
        sid: Sid,
        refusal: &Refusal,
        probe: Option<&Probe>,
        due: Option<Timestamp>,
    ) {
        let access = probe.filter(|probe| probe.access_until.is_some());
        let access_until = access.and_then(|probe| probe.access_until);
        let Some(track) = self.book.tracks.get(&sid) else { return };
        let key_lost = self.book.part(Partition::ZERO).is_some_and(|p| p.rolled_back.is_some());
        let rolled_back = self.book.went_back(sid) || (access.is_some() && key_lost);
        let revoked = access.is_some_and(|probe| self.book.revocation_of(&probe.text).is_some());
        let session = self.book.session(sid);
        let latest = START.plus(millis(self.end.at + SKEW_MAX));
        let idle = self.world.is_expired(session, self.end) || due.is_none_or(|due| latest >= due);
        let token_over = access_until.is_some_and(|until| self.end.at + SKEW + 1_000 >= until)
            || (access_until.is_some() && track.epoch_moved.is_some());
        let speaks_of_end = matches!(
            refusal,
            Refusal::SessionEnded(_) | Refusal::TokenInvalid | Refusal::TokenExpired
        );
        let denied = access_until.is_some() && self.book.denied_of.contains(&sid);
        let right = rolled_back || track.ended.is_some() || idle || token_over || denied || revoked;
        if !(right && speaks_of_end) {
            let text = format!("a credential that counts is refused: {refusal:?}");
            self.violate(UNKNOWN_IS_NEITHER, sid, text);
        }
    }

    fn rotated(
        &mut self,
        rotation: &Rotation,
        presented: &OpaqueToken,
        key: Option<[u8; 32]>,
        opened: &Opened,
    ) {
        let sid = rotation.sid;
        let Some(track) = self.book.tracks.get(&sid).cloned() else { return };
        let answered = opened.token.expose().as_str();
        let kept = answered == &*rotation.token;
        if kept && rotation.channel == Channel::Body {
            self.violate(ONE_LINEAGE, sid, "a refresh answered the same token");
        }
        if track.ended_before(self.call.begin) {
            self.violate(REVOKED_IS_REFUSED, sid, "a session that had ended was refreshed");
        }
        if self.was_told(&track.told) {
            let text = "a node refreshed a session that it had said to have ended";
            self.violate(REVOKED_IS_REFUSED, sid, text);
        }
        if track.rolled_back || self.book.went_back(sid) {
            return;
        }
        if !kept {
            let first = self
                .book
                .successors
                .entry(rotation.token.to_string())
                .or_insert_with(|| answered.to_owned());
            if first != answered {
                self.violate(ONE_LINEAGE, sid, "one token was answered with two successors");
            }
            self.judge_tolerance(sid, &track, presented.generation, key);
            let stored = self.book.session(sid).map_or(0, generation);
            if stored <= presented.generation {
                self.violate(ACKNOWLEDGED_IS_DURABLE, sid, "a successor isn't stored");
            }
        }
        if let Some(track) = self.book.tracks.get_mut(&sid) {
            track.used = self.end;
        }
    }

    /// Whether the answer to a token that had been rotated before the call was within tolerance.
    fn judge_tolerance(&mut self, sid: Sid, track: &Track, old: u32, key: Option<[u8; 32]>) {
        let begin = self.call.begin;
        let Some(first) = track.rotations.get(&(old + 1)) else { return };
        if first.moment > begin {
            return;
        }
        let overtaken = track.rotations.get(&(old + 2)).is_some_and(|next| next.moment < begin);
        let age = begin.at - first.moment.at;
        let same_key = key.is_some() && key == first.key;
        let span = if same_key { RETRY_WINDOW } else { GRACE };
        if overtaken || age > span + SKEW + PATIENCE {
            let text = format!("generation {old} is answered {age} ms after its rotation");
            self.violate(ONE_LINEAGE, sid, text);
        }
    }

    /// "You are a thief": the session must be over, and the one who asked must have been late.
    fn reused(&mut self, rotation: &Rotation, old: u32, key: Option<[u8; 32]>) {
        let sid = rotation.sid;
        let Some(track) = self.book.tracks.get(&sid).cloned() else { return };
        let rolled_back = self.book.went_back(sid);
        if track.ended.is_none() && !rolled_back {
            self.violate(ONE_LINEAGE, sid, "a reuse was answered and didn't end the session");
        }
        if track.stolen {
            self.book.tally.thieves_caught += 1;
            return;
        }
        let Party::Honest(kind) = rotation.party else { return };
        // The token had been rotated, and nobody else holds it: how late did its owner come?
        let first = track.rotations.get(&(old + 1));
        let age = first.map_or(0, |first| self.end.at.saturating_sub(first.moment.at));
        let same_key = key.is_some() && first.is_some_and(|first| first.key == key);
        let overtaken = track.rotations.contains_key(&(old + 2));
        // The grace counts from when the rotation was decided, up to a store's deadline earlier.
        let age_max = age + SKEW + STORE_TIMEOUT;
        let within = age_max < GRACE || (same_key && age_max < RETRY_WINDOW);
        // An attempt that hung while its own repetition was answered and the successor used is two
        // behind: nobody can tell it from a copy. A cookie isn't rotated twice so soon.
        let is_late = overtaken && kind != ClientKind::Split;
        if !rolled_back && within && !is_late {
            *self.book.tally.honest_wronged.entry(kind).or_default() += 1;
            let text = format!("{} was called a thief after {age} ms", kind.name());
            self.violate(LOST_ANSWER_COSTS_NOTHING, sid, text);
        } else if !rolled_back && kind == ClientKind::Keyed {
            *self.book.tally.honest_wronged.entry(kind).or_default() += 1;
            let text = "an honest client with a key was called a thief".to_owned();
            self.violate(LOST_ANSWER_COSTS_NOTHING, sid, text);
        } else if rolled_back {
            *self.book.tally.honest_after_failover.entry(kind).or_default() += 1;
        } else {
            *self.book.tally.honest_residue.entry(kind).or_default() += 1;
        }
    }
}
