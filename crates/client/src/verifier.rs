//! Whether an access token counts, decided without I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cloakroom_core::json::Map;
use cloakroom_core::keys::{KeyFault, KeyRing};
use cloakroom_core::limits::TOKEN_LEEWAY;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::EndReason;
use cloakroom_core::token::TokenRefusal;
use cloakroom_core::token::access::{self, AccessClaims, Expectation};
use cloakroom_core::types::{Sid, Subject, Timestamp};
use serde_json::Value;

use crate::feed::Message;
use crate::wire;

/// After a key set was fetched, an unknown `kid` fetches no other one for so long.
const KEYS_COOL_DOWN: Duration = Duration::from_secs(60);
/// A key set is fetched anew when it is this old.
const KEYS_AGE_MAX: Duration = Duration::from_secs(300);
/// Changes are remembered this long: longer than anything is kept that was read before them.
const CHANGES_KEEP: Duration = Duration::from_secs(120);
/// An end made here is remembered until the stream must have told of it, and longer.
const ENDED_HERE_KEEP: Duration = Duration::from_secs(3600);
/// The stream tells of what was done here within a heartbeat; this is many of them.
const RAISED_HERE_KEEP: Duration = Duration::from_secs(10);

/// An instant by both clocks: the one on the wall, and one that is never set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// By the wall's clock.
    pub wall: Timestamp,
    /// By the other: how long something has been running.
    pub steady: Duration,
}

/// What becomes of a token.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It counts: by its signature, its times, and all that was revoked until a moment ago.
    Live(Box<AccessClaims>),
    /// It doesn't.
    Refused(Refusal),
    /// There is no telling here: what was revoked isn't known well enough. Ask the authority.
    Ask,
    /// The key that it names isn't known, and a key set may be fetched.
    FetchKeys,
}

/// What somebody who follows a stream has to do about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing.
    Nothing,
    /// A signing key changed: fetch the key set.
    Keys,
    /// The stream went back, or is too far ahead: take the snapshot.
    Reset,
}

/// Everything that is known of an authority's keys and revocations.
#[derive(Debug)]
pub struct Verifier {
    issuer: String,
    audiences: Vec<String>,
    foreign_audiences: Vec<String>,
    max_staleness: Duration,
    ring: Option<KeyRing>,
    keys_fetched: Option<Duration>,
    ended: BTreeMap<Sid, (EndReason, Timestamp)>,
    stepped_up: BTreeMap<Sid, Timestamp>,
    raised: BTreeMap<Subject, (u64, Option<Sid>)>,
    denied: BTreeMap<String, Timestamp>,
    revoked_keys: BTreeSet<String>,
    /// Subjects that were signed out everywhere by this process, until the stream has told so.
    raised_here: BTreeMap<Subject, Duration>,
    all: Option<Timestamp>,
    /// When the reading that the last heartbeat speaks of began, and when it came in.
    heartbeat: Option<(Timestamp, Duration)>,
    changes: Changes,
}

/// In which order sessions changed, for whoever keeps what it has read.
#[derive(Debug, Default)]
struct Changes {
    count: u64,
    /// Nothing read before this counts.
    floor: u64,
    sessions: BTreeMap<Sid, (u64, Duration)>,
    subjects: BTreeMap<Subject, (u64, Duration)>,
}

impl Verifier {
    /// A verifier of tokens from `issuer` for one of `audiences`, and not for one of
    /// `foreign_audiences`. It decides while it heard of everything until less than
    /// `max_staleness` ago.
    pub fn new(
        issuer: &str,
        audiences: &[String],
        foreign_audiences: &[String],
        max_staleness: Duration,
    ) -> Self {
        Self {
            issuer: issuer.to_owned(),
            audiences: audiences.to_vec(),
            foreign_audiences: foreign_audiences.to_vec(),
            max_staleness,
            ring: None,
            keys_fetched: None,
            ended: BTreeMap::new(),
            stepped_up: BTreeMap::new(),
            raised: BTreeMap::new(),
            denied: BTreeMap::new(),
            revoked_keys: BTreeSet::new(),
            raised_here: BTreeMap::new(),
            all: None,
            heartbeat: None,
            changes: Changes::default(),
        }
    }

