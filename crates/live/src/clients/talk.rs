//! One client's connections to all nodes, and its part of the history.

use cloakroom_bench::http::{Answer, Client, Request};
use cloakroom_bench::random::Random;
use serde_json::json;

use super::{Known, Proof, Shared};
use crate::fleet::NODES;
use crate::history::{Entry, Intent, Kept, SECOND, Saw, Span, Turn, What};
use std::sync::Arc;

/// A node's listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// For browsers and apps.
    Public,
    /// For backends and operators.
    Admin,
}

/// One client.
pub struct Talk<'a> {
    /// What it shares with the others.
    pub shared: &'a Shared,
    /// What it chooses by.
    pub random: Random,
    lines: Vec<Option<(String, Client)>>,
    entries: Vec<Entry>,
}

/// A session as its holder has it.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) known: Arc<Known>,
    /// The current refresh token; empty with a cookie.
    pub(super) refresh: String,
}

impl<'a> Talk<'a> {
    /// A client that chooses by `random`.
    pub fn new(shared: &'a Shared, random: Random) -> Self {
        let lines = (0..NODES * 2).map(|_| None).collect();
        Self { shared, random, lines, entries: Vec::new() }
    }

    /// What it kept.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// Takes over what another of its tabs kept.
    pub(super) fn absorb(&mut self, other: Talk<'_>) {
        self.entries.extend(other.entries);
    }

    /// Asks a node once what it knows of a session.
    pub fn look(&mut self, node: usize, known: &Arc<Known>) {
        self.verify(node, known);
    }

    pub(super) fn any_node(&mut self) -> usize {
        self.random.below(NODES)
    }

    pub(super) fn note(&mut self, span: Span, node: usize, what: What) {
        self.entries.push(Entry { span, node, what });
    }

    /// Sends a request. Without an answer, or with 503, it is noted as unknown.
    pub fn ask(
        &mut self,
        node: usize,
        door: Door,
        request: &Request,
        intent: Intent,
    ) -> Option<(Span, Answer)> {
        let (span, answer) = self.send(node, door, request);
        let what = match answer {
            None => What::Unknown(intent),
            Some(answer) if answer.status == 503 && answer.header("retry-after").is_some() => {
                What::Unknown(intent)
            }
            Some(answer) if answer.status >= 500 => {
                What::Wrong(format!("{intent:?}: {}", answer.describe()))
            }
            Some(answer) => return Some((span, answer)),
        };
        self.note(span, node, what);
        None
    }

    /// Sends a request and throws the answer away: for its sender it is lost.
    pub(super) fn ask_in_vain(&mut self, node: usize, request: &Request, intent: Intent) {
        let (span, _) = self.send(node, Door::Public, request);
        self.note(span, node, What::Unknown(intent));
    }

    fn send(&mut self, node: usize, door: Door, request: &Request) -> (Span, Option<Answer>) {
        let place = self.shared.fleet.whereabouts(node);
        let (line, address) = match door {
            Door::Public => (node * 2, place.public),
            Door::Admin => (node * 2 + 1, place.admin),
        };
        let request = match door {
            Door::Public => request.clone(),
            Door::Admin => request.clone().bearer(&place.key),
        };
        let mut client = match self.lines[line].take() {
            Some((known, client)) if known == address => client,
            _ => Client::new(&address),
        };
        let begun = self.shared.stopwatch.at();
        let answer = client.send(&request).ok();
        let span = Span { begun, done: self.shared.stopwatch.at() };
        self.lines[line] = Some((address, client));
        (span, answer)
    }

    /// Notes an answer that is never right.
    pub(super) fn wrong(&mut self, span: Span, node: usize, asked: &str, answer: &Answer) {
        self.note(span, node, What::Wrong(format!("{asked}: {}", answer.describe())));
    }

    /// Looks a session up with its credential; whether it lives, where that is known.
    pub(super) fn verify(&mut self, node: usize, known: &Arc<Known>) -> Option<bool> {
        let request = known.shown(Request::new("GET", "/auth/session"));
        let (span, answer) = self.ask(node, Door::Public, &request, Intent::Look)?;
        let saw = match answer.status {
            200 => Saw::Live,
            401 if answer.text("code") == "session_ended" => Saw::Over(answer.text("reason")),
            401 => Saw::Refused(answer.text("code")),
            _ => {
                self.wrong(span, node, "verify", &answer);
                return None;
            }
        };
        let lives = saw == Saw::Live;
        self.note(span, node, What::Verified { sid: known.sid.clone(), saw });
        Some(lives)
    }

