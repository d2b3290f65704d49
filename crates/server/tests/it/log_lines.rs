//! The log of a real process, as JSON: a line for each request, and no credential anywhere.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::admin_world::PASSWORD;
use crate::cli_world::program;

const WRONG: &str = "eleven geese under a bridge";
const KEY: &str = "idem-4f1c9a7be2d05368";

/// A process whose log goes to a file: at every level it is more than a pipe holds.
struct Logging(Child);

impl Logging {
    /// Starts it; gives what it said when it was ready.
    fn start(command: &mut Command, log: &Path) -> (Self, String) {
        let log = File::create(log).expect("a file");
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut greeting = String::new();
        while !greeting.ends_with("\n}\n") {
            assert!(lines.read_line(&mut greeting).expect("readable") > 0, "{greeting}");
        }
        // It says no more, and may find the pipe closed.
        (Self(child), greeting)
    }

    /// Asks it to stop, and waits until it did.
    fn stop(mut self) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
        assert!(self.0.wait().expect("a child").success());
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        // Only where the test failed before it was stopped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One process, its agent, and all that it handed out or was shown.
struct Story {
    public: String,
    admin: String,
    agent: ureq::Agent,
    secrets: BTreeSet<String>,
    told: Vec<String>,
}

impl Story {
    /// A secret by what is unmistakable of it: the end of an opaque one, a token's signature.
    fn secret(&mut self, text: &str) {
        let text = text.rsplit('.').next().unwrap_or(text);
        self.secrets.insert(text[text.len().saturating_sub(40)..].to_owned());
    }

    /// Sends a request; keeps the answer where it refuses or lists, and the credentials in it.
    fn send(&mut self, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Value {
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.to_owned()).expect("a request");
        let request = self.agent.configure_request(request);
        let answer = self.agent.run(request.allow_non_standard_methods(true).build());
        let mut answer = answer.expect("an answer");
        for line in answer.headers().get_all("set-cookie") {
            let value = line.to_str().expect("text").split([';', '=']).nth(1).unwrap_or_default();
            if value.len() > 40 {
                self.secret(value);
            }
        }
        let status = answer.status().as_u16();
        let head = format!("{:?}", answer.headers());
        let text = answer.body_mut().read_to_string().expect("text");
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        for name in
            ["access_token", "refresh_token", "csrf_token", "session_token", "secret", "token"]
        {
            if let Some(secret) = body[name].as_str() {
                self.secret(secret);
            }
        }
        // A backend has it from here, and nobody from anywhere else.
        if let Some(key) = body["session"]["csrf_key"].as_str() {
            self.secret(key);
        }
        if status >= 400 || body.get("events").is_some() || url.ends_with("/metrics") {
            self.told.push(format!("{head}\n{text}"));
        }
        body
    }

    fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &Value) -> Value {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        let url = format!("{}{path}", self.public);
        self.send("POST", &url, &all, &body.to_string())
    }

    fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Value {
        let url = format!("{}{path}", self.public);
        self.send("GET", &url, headers, "")
    }
}

/// Shows a credential in each place, right and wrong.
fn show_everywhere(story: &mut Story, credential: &str, other: &str) {
    let bearer = format!("Bearer {credential}");
    let basic = format!("Basic {credential}");
    let cookies = format!("session={credential}; refresh={credential}; other={credential}");
    for headers in [
        vec![("authorization", bearer.as_str())],
        vec![("authorization", basic.as_str())],
        vec![("cookie", cookies.as_str())],
        vec![("x-request-id", credential)],
        vec![("user-agent", credential)],
        vec![("x-csrf-token", credential), ("cookie", cookies.as_str())],
        vec![("idempotency-key", credential)],
        vec![("x-forwarded-for", credential), ("x-forwarded-uri", credential)],
        vec![("origin", credential), ("referer", credential)],
        vec![("traceparent", credential), ("x-api-key", credential)],
    ] {
        for path in ["/auth/session", "/auth/verify", "/auth/sessions"] {
            story.get(path, &headers);
        }
        story.post("/auth/logout/all", &headers, &json!({"keep_current": credential}));
        story.post("/auth/login", &headers, &json!({"identifier": credential, "password": WRONG}));
    }
    for path in [
        format!("/auth/session?access_token={credential}"),
        format!("/auth/verify/{credential}?token={credential}"),
        format!("/auth/sessions/{credential}"),
        format!("/{credential}"),
    ] {
        story.get(&path, &[]);
    }
    story.post("/auth/refresh", &[], &json!({"refresh_token": credential, "x": credential}));
    story.post("/auth/login", &[], &json!({credential: other}));
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for path in ["/oauth2/introspect", "/oauth2/revoke", "/oauth2/token"] {
        let url = format!("{}{path}?token={credential}", story.public);
        story.send("POST", &url, &form, &format!("token={credential}&password={PASSWORD}"));
    }
    let admin = story.admin.clone();
    for url in [
        format!("{admin}/admin/v1/users?api_key={credential}"),
        format!("{admin}/admin/v1/sessions/{credential}"),
        format!("{admin}/metrics?key={credential}"),
    ] {
        story.send("GET", &url, &[("authorization", bearer.as_str())], "");
    }
}