    /// Takes a key set (RFC 7517) in place of the one before.
    pub fn take_keys(&mut self, set: &Value, now: Moment) -> Result<(), KeyFault> {
        self.keys_fetched = Some(now.steady);
        self.ring = Some(KeyRing::of_jwks(set)?);
        Ok(())
    }

    /// Notes that a key set couldn't be had, so that the next try waits.
    pub fn keys_failed(&mut self, now: Moment) {
        self.keys_fetched = Some(now.steady);
    }

    /// Whether the key set is missing or old, and the last try isn't too recent.
    pub fn wants_keys(&self, now: Moment) -> bool {
        self.keys_fetched.is_none_or(|at| now.steady.saturating_sub(at) >= KEYS_AGE_MAX)
    }

    /// Takes the snapshot of what was revoked; gives the cursor to follow the stream from. The key
    /// set has to be fetched anew: a key that was revoked and then removed is in neither.
    pub fn take_snapshot(&mut self, snapshot: &Map) -> Option<String> {
        let list = |name: &str| snapshot.get(name).and_then(Value::as_array);
        let cursor = snapshot.get("cursor")?.as_str()?.to_owned();
        self.heartbeat = None;
        self.ring = None;
        self.keys_fetched = None;
        self.changes.count += 1;
        self.changes.floor = self.changes.count;
        for (event, name) in
            [("session", "sessions"), ("subject", "subjects"), ("token", "tokens"), ("key", "keys")]
        {
            for data in list(name)? {
                self.note(event, data, Duration::ZERO)?;
            }
        }
        if let Some(all) = snapshot.get("all").filter(|all| !all.is_null()) {
            self.note("all", all, Duration::ZERO)?;
        }
        Some(cursor)
    }

    /// Takes an event of the stream. One that can't be read means that nothing is known any more.
    pub fn take_event(&mut self, message: &Message, now: Moment) -> Told {
        match message.event.as_str() {
            "heartbeat" => match message.data.get("at").and_then(wire::time) {
                Some(at) => {
                    self.heartbeat = Some((at, now.steady));
                    self.forget(now);
                    Told::Nothing
                }
                None => self.lose(),
            },
            "reset" => self.lose(),
            event => match self.note(event, &message.data, now.steady) {
                Some(()) if event == "key" => Told::Keys,
                Some(()) => Told::Nothing,
                None => self.lose(),
            },
        }
    }

    /// Notes that the stream broke off.
    pub fn lose_stream(&mut self) {
        self.heartbeat = None;
    }

    fn lose(&mut self) -> Told {
        self.heartbeat = None;
        Told::Reset
    }

    /// Notes that this process ended a session: it is over here before the stream tells.
    pub fn ended_here(&mut self, sid: Sid, reason: EndReason, now: Moment) {
        let known = (reason, now.wall.plus(ENDED_HERE_KEEP));
        self.ended.entry(sid).or_insert(known);
    }

    /// Notes that this process signed a subject out everywhere. Its tokens are asked about until
    /// the stream has told which of them are over.
    pub fn raised_here(&mut self, subject: &Subject, now: Moment) {
        self.raised_here.insert(subject.clone(), now.steady + RAISED_HERE_KEEP);
        self.changes.subject(subject.clone(), now.steady);
    }

    /// How far the authority's clock is from ours, as the last heartbeat has it, where that is too
    /// far to decide anything here: tokens would be taken for good that are over.
    pub fn clock_difference(&self, now: Moment) -> Option<Duration> {
        let (at, received) = self.heartbeat?;
        let here = now.wall.since(at).max(at.since(now.wall));
        let waited = now.steady.saturating_sub(received);
        Some(here.saturating_sub(waited)).filter(|apart| *apart >= self.max_staleness)
    }

    /// Whether everything that was revoked until less than the allowed staleness ago is known.
    pub fn is_fresh(&self, now: Moment) -> bool {
        self.heartbeat.is_some_and(|(at, received)| {
            now.wall.since(at).max(at.since(now.wall)) < self.max_staleness
                && now.steady.saturating_sub(received) < self.max_staleness
        })
    }