    /// Opens a session by a backend.
    pub(super) fn open(&mut self, subject: String, lifetime_secs: Option<u64>) -> Option<Own> {
        let delivery = if self.random.percent(70) { "bearer" } else { "cookie" };
        let delivery = if lifetime_secs.is_some() { "cookie" } else { delivery };
        let mut body = json!({"subject": subject, "delivery": delivery, "data": {"n": 0}});
        if let Some(secs) = lifetime_secs {
            body["lifetime"] = secs.into();
        }
        let request = Request::new("POST", "/admin/v1/sessions").json(&body);
        let node = self.any_node();
        let intent = Intent::Open(subject.clone());
        let (span, answer) = self.ask(node, Door::Admin, &request, intent)?;
        // Signed out everywhere while it was being opened.
        if answer.status == 409 {
            self.note(span, node, What::OpenTooLate);
            return None;
        }
        if answer.status != 201 {
            self.wrong(span, node, "open", &answer);
            return None;
        }
        let own = Own::of(&answer, subject);
        self.opened(span, node, &own, span, lifetime_secs.map(|secs| secs * SECOND));
        Some(own)
    }

    pub(super) fn opened(
        &mut self,
        span: Span,
        node: usize,
        own: &Own,
        credentials_checked: Span,
        lifetime: Option<u64>,
    ) {
        let (sid, subject) = (own.known.sid.clone(), own.known.subject.clone());
        self.note(span, node, What::Opened { sid, subject, credentials_checked, lifetime });
    }

    /// Presents a refresh token, and says what came of it where that is known.
    pub(super) fn refresh(
        &mut self,
        node: usize,
        known: &Arc<Known>,
        presented: &str,
        key: Option<&str>,
    ) -> Option<Turn> {
        let request = refresh_request(presented, key);
        let (sid, presented) = (known.sid.clone(), presented.to_owned());
        let intent = Intent::Rotate { sid: sid.clone(), presented: presented.clone() };
        let (span, answer) = self.ask(node, Door::Public, &request, intent)?;
        let turn = match (answer.status, answer.text("code").as_str()) {
            (200, _) => Turn::Next(answer.text("refresh_token")),
            (401, "session_ended") => Turn::Over(answer.text("reason")),
            (401, "refresh_token_reused") => Turn::Reused,
            (401, code) => Turn::Refused(code.to_owned()),
            _ => {
                self.wrong(span, node, "refresh", &answer);
                return None;
            }
        };
        if matches!(turn, Turn::Over(_) | Turn::Reused) {
            self.shared.over(known);
        }
        self.note(span, node, What::Refreshed { sid, presented, turn: turn.clone() });
        Some(turn)
    }
}

pub(super) fn refresh_request(presented: &str, key: Option<&str>) -> Request {
    let request = Request::new("POST", "/auth/refresh").json(&json!({"refresh_token": presented}));
    match key {
        Some(key) => request.header("Idempotency-Key", key),
        None => request,
    }
}

impl Own {
    /// The session that an answer of a sign-in or an opening tells of.
    pub(super) fn of(answer: &Answer, subject: String) -> Self {
        let body = answer.json();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let sid = body["session"]["id"].as_str().unwrap_or_default().to_owned();
        let proof = match body["access_token"].as_str() {
            Some(access) => Proof::Bearer(access.to_owned()),
            None => Proof::Cookie { token: text("session_token"), csrf: text("csrf_token") },
        };
        Self { known: Arc::new(Known { sid, subject, proof }), refresh: text("refresh_token") }
    }
}

impl Known {
    /// A request that shows the credential.
    pub(super) fn shown(&self, request: Request) -> Request {
        match &self.proof {
            Proof::Bearer(access) => request.bearer(access),
            Proof::Cookie { token, csrf } => request
                .header("Cookie", format!("session={token}"))
                .header("X-CSRF-Token", csrf.clone()),
        }
    }
}

/// What an ending's answer says that it survives; without a word, it was over before.
pub(super) fn kept(answer: &Answer) -> Kept {
    match answer.header("cloakroom-durability") {
        Some("durable") => Kept::Durable,
        Some("replicated") => Kept::Replicated,
        _ => Kept::Local,
    }
}