/// Credentials of each kind: live, used up, expired, mangled.
fn live(story: &mut Story, root: &str) -> Vec<String> {
    let operator = format!("Bearer {root}");
    let operator = [("authorization", operator.as_str()), ("content-type", "application/json")];
    let admin = story.admin.clone();
    let user = json!({"identifier": "ada@example.com", "password": PASSWORD}).to_string();
    let made = story.send("POST", &format!("{admin}/admin/v1/users"), &operator, &user);
    let id = made["user"]["id"].as_str().expect("an id");
    let reset = format!("{admin}/admin/v1/users/{id}/reset");
    let reset = story.send("POST", &reset, &operator, "");
    let key = json!({"name": "shop", "scopes": ["events"]}).to_string();
    let key = story.send("POST", &format!("{admin}/admin/v1/api-keys"), &operator, &key);
    let name = "ada@example.com";
    let login = json!({"identifier": name, "password": PASSWORD, "delivery": "bearer"});
    let text = |value: &Value| value.as_str().expect("a credential").to_owned();
    let first = story.post("/auth/login", &[], &login);
    let second = story.post(
        "/auth/refresh",
        &[("idempotency-key", KEY)],
        &json!({"refresh_token": first["refresh_token"]}),
    );
    let opened = json!({"subject": "usr_x", "delivery": "cookie"}).to_string();
    let cookie = story.send("POST", &format!("{admin}/admin/v1/sessions"), &operator, &opened);
    let short = json!({"subject": "usr_x", "delivery": "bearer", "lifetime": 1}).to_string();
    let short = story.send("POST", &format!("{admin}/admin/v1/sessions"), &operator, &short);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(cookie["session"]["csrf_key"].is_string(), "the control");
    let mut all = vec![
        text(&key["secret"]),
        text(&reset["token"]),
        text(&first["access_token"]),
        text(&second["access_token"]),
        text(&cookie["session_token"]),
        text(&short["access_token"]),
        text(&short["refresh_token"]),
        text(&first["refresh_token"]),
        text(&second["refresh_token"]),
        root.to_owned(),
    ];
    // Mangled at its head: what comes after it is as secret as before.
    let mangled: Vec<String> =
        all.iter().map(|one| format!("{}x{}", &one[..5], &one[5..])).collect();
    all.extend(mangled);
    all
}

#[test]
fn m1_no_line_of_a_process_holds_a_credential_wherever_it_was_put() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let mut command = program();
    command.args(["serve", "--json", "--data"]).arg(directory.path());
    for (name, value) in [
        ("SERVER__PUBLIC", "127.0.0.1:0"),
        ("SERVER__ADMIN", "127.0.0.1:0"),
        ("SERVER__TRUSTED_PROXIES", "127.0.0.0/8"),
        ("STORE__PARTITIONS", "2"),
        ("LOG__FORMAT", "json"),
        ("LOG__LEVEL", "trace"),
        ("LIMIT__NETWORK", "1000000/1m"),
        ("LIMIT__LOGIN_NETWORK", "1000000/1m"),
        ("PASSWORD__ARGON2", "m=7168,t=5,p=1"),
        ("TELEMETRY__OTLP_ENDPOINT", ""),
    ] {
        command.env(format!("CLOAKROOM_{name}"), value);
    }
    let log = directory.path().join("log.jsonl");
    let (node, greeting) = Logging::start(&mut command, &log);
    let said: Value = serde_json::from_str(&greeting).expect("JSON");
    let url = |name: &str| said[name].as_str().expect("a URL").to_owned();
    let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
    let mut story = Story {
        public: url("public"),
        admin: url("admin"),
        agent: agent.new_agent(),
        secrets: BTreeSet::from([WRONG, KEY, PASSWORD].map(str::to_owned)),
        told: vec![greeting],
    };
    let root = std::fs::read_to_string(directory.path().join("root-api.key")).expect("a key");
    let root = root.trim();
    story.secret(root);
    let credentials = live(&mut story, root);
    credentials.iter().for_each(|credential| story.secret(credential));
    for credential in &credentials {
        show_everywhere(&mut story, credential, PASSWORD);
    }
    let operator = format!("Bearer {root}");
    let operator = [("authorization", operator.as_str())];
    std::thread::sleep(std::time::Duration::from_millis(5500));
    for path in ["/admin/v1/events?order=desc&limit=200", "/metrics"] {
        story.send("GET", &format!("{}{path}", story.admin), &operator, "");
    }
    story.send("GET", &format!("{}/healthz", story.public), &[("x-request-id", "mine-1")], "");
    node.stop();
    let mut text = String::new();
    File::open(&log).expect("a log").read_to_string(&mut text).expect("UTF-8");
    let log = text;
    assert!(story.secrets.len() > 12 && story.told.len() > 400, "the control");
    for secret in &story.secrets {
        assert!(!log.contains(secret), "the log holds {secret}: {}", around(&log, secret));
        for told in &story.told {
            assert!(!told.contains(secret), "an answer holds {secret}: {told}");
        }
    }
    judge_lines(&log);
}

/// The text around what shouldn't be there.
fn around<'a>(log: &'a str, secret: &str) -> &'a str {
    log.lines().find(|line| line.contains(secret)).unwrap_or_default()
}

/// Every line is one JSON object, and every request has one with its id.
fn judge_lines(log: &str) {
    let mut requests = 0;
    let mut mine = None;
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
        if line["target"] != "cloakroom::request" {
            continue;
        }
        requests += 1;
        for member in ["request_id", "listener", "method", "route", "status", "took_us"] {
            assert!(!line[member].is_null(), "{member}: {line}");
        }
        let status = line["status"].as_u64().expect("a status");
        assert_eq!(line["code"].is_string(), status >= 400, "{line}");
        if line["request_id"] == "mine-1" {
            mine = Some(line);
        }
    }
    assert!(requests > 400, "{requests} requests have a line");
    let mine = mine.expect("a line with the client's own id");
    assert_eq!((&mine["route"], &mine["status"]), (&"/healthz".into(), &200.into()));
}