    /// What becomes of a token at `now`.
    pub fn judge(&self, token: &str, now: Moment) -> Verdict {
        if !self.is_fresh(now) {
            return Verdict::Ask;
        }
        let Some(ring) = &self.ring else { return self.unknown_key(now) };
        if ring.records().next().is_none() {
            // The authority signs with a secret that it doesn't publish.
            return Verdict::Ask;
        }
        if access::named_key(token).is_some_and(|kid| !ring.has(&kid)) {
            return self.unknown_key(now);
        }
        let expected = Expectation {
            issuer: &self.issuer,
            audiences: &self.audiences,
            foreign_audiences: &self.foreign_audiences,
            now: now.wall,
        };
        match access::verify(token, ring, &expected) {
            Ok(_) if access::named_key(token).is_some_and(|kid| self.is_revoked(&kid)) => {
                Verdict::Refused(Refusal::TokenInvalid)
            }
            Ok(claims) => match self.standing(&claims, now) {
                Ok(()) => Verdict::Live(Box::new(claims)),
                Err(verdict) => verdict,
            },
            Err(TokenRefusal::Expired(_)) => Verdict::Refused(Refusal::TokenExpired),
            Err(TokenRefusal::WrongType) => Verdict::Refused(Refusal::TokenWrongType),
            Err(TokenRefusal::Invalid | TokenRefusal::KeyRevoked) => {
                Verdict::Refused(Refusal::TokenInvalid)
            }
        }
    }

    /// What becomes at `now` of a token whose signature and contents were found good before, by
    /// the key `kid`: the same as of one that is looked at for the first time, but for the
    /// cryptography.
    pub fn judge_again(
        &self,
        claims: &AccessClaims,
        kid: &str,
        now: Moment,
    ) -> Result<(), Verdict> {
        let has_key = self.ring.as_ref().is_some_and(|ring| ring.has(kid));
        if !self.is_fresh(now) || !has_key {
            return Err(Verdict::Ask);
        }
        if self.is_revoked(kid) {
            return Err(Verdict::Refused(Refusal::TokenInvalid));
        }
        if now.wall >= claims.expires_at.plus(TOKEN_LEEWAY) {
            return Err(Verdict::Refused(Refusal::TokenExpired));
        }
        self.standing(claims, now)
    }

    /// Whether a session that was read counts still, and if not, that it is over or has changed.
    pub fn still_stands(&self, sid: Sid, subject: Option<&Subject>, stamp: u64) -> bool {
        let changed = |at: Option<&(u64, Duration)>| at.is_some_and(|(count, _)| *count > stamp);
        stamp >= self.changes.floor
            && !self.ended.contains_key(&sid)
            && !changed(self.changes.sessions.get(&sid))
            && !subject.is_some_and(|subject| changed(self.changes.subjects.get(subject)))
    }

    /// Marks an instant in the order of changes: what is read from now on is newer than all that
    /// was told of so far.
    pub fn stamp(&self) -> u64 {
        self.changes.count
    }

    fn is_revoked(&self, kid: &str) -> bool {
        self.revoked_keys.contains(kid)
    }

    /// An attacker may name any number of keys: they cost one fetch a minute.
    fn unknown_key(&self, now: Moment) -> Verdict {
        let cool =
            self.keys_fetched.is_none_or(|at| now.steady.saturating_sub(at) >= KEYS_COOL_DOWN);
        match (&self.ring, cool) {
            (_, true) => Verdict::FetchKeys,
            (Some(_), false) => Verdict::Refused(Refusal::TokenInvalid),
            (None, false) => Verdict::Ask,
        }
    }

