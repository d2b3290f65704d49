//! Users with passwords, who sign out everywhere now and then.

use std::io;
use std::sync::Arc;

use cloakroom_bench::http::Request;
use serde_json::json;

use super::holder::log_out;
use super::talk::{Own, kept};
use super::{Door, Known, Talk, pause};
use crate::history::{Intent, What};

const PASSWORD: &str = "correct horse battery staple";

fn identifier(number: usize) -> String {
    format!("user-{number}@example.com")
}

/// Makes a user.
pub(super) fn make(talk: &mut Talk<'_>, number: usize) -> io::Result<()> {
    let body = json!({"identifier": identifier(number), "password": PASSWORD});
    let request = Request::new("POST", "/admin/v1/users").json(&body);
    match talk.ask(0, Door::Admin, &request, Intent::Look) {
        Some((_, answer)) if answer.status == 201 => Ok(()),
        Some((_, answer)) => Err(io::Error::other(answer.describe())),
        None => Err(io::Error::other("no user could be made")),
    }
}

pub(super) fn play(talk: &mut Talk<'_>, number: usize) {
    let mut own: Vec<Arc<Known>> = Vec::new();
    while !talk.shared.is_over() {
        pause(&mut talk.random, 400);
        if own.len() < 4 || talk.random.percent(40) {
            own.extend(sign_in(talk, number));
            continue;
        }
        let known = own.swap_remove(talk.random.below(own.len()));
        if talk.random.percent(50) {
            log_out(talk, &known);
        } else if sign_out_elsewhere(talk, &known) {
            own.clear();
            own.push(known);
        }
    }
}

fn sign_in(talk: &mut Talk<'_>, number: usize) -> Option<Arc<Known>> {
    let identifier = identifier(number);
    let body = json!({"identifier": identifier, "password": PASSWORD, "delivery": "bearer"});
    let request = Request::new("POST", "/auth/login").json(&body);
    let node = talk.any_node();
    let intent = Intent::Open(identifier);
    let (span, answer) = talk.ask(node, Door::Public, &request, intent)?;
    // Signed out everywhere while the password was checked.
    if answer.status == 401 && answer.text("code") == "session_ended" {
        talk.note(span, node, What::OpenTooLate);
        return None;
    }
    if answer.status != 200 {
        talk.wrong(span, node, "sign in", &answer);
        return None;
    }
    let subject = answer.json()["session"]["subject"].as_str().unwrap_or_default().to_owned();
    let own = Own::of(&answer, subject);
    talk.opened(span, node, &own, span, None);
    talk.shared.remember(&own.known);
    Some(own.known)
}

/// Ends all other sessions; whether that was acknowledged.
fn sign_out_elsewhere(talk: &mut Talk<'_>, known: &Arc<Known>) -> bool {
    let request = known.shown(Request::new("POST", "/auth/logout/all"));
    let request = request.json(&json!({"keep_current": true}));
    let node = talk.any_node();
    let subject = known.subject.clone();
    let intent = Intent::EndAll(subject.clone());
    let Some((span, answer)) = talk.ask(node, Door::Public, &request, intent) else {
        return false;
    };
    match answer.status {
        200 => {
            let but = Some(known.sid.clone());
            talk.note(span, node, What::EndedAll { subject, but, kept: kept(&answer) });
            true
        }
        401 => false,
        _ => {
            talk.wrong(span, node, "sign out elsewhere", &answer);
            false
        }
    }
}
