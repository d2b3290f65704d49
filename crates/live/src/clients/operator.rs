//! Operators and backends: they end what is others', and open on what they read before.

use cloakroom_bench::http::Request;
use serde_json::json;

use super::talk::{Own, kept};
use super::{Door, Talk, any_subject, pause};
use crate::history::{Intent, Saw, What};

pub(super) fn play(talk: &mut Talk<'_>) {
    while !talk.shared.is_over() {
        pause(&mut talk.random, 250);
        match talk.random.below(100) {
            0..55 => end_one(talk),
            55..70 => {
                let subject = any_subject(&mut talk.random);
                end_all(talk, &subject);
            }
            _ => open_on_an_epoch(talk),
        }
    }
}

fn end_one(talk: &mut Talk<'_>) {
    let Some(known) = talk.shared.any_known(&mut talk.random) else { return };
    let request = Request::new("DELETE", format!("/admin/v1/sessions/{}", known.sid));
    let node = talk.any_node();
    let intent = Intent::End(known.sid.clone());
    let Some((span, answer)) = talk.ask(node, Door::Admin, &request, intent) else { return };
    let sid = known.sid.clone();
    let what = match answer.status {
        204 => What::Ended { sid, kept: kept(&answer) },
        // It was over before.
        404 => What::Verified { sid, saw: Saw::Over("not_found".to_owned()) },
        _ => return talk.wrong(span, node, "end", &answer),
    };
    talk.note(span, node, what);
    talk.shared.over(&known);
}

pub(super) fn end_all(talk: &mut Talk<'_>, subject: &str) {
    let request = Request::new("DELETE", format!("/admin/v1/subjects/{subject}/sessions"));
    let (node, subject) = (talk.any_node(), subject.to_owned());
    let intent = Intent::EndAll(subject.clone());
    let Some((span, answer)) = talk.ask(node, Door::Admin, &request, intent) else { return };
    match answer.status {
        200 => {
            let ended = What::EndedAll { subject, but: None, kept: kept(&answer) };
            talk.note(span, node, ended);
        }
        // Nobody of that name was ever signed in.
        404 => {}
        _ => talk.wrong(span, node, "end all", &answer),
    }
}

/// Reads an epoch, as a backend does before it checks credentials, and opens a session on it.
fn open_on_an_epoch(talk: &mut Talk<'_>) {
    let subject = any_subject(&mut talk.random);
    let request = Request::new("GET", format!("/admin/v1/subjects/{subject}"));
    let node = talk.any_node();
    let read = talk.ask(node, Door::Admin, &request, Intent::Look);
    let Some((checked, answer)) = read.filter(|(_, answer)| answer.status == 200) else { return };
    let epoch = answer.json()["subject"]["epoch"].as_u64().unwrap_or_default();
    if talk.random.percent(30) {
        end_all(talk, &subject);
    }
    pause(&mut talk.random, 100);
    let body = json!({"subject": subject, "delivery": "bearer", "epoch": epoch});
    let request = Request::new("POST", "/admin/v1/sessions").json(&body);
    let node = talk.any_node();
    let intent = Intent::Open(subject.clone());
    let Some((span, answer)) = talk.ask(node, Door::Admin, &request, intent) else { return };
    match answer.status {
        201 => {
            let own = Own::of(&answer, subject);
            talk.opened(span, node, &own, checked, None);
            talk.shared.remember(&own.known);
            for _ in 0..3 {
                let node = talk.any_node();
                talk.verify(node, &own.known);
            }
        }
        409 => talk.note(span, node, What::OpenTooLate),
        _ => talk.wrong(span, node, "open on an epoch", &answer),
    }
}
