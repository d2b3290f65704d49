//! A process that is killed between two answers: what it acknowledged is in its audit log.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli_world::serve;

/// Who asks; each thread of this many.
const CLIENTS: usize = 4;
/// Changes that they have made before the process is killed under them.
const ENOUGH: usize = 200;
const PATIENCE: Duration = Duration::from_secs(20);

/// An authority's admin listener, asked as an operator.
struct Admin {
    agent: ureq::Agent,
    url: String,
    bearer: String,
}

impl Admin {
    fn new(url: &str, dir: &std::path::Path) -> Self {
        let key = std::fs::read_to_string(dir.join("root-api.key")).expect("a key");
        let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
        let bearer = format!("Bearer {}", key.trim());
        Self { agent: agent.new_agent(), url: url.to_owned(), bearer }
    }

    /// The body of a success; none where there was no answer.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let request = ureq::http::Request::builder().method(method);
        let request = request.uri(format!("{}{path}", self.url));
        let request = request.header("authorization", &self.bearer);
        let request = request.header("content-type", "application/json");
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let request = request.body(text).expect("a request");
        let mut answer = self.agent.run(request).ok()?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().ok()?;
        assert!((200..300).contains(&status), "{method} {path}: {status} {text}");
        Some(serde_json::from_str(&text).unwrap_or_default())
    }
}

/// Makes users and sessions and ends some, until nobody answers. Notes what was acknowledged: the
/// type of the event that it must have, and whose.
fn change(admin: &Admin, client: usize, noted: &Mutex<Vec<(&'static str, String)>>) {
    let note = |kind: &'static str, whose: &str| {
        noted.lock().expect("no panic").push((kind, whose.to_owned()));
    };
    for number in 0.. {
        let new = json!({"identifier": format!("user-{client}-{number}")});
        let Some(user) = admin.ask("POST", "/admin/v1/users", &new) else { return };
        let id = user["user"]["id"].as_str().expect("an id");
        note("user.created", id);
        let new = json!({"subject": id, "delivery": "bearer"});
        let Some(opened) = admin.ask("POST", "/admin/v1/sessions", &new) else { return };
        let sid = opened["session"]["id"].as_str().expect("an id");
        note("session.opened", sid);
        let path = format!("/admin/v1/sessions/{sid}");
        let Some(_) = admin.ask("DELETE", &path, &Value::Null) else { return };
        note("session.ended", sid);
    }
}

/// How often each event is in the log, by its type and whose it is.
fn events(admin: &Admin) -> BTreeMap<(String, String), usize> {
    let mut found = BTreeMap::new();
    let mut after = String::new();
    loop {
        let path = format!("/admin/v1/events?limit=200{after}");
        let page = admin.ask("GET", &path, &Value::Null).expect("a page");
        for event in page["events"].as_array().expect("a list") {
            let whose = event["sid"].as_str().or(event["subject"].as_str()).unwrap_or_default();
            let kind = event["type"].as_str().expect("a type");
            *found.entry((kind.to_owned(), whose.to_owned())).or_insert(0) += 1;
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return found,
        }
    }
}

#[test]
fn m4_every_change_that_a_killed_process_acknowledged_has_its_event_once() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let (node, _, url) = serve(dir.path());
    let noted = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let admin = Admin::new(&url, dir.path());
            let noted = &noted;
            scope.spawn(move || change(&admin, client, noted));
        }
        let deadline = Instant::now() + PATIENCE;
        while noted.lock().expect("no panic").len() <= ENOUGH && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        // SIGKILL, in the midst of whatever they asked.
        drop(node);
    });
    let noted = noted.into_inner().expect("no panic");
    let (node, _, url) = serve(dir.path());
    let found = events(&Admin::new(&url, dir.path()));
    assert!(noted.len() > ENOUGH, "the control: {}", noted.len());
    for (kind, whose) in noted {
        let count = found.get(&(kind.to_owned(), whose.clone())).copied().unwrap_or(0);
        assert_eq!(count, 1, "{kind} of {whose}");
    }
    assert_eq!(node.stop("-TERM").0, 0);
}
