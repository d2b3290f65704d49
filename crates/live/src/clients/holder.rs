//! Holders of sessions, each with two tabs: honest, whatever is lost on the way.

use std::sync::Arc;
use std::thread;

use cloakroom_bench::http::Request;
use cloakroom_bench::random::Random;
use serde_json::json;

use super::talk::{Own, kept, refresh_request};
use super::{Door, Known, Talk, any_subject, pause};
use crate::fleet::GRACE_SECS;
use crate::history::{At, Intent, SECOND, Saw, Turn, What};

/// Sessions of one holder at once.
const SESSIONS_MAX: usize = 8;
/// A request is under way at most this long, so a repetition is begun that much before the grace.
const UNDER_WAY: At = 5 * SECOND / 2;
/// How often something is repeated at most.
const TRIES: usize = 12;

pub(super) fn play(talk: &mut Talk<'_>) {
    let mut other = Talk::new(talk.shared, Random::new(talk.random.draw(), 1));
    let mut own: Vec<Own> = Vec::new();
    while !talk.shared.is_over() {
        pause(&mut talk.random, 60);
        let roll = talk.random.below(100);
        if own.is_empty() || (roll < 20 && own.len() < SESSIONS_MAX) {
            let subject = any_subject(&mut talk.random);
            if let Some(opened) = talk.open(subject, None) {
                talk.shared.remember(&opened.known);
                own.push(opened);
            }
            continue;
        }
        let place = talk.random.below(own.len());
        let session = &mut own[place];
        let goes_on = match roll {
            0..55 if session.refresh.is_empty() => look(talk, &session.known),
            0..40 => refresh(talk, &mut other, session),
            40..55 => look(talk, &session.known),
            55..85 => write(talk, &mut other, &session.known),
            _ => {
                log_out(talk, &session.known);
                false
            }
        };
        if !goes_on {
            own.swap_remove(place);
        }
    }
    talk.absorb(other);
}

fn look(talk: &mut Talk<'_>, known: &Arc<Known>) -> bool {
    let node = talk.any_node();
    talk.verify(node, known) != Some(false)
}

/// Refreshes until an answer arrives, as an honest client does; whether the session goes on.
fn refresh(talk: &mut Talk<'_>, other: &mut Talk<'_>, session: &mut Own) -> bool {
    let presented = session.refresh.clone();
    let key = talk.random.percent(50).then(|| format!("{:016x}", talk.random.draw()));
    let began = talk.shared.stopwatch.at();
    let intent = Intent::Rotate { sid: session.known.sid.clone(), presented: presented.clone() };
    if talk.random.percent(20) {
        let node = talk.any_node();
        talk.ask_in_vain(node, &refresh_request(&presented, key.as_deref()), intent);
    }
    let known = &session.known;
    let tabs = talk.random.percent(30);
    let mut from_the_other = None;
    let mut turn = None;
    for _ in 0..TRIES {
        if key.is_none() && talk.shared.stopwatch.at() + UNDER_WAY > began + GRACE_SECS * SECOND {
            break;
        }
        let node = talk.any_node();
        if tabs {
            let there = other.any_node();
            let (here, elsewhere) = thread::scope(|scope| {
                let asked = scope.spawn(|| other.refresh(there, known, &presented, key.as_deref()));
                let here = talk.refresh(node, known, &presented, key.as_deref());
                (here, asked.join().ok().flatten())
            });
            turn = here;
            from_the_other = elsewhere;
        } else {
            turn = talk.refresh(node, known, &presented, key.as_deref());
        }
        if turn.is_some() || from_the_other.is_some() {
            break;
        }
        pause(&mut talk.random, 400);
    }
    match turn.or(from_the_other) {
        Some(Turn::Next(next)) => {
            session.refresh = next;
            true
        }
        // Given up: it signs in again.
        Some(Turn::Over(_) | Turn::Reused | Turn::Refused(_)) | None => false,
    }
}

/// Both tabs count the session's number up; whether the session goes on.
fn write(talk: &mut Talk<'_>, other: &mut Talk<'_>, known: &Arc<Known>) -> bool {
    thread::scope(|scope| {
        let counted = scope.spawn(|| count_up(other, known));
        let here = count_up(talk, known);
        here && counted.join().unwrap_or(false)
    })
}

fn count_up(talk: &mut Talk<'_>, known: &Arc<Known>) -> bool {
    let path = format!("/admin/v1/sessions/{}/data", known.sid);
    let sid = || known.sid.clone();
    let node = talk.any_node();
    let read = talk.ask(node, Door::Admin, &Request::new("GET", path.clone()), Intent::Look);
    let Some((span, answer)) = read else { return true };
    if answer.status != 200 {
        return over(talk, span, node, known, &answer);
    }
    let number = answer.json()["n"].as_u64().unwrap_or(0);
    let version = answer.header("etag").unwrap_or_default().to_owned();
    talk.note(span, node, What::Read { sid: sid(), number });
    let node = talk.any_node();
    let request = Request::new("PUT", path)
        .header("If-Match", version.clone())
        .json(&json!({"n": number + 1}));
    let written = talk.ask(node, Door::Admin, &request, Intent::Write(sid()));
    let Some((span, answer)) = written else { return true };
    match answer.status {
        200 => {
            let wrote = What::Wrote { sid: sid(), expected: version, number: number + 1 };
            talk.note(span, node, wrote);
            true
        }
        412 => {
            talk.note(span, node, What::WroteTooLate);
            true
        }
        _ => over(talk, span, node, known, &answer),
    }
}

/// An answer about data that there is no session for.
fn over(
    talk: &mut Talk<'_>,
    span: crate::history::Span,
    node: usize,
    known: &Arc<Known>,
    answer: &cloakroom_bench::http::Answer,
) -> bool {
    match answer.status {
        401 | 404 | 409 => {
            let saw = Saw::Over(format!("data {}", answer.text("code")));
            talk.note(span, node, What::Verified { sid: known.sid.clone(), saw });
        }
        _ => talk.wrong(span, node, "data", answer),
    }
    false
}

/// Signs out, again and again until it is acknowledged.
pub(super) fn log_out(talk: &mut Talk<'_>, known: &Arc<Known>) {
    let request = known.shown(Request::new("POST", "/auth/logout"));
    for _ in 0..TRIES {
        let node = talk.any_node();
        let intent = Intent::End(known.sid.clone());
        if let Some((span, answer)) = talk.ask(node, Door::Public, &request, intent) {
            if answer.status == 204 {
                let ended = What::Ended { sid: known.sid.clone(), kept: kept(&answer) };
                talk.note(span, node, ended);
                talk.shared.over(known);
            } else {
                talk.wrong(span, node, "logout", &answer);
            }
            return;
        }
        pause(&mut talk.random, 400);
    }
}
