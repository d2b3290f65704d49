//! After the restart: a worker's account is held against the server.

use std::io;

use serde_json::{Value, json};

use super::account::{Doubt, Proof, Tokens};
use super::work::{Lines, Worker};
use super::{GRACE, Site};
use crate::http::{Answer, Request};

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Facts checked.
    pub(crate) checked: u64,
    /// Those that don't hold.
    pub(crate) faults: Vec<String>,
}

impl Findings {
    fn expect(&mut self, holds: bool, told: impl FnOnce() -> String) {
        self.checked += 1;
        if !holds {
            self.faults.push(told());
        }
    }
}

/// Checks all of a worker's sessions and settles what was in doubt.
pub(crate) fn everything(worker: &mut Worker, site: &Site, trial: u64) -> Findings {
    let mut findings = Findings::default();
    let mut lines = Lines::new(site);
    if let Err(fault) = check_all(worker, &mut lines, trial, &mut findings) {
        findings.faults.push(format!("no answer to a check: {fault}"));
    }
    findings
}

fn check_all(
    worker: &mut Worker,
    lines: &mut Lines,
    trial: u64,
    findings: &mut Findings,
) -> io::Result<()> {
    let doubt = worker.doubt.take();
    settle_endings(worker, lines, doubt.as_ref(), findings)?;
    if let Some(Doubt::Opened(subject)) = &doubt {
        check_number_open(worker, lines, subject, findings)?;
    }
    for place in 0..worker.held.len() {
        check_life(worker, lines, place, findings)?;
        if !worker.held[place].ended && worker.held[place].trial == trial {
            check_tokens(worker, lines, place, doubt.as_ref(), findings)?;
        }
        check_data(worker, lines, place, doubt.as_ref(), findings)?;
    }
    Ok(())
}

/// Finds out whether an unanswered ending happened: to all that it names, or to none.
fn settle_endings(
    worker: &mut Worker,
    lines: &mut Lines,
    doubt: Option<&Doubt>,
    findings: &mut Findings,
) -> io::Result<()> {
    let mut seen = Vec::new();
    for place in 0..worker.held.len() {
        let held = &worker.held[place];
        if !held.ended && held.is_doubtful(place, doubt) {
            seen.push((place, present(lines, &held.proof)?.status != 200));
        }
    }
    let over = seen.iter().filter(|(_, over)| *over).count();
    findings.expect(over == 0 || over == seen.len(), || {
        format!("an ending of {} sessions took effect on {over}", seen.len())
    });
    for (place, over) in seen {
        worker.held[place].ended = over;
    }
    Ok(())
}

/// An unanswered opening made one session more, or none.
fn check_number_open(
    worker: &Worker,
    lines: &mut Lines,
    subject: &str,
    findings: &mut Findings,
) -> io::Result<()> {
    let own = worker.held.iter().filter(|held| held.subject == subject && !held.ended).count();
    let path = format!("/admin/v1/subjects/{subject}/sessions");
    let answer = lines.admin(Request::new("GET", path))?;
    let listed = answer.json()["sessions"].as_array().map_or(0, Vec::len);
    findings.expect(listed == own || listed == own + 1, || {
        format!("{subject} has {listed} sessions, {own} were acknowledged")
    });
    Ok(())
}

/// Live is let in, ended is refused by each of its credentials and says so to the operator.
fn check_life(
    worker: &Worker,
    lines: &mut Lines,
    place: usize,
    findings: &mut Findings,
) -> io::Result<()> {
    let held = &worker.held[place];
    let answer = present(lines, &held.proof)?;
    if !held.ended {
        let is_own = answer.header("x-auth-session") == Some(held.sid.as_str());
        findings.expect(answer.status == 200 && is_own, || {
            format!("lost: {} answers {}", held.sid, answer.describe())
        });
        return Ok(());
    }
    findings.expect(answer.status == 401, || {
        format!("ended, yet {} answers {}", held.sid, answer.describe())
    });
    if let Proof::Bearer(tokens) = &held.proof {
        let answer = refresh(lines, &tokens.refresh)?;
        findings.expect(answer.status == 401, || {
            format!("ended, yet {} is refreshed: {}", held.sid, answer.describe())
        });
    }
    let path = format!("/admin/v1/sessions/{}", held.sid);
    let answer = lines.admin(Request::new("GET", path))?;
    findings.expect(answer.status == 200 && !answer.json()["session"]["ended"].is_null(), || {
        format!("the end of {} isn't told: {}", held.sid, answer.describe())
    });
    Ok(())
}

/// The predecessor still has the one successor, and the successor works. An exchange that was not
/// answered can be repeated.
fn check_tokens(
    worker: &mut Worker,
    lines: &mut Lines,
    place: usize,
    doubt: Option<&Doubt>,
    findings: &mut Findings,
) -> io::Result<()> {
    let held = &mut worker.held[place];
    let Proof::Bearer(tokens) = &mut held.proof else { return Ok(()) };
    let in_doubt = matches!(doubt, Some(Doubt::Refreshed(other)) if *other == place);
    let before = tokens.before.as_ref().filter(|before| before.at.elapsed() < GRACE / 2);
    // After an unanswered exchange the predecessor may be two behind: nobody repeats that.
    if let Some(before) = before.filter(|_| !in_doubt) {
        let answer = refresh(lines, &before.token)?;
        let same = answer.status == 200 && answer.text("refresh_token") == tokens.refresh;
        findings.expect(same, || {
            format!("the predecessor of {} is answered otherwise: {}", held.sid, answer.status)
        });
    }
    let answer = refresh(lines, &tokens.refresh)?;
    findings.expect(answer.status == 200, || {
        format!("the refresh token of {} answers {}", held.sid, answer.describe())
    });
    if answer.status == 200 {
        settle_exchange(tokens, &answer);
    }
    Ok(())
}

fn settle_exchange(tokens: &mut Tokens, answer: &Answer) {
    tokens.exchanged(answer.text("refresh_token"), answer.text("access_token"));
}

fn check_data(
    worker: &mut Worker,
    lines: &mut Lines,
    place: usize,
    doubt: Option<&Doubt>,
    findings: &mut Findings,
) -> io::Result<()> {
    let held = &mut worker.held[place];
    if held.ended {
        return Ok(());
    }
    let path = format!("/admin/v1/sessions/{}/data", held.sid);
    let stored = lines.admin(Request::new("GET", path))?.json();
    let written: Option<&Value> = match doubt {
        Some(Doubt::Written(other, data)) if *other == place => Some(data),
        _ => None,
    };
    findings.expect(stored == held.data || Some(&stored) == written, || {
        format!("the data of {} is {stored}, acknowledged was {}", held.sid, held.data)
    });
    held.data = stored;
    Ok(())
}

/// Shows a session's credential to the forward-authentication endpoint.
fn present(lines: &mut Lines, proof: &Proof) -> io::Result<Answer> {
    // As a gateway asks: without the original method the request would count as unsafe.
    let request = Request::new("GET", "/auth/verify").header("X-Forwarded-Method", "GET");
    lines.public(&match proof {
        Proof::Cookie { token, .. } => request.header("Cookie", format!("session={token}")),
        Proof::Bearer(tokens) => request.bearer(&tokens.access),
    })
}

fn refresh(lines: &mut Lines, token: &str) -> io::Result<Answer> {
    let body = json!({ "refresh_token": token });
    lines.public(&Request::new("POST", "/auth/refresh").json(&body))
}
