//! The load: one client that opens, rotates, writes and ends its own sessions, one at a time.

use std::io;

use serde_json::json;

use super::account::{Doubt, Held, Proof, Tokens};
use super::{Fault, Site, Victim};
use crate::http::{Answer, Client, Request};
use crate::random::Random;

/// Subjects of a worker in one trial.
const SUBJECTS: usize = 6;
/// Sessions of one subject, at most: below the authority's own bound, which would end the oldest.
const SESSIONS_OF_SUBJECT: usize = 60;
/// Sessions that a worker keeps account of from earlier trials.
const REMEMBERED: usize = 40;

/// One client with its account.
pub(crate) struct Worker {
    pub(crate) number: usize,
    pub(crate) held: Vec<Held>,
    /// The one request of the last trial that was not answered.
    pub(crate) doubt: Option<Doubt>,
    acknowledged: u64,
    unanswered: u64,
}

/// The connections of a worker.
pub(crate) struct Lines {
    public: Client,
    admin: Client,
    key: String,
}

impl Lines {
    pub(crate) fn new(site: &Site) -> Self {
        Self {
            public: Client::new(&site.public),
            admin: Client::new(&site.admin),
            key: site.key.clone(),
        }
    }

    pub(crate) fn public(&mut self, request: &Request) -> io::Result<Answer> {
        self.public.send(request)
    }

    pub(crate) fn admin(&mut self, request: Request) -> io::Result<Answer> {
        self.admin.send(&request.bearer(&self.key))
    }
}

/// How a request went.
enum Step {
    /// It was answered as it should be.
    Answered(Answer),
    /// The kill came first.
    Unanswered,
    /// Something is wrong.
    Wrong(Fault),
}

impl Worker {
    pub(crate) fn new(number: usize) -> Self {
        Self { number, held: Vec::new(), doubt: None, acknowledged: 0, unanswered: 0 }
    }