    /// Whether a genuine token's session lives, and the token counts for it; else what becomes of
    /// it.
    fn standing(&self, claims: &AccessClaims, now: Moment) -> Result<(), Verdict> {
        if let Some((reason, _)) = self.ended.get(&claims.sid) {
            return Err(Verdict::Refused(Refusal::SessionEnded(*reason)));
        }
        if self.denied.contains_key(&claims.jti) {
            return Err(Verdict::Refused(Refusal::TokenInvalid));
        }
        let stepped_up = self.stepped_up.get(&claims.sid);
        if stepped_up.is_some_and(|at| claims.auth_time.as_secs() < at.as_secs()) {
            return Err(Verdict::Refused(Refusal::TokenInvalid));
        }
        if self.all.is_some_and(|at| claims.issued_at <= at.plus(TOKEN_LEEWAY)) {
            // Perhaps of a session that was opened just after: the authority knows.
            return Err(Verdict::Ask);
        }
        if self.raised_here.get(&claims.subject).is_some_and(|until| now.steady < *until) {
            return Err(Verdict::Ask);
        }
        match self.raised.get(&claims.subject) {
            Some((epoch, except)) if claims.epoch < *epoch && *except == Some(claims.sid) => {
                Err(Verdict::Refused(Refusal::TokenExpired))
            }
            // It is over, but only the authority knows why.
            Some((epoch, _)) if claims.epoch < *epoch => Err(Verdict::Ask),
            Some(_) | None => {
                debug_assert!(claims.expires_at.plus(TOKEN_LEEWAY) > now.wall);
                Ok(())
            }
        }
    }

    /// Notes what was revoked or changed; `None`: it can't be read.
    fn note(&mut self, event: &str, data: &Value, now: Duration) -> Option<()> {
        let text = |name: &str| data.get(name).and_then(Value::as_str);
        let sid = || text("sid").and_then(|sid| sid.parse::<Sid>().ok());
        match event {
            "session" => match (text("reason"), data.get("auth_time")) {
                (Some(reason), _) => {
                    let until = data.get("until").and_then(wire::time)?;
                    // A reason of a later version is an end all the same.
                    let reason = EndReason::parse(reason).unwrap_or(EndReason::EndedByOperator);
                    self.ended.insert(sid()?, (reason, until));
                }
                (None, auth_time) => {
                    let sid = sid()?;
                    self.stepped_up.insert(sid, wire::time(auth_time?)?);
                    self.changes.session(sid, now);
                }
            },
            "subject" => {
                let subject = Subject::parse(text("subject")?).ok()?;
                let epoch = data.get("epoch")?.as_u64()?;
                let except = text("except").map(str::parse).transpose().ok()?;
                let known = self.raised.get(&subject);
                if known.is_none_or(|(known, _)| *known <= epoch) {
                    self.raised.insert(subject.clone(), (epoch, except));
                }
                self.changes.subject(subject, now);
            }
            "token" => {
                let until = data.get("until").and_then(wire::time)?;
                self.denied.insert(text("jti")?.to_owned(), until);
            }
            "key" => {
                let kid = text("kid")?.to_owned();
                if text("state")? == "revoked" {
                    self.revoked_keys.insert(kid);
                }
            }
            "all" => {
                self.all = self.all.max(Some(data.get("at").and_then(wire::time)?));
                self.changes.count += 1;
                self.changes.floor = self.changes.count;
            }
            "changed" => match (text("sid"), text("subject")) {
                (Some(_), _) => self.changes.session(sid()?, now),
                (None, Some(subject)) => {
                    self.changes.subject(Subject::parse(subject).ok()?, now);
                }
                (None, None) => {}
            },
            // Of a later version, which would have said `reset` if it mattered.
            _ => {}
        }
        Some(())
    }

    /// Drops what can't matter any more.
    fn forget(&mut self, now: Moment) {
        self.ended.retain(|_, (_, until)| *until > now.wall);
        self.denied.retain(|_, until| *until > now.wall);
        self.raised_here.retain(|_, until| now.steady < *until);
        let recent = |at: Duration| now.steady.saturating_sub(at) < CHANGES_KEEP;
        self.changes.sessions.retain(|_, (_, at)| recent(*at));
        self.changes.subjects.retain(|_, (_, at)| recent(*at));
    }
}

impl Changes {
    fn session(&mut self, sid: Sid, now: Duration) {
        self.count += 1;
        self.sessions.insert(sid, (self.count, now));
    }

    fn subject(&mut self, subject: Subject, now: Duration) {
        self.count += 1;
        self.subjects.insert(subject, (self.count, now));
    }
}

#[cfg(test)]
mod tests;