    /// Works until the kill, and says what was wrong before it.
    pub(crate) fn work(
        &mut self,
        victim: &Victim,
        site: &Site,
        mut random: Random,
        trial: u64,
    ) -> Option<Fault> {
        self.forget_old(trial, &mut random);
        let mut lines = Lines::new(site);
        loop {
            match self.one(&mut lines, victim, &mut random, trial) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(fault) => return Some(format!("under load: {fault}")),
            }
        }
    }

    /// Acknowledged changes and unanswered requests since the last call.
    pub(crate) fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.acknowledged), std::mem::take(&mut self.unanswered))
    }

    fn forget_old(&mut self, trial: u64, random: &mut Random) {
        let is_old = |held: &Held| held.trial + 1 < trial;
        while self.held.iter().filter(|held| is_old(held)).count() > REMEMBERED {
            let place = random.below(self.held.len());
            if is_old(&self.held[place]) {
                self.held.swap_remove(place);
            }
        }
    }

    /// One request; false when the kill came first.
    fn one(
        &mut self,
        lines: &mut Lines,
        victim: &Victim,
        random: &mut Random,
        trial: u64,
    ) -> Result<bool, Fault> {
        let live: Vec<usize> =
            (0..self.held.len()).filter(|place| !self.held[*place].ended).collect();
        let roll = random.below(100);
        if live.is_empty() || roll < 35 {
            let name = random.below(SUBJECTS);
            let subject = format!("worker{}-trial{trial}-{name}", self.number);
            let open = self.held.iter().filter(|held| held.subject == subject).count();
            if open < SESSIONS_OF_SUBJECT {
                return self.open(lines, victim, random, trial, subject);
            }
        }
        let Some(place) = live.get(random.below(live.len())).copied() else { return Ok(true) };
        self.held[place].trial = trial;
        match (roll, &self.held[place].proof) {
            (0..60, Proof::Bearer(_)) => self.refresh(lines, victim, random, place),
            (0..75, _) => self.write(lines, victim, random, place),
            (75..85, _) => self.sign_out(lines, victim, place),
            (85..95, _) => self.end(lines, victim, place),
            _ => self.end_subject(lines, victim, place),
        }
    }

    fn open(
        &mut self,
        lines: &mut Lines,
        victim: &Victim,
        random: &mut Random,
        trial: u64,
        subject: String,
    ) -> Result<bool, Fault> {
        let delivery = if random.percent(50) { "bearer" } else { "cookie" };
        let data = json!({ "n": random.below(1000) });
        let body = json!({ "subject": subject, "delivery": delivery, "data": data });
        let request = Request::new("POST", "/admin/v1/sessions").json(&body);
        let answer = match step(lines.admin(request), victim, &[201]) {
            Step::Answered(answer) => answer,
            other => return self.doubt(other, Doubt::Opened(subject)),
        };
        let proof = match delivery {
            "bearer" => Proof::Bearer(Tokens {
                access: answer.text("access_token"),
                refresh: answer.text("refresh_token"),
                before: None,
            }),
            _ => Proof::Cookie {
                token: answer.text("session_token"),
                csrf: answer.text("csrf_token"),
            },
        };
        let sid = answer.json()["session"]["id"].as_str().unwrap_or_default().to_owned();
        self.held.push(Held { sid, subject, proof, ended: false, data, trial });
        Ok(self.count(victim))
    }

    fn refresh(
        &mut self,
        lines: &mut Lines,
        victim: &Victim,
        random: &mut Random,
        place: usize,
    ) -> Result<bool, Fault> {
        let Proof::Bearer(tokens) = &self.held[place].proof else { return Ok(true) };
        let retry = tokens.before.as_ref().filter(|_| random.percent(25));
        let presented = retry.map_or(&tokens.refresh, |before| &before.token).clone();
        let is_retry = retry.is_some();
        let mut request =
            Request::new("POST", "/auth/refresh").json(&json!({ "refresh_token": presented }));
        if random.percent(50) {
            request = request.header("Idempotency-Key", format!("{:016x}", random.draw()));
        }
        let answer = match step(lines.public(&request), victim, &[200]) {
            Step::Answered(answer) => answer,
            other if is_retry => return self.unanswered(other),
            other => return self.doubt(other, Doubt::Refreshed(place)),
        };
        let (refresh, access) = (answer.text("refresh_token"), answer.text("access_token"));
        let Proof::Bearer(tokens) = &mut self.held[place].proof else { return Ok(true) };
        if !is_retry {
            tokens.exchanged(refresh, access);
        } else if refresh == tokens.refresh {
            tokens.access = access;
        } else {
            return Err("a retry was answered with another successor".to_owned());
        }
        Ok(self.count(victim))
    }

    fn write(
        &mut self,
        lines: &mut Lines,
        victim: &Victim,
        random: &mut Random,
        place: usize,
    ) -> Result<bool, Fault> {
        let path = format!("/admin/v1/sessions/{}/data", self.held[place].sid);
        let part = json!({ "n": random.below(1000) });
        let (request, expected) = if random.percent(50) {
            (Request::new("PUT", path).json(&part), part)
        } else {
            let part = json!({ "m": random.below(1000) });
            let mut merged = self.held[place].data.clone();
            merged["m"] = part["m"].clone();
            (Request::new("PATCH", path).json(&part), merged)
        };
        match step(lines.admin(request), victim, &[200, 204]) {
            Step::Answered(_) => self.held[place].data = expected,
            other => return self.doubt(other, Doubt::Written(place, expected)),
        }
        Ok(self.count(victim))
    }

    fn sign_out(
        &mut self,
        lines: &mut Lines,
        victim: &Victim,
        place: usize,
    ) -> Result<bool, Fault> {
        let request = Request::new("POST", "/auth/logout");
        let request = match &self.held[place].proof {
            Proof::Cookie { token, csrf } => request
                .header("Cookie", format!("session={token}"))
                .header("X-CSRF-Token", csrf.clone()),
            Proof::Bearer(tokens) => request.bearer(&tokens.access),
        };
        match step(lines.public(&request), victim, &[204]) {
            Step::Answered(_) => self.held[place].ended = true,
            other => return self.doubt(other, Doubt::Ended(place)),
        }
        Ok(self.count(victim))
    }

    fn end(&mut self, lines: &mut Lines, victim: &Victim, place: usize) -> Result<bool, Fault> {
        let path = format!("/admin/v1/sessions/{}", self.held[place].sid);
        match step(lines.admin(Request::new("DELETE", path)), victim, &[204]) {
            Step::Answered(_) => self.held[place].ended = true,
            other => return self.doubt(other, Doubt::Ended(place)),
        }
        Ok(self.count(victim))
    }

    fn end_subject(
        &mut self,
        lines: &mut Lines,
        victim: &Victim,
        place: usize,
    ) -> Result<bool, Fault> {
        let subject = self.held[place].subject.clone();
        let path = format!("/admin/v1/subjects/{subject}/sessions");
        match step(lines.admin(Request::new("DELETE", path)), victim, &[200]) {
            Step::Answered(_) => {
                let own = self.held.iter_mut().filter(|held| held.subject == subject);
                own.for_each(|held| held.ended = true);
            }
            other => return self.doubt(other, Doubt::SubjectEnded(subject)),
        }
        Ok(self.count(victim))
    }

    fn count(&mut self, victim: &Victim) -> bool {
        self.acknowledged += 1;
        victim.acknowledged();
        true
    }

    fn doubt(&mut self, step: Step, doubt: Doubt) -> Result<bool, Fault> {
        self.doubt = Some(doubt);
        self.unanswered(step)
    }

    fn unanswered(&mut self, step: Step) -> Result<bool, Fault> {
        self.unanswered += 1;
        match step {
            Step::Answered(_) | Step::Unanswered => Ok(false),
            Step::Wrong(fault) => Err(fault),
        }
    }
}

fn step(answer: io::Result<Answer>, victim: &Victim, expected: &[u16]) -> Step {
    match answer {
        Ok(answer) if expected.contains(&answer.status) => Step::Answered(answer),
        Ok(answer) => Step::Wrong(format!("expected {expected:?}, got {}", answer.describe())),
        Err(_) if victim.is_killed() => Step::Unanswered,
        Err(fault) => Step::Wrong(format!("no answer, though nothing was killed: {fault}")),
    }
}
