//! A node in this process, asked on its admin listener as a backend would ask.

use std::collections::BTreeMap;

use cloakroom_server::config::{Flags, Loaded, Surroundings};
use cloakroom_server::serve::{Running, start};
use serde_json::{Value, json};
use ureq::http::{HeaderMap, Method, Request};

use crate::contract::{self, Seen};

/// A password that the rules take.
pub const PASSWORD: &str = "plain sight umbrella";

/// A node, with a directory that goes away with it.
pub struct AdminWorld {
    runtime: Option<tokio::runtime::Runtime>,
    running: Option<Running>,
    pub dir: tempfile::TempDir,
    pub admin: String,
    pub public: String,
    pub key: String,
    agent: ureq::Agent,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Reply {
    /// The problem's code.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// The member that the problem names.
    pub fn member(&self) -> &str {
        self.body["member"].as_str().unwrap_or_default()
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The same, if it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }
}

impl AdminWorld {
    /// A node on the memory store.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// A node with settings, each by its environment variable less `CLOAKROOM_`.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::TempDir::new().expect("a directory");
        let mut variables = BTreeMap::from([
            ("CLOAKROOM_SERVER__PUBLIC".to_owned(), "127.0.0.1:0".to_owned()),
            ("CLOAKROOM_SERVER__ADMIN".to_owned(), "127.0.0.1:0".to_owned()),
            ("CLOAKROOM_STORE__URL".to_owned(), "memory:".to_owned()),
            ("CLOAKROOM_STORE__PARTITIONS".to_owned(), "8".to_owned()),
            ("CLOAKROOM_LIMIT__NETWORK".to_owned(), "100000/1m".to_owned()),
            ("CLOAKROOM_PASSWORD__POOL".to_owned(), "2".to_owned()),
        ]);
        for (name, value) in settings {
            variables.insert(format!("CLOAKROOM_{name}"), (*value).to_owned());
        }
        let surroundings = Surroundings {
            variables,
            unreadable: Vec::new(),
            terminal: false,
            cores: 2,
            search: Vec::new(),
        };
        let flags = Flags { config: None, data: Some(dir.path().to_owned()) };
        let config = Loaded::read(&flags, &surroundings).outcome.expect("a good configuration");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let running = runtime.block_on(start(*config)).expect("starts");
        let key = std::fs::read_to_string(dir.path().join("root-api.key")).expect("a root key");
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .build()
            .new_agent();
        Self {
            admin: format!("http://{}", running.admin),
            public: format!("http://{}", running.public),
            runtime: Some(runtime),
            running: Some(running),
            dir,
            key: key.trim_end().to_owned(),
            agent,
        }
    }

    /// A request with headers of choice, and a body.
    pub fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Reply {
        let verb = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = Request::builder().method(verb).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = match body {
            Some(body) => {
                let request = request.body(body.to_vec()).expect("a request");
                let request = self.agent.configure_request(request);
                self.agent.run(request.allow_non_standard_methods(true).build())
            }
            None => {
                let request = self.agent.configure_request(request.body(()).expect("a request"));
                self.agent.run(request.allow_non_standard_methods(true).build())
            }
        };
        let mut answer = answer.expect("an answer");
        let text = answer.body_mut().read_to_string().expect("text");
        let origin = url.match_indices('/').nth(2).map_or(url.len(), |(at, _)| at);
        let said = answer.headers().iter();
        let said = said.map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default()));
        let is_admin = url.starts_with(&self.admin);
        Seen {
            listener: Some(if is_admin { contract::ADMIN } else { contract::PUBLIC }),
            method,
            target: &url[origin..],
            status: answer.status().as_u16(),
            headers: said.collect(),
            body: text.as_bytes(),
        }
        .judge();
        Reply {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        }
    }

    /// A request with the root key and no body.
    pub fn ask(&self, method: &str, path: &str) -> Reply {
        let bearer = format!("Bearer {}", self.key);
        self.send(method, &format!("{}{path}", self.admin), &[("authorization", &bearer)], None)
    }

    /// A request with the root key and bytes for a JSON body.
    pub fn raw(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        self.raw_with(method, path, body, &[])
    }

    /// The same with more headers.
    pub fn raw_with(&self, method: &str, path: &str, body: &[u8], more: &[(&str, &str)]) -> Reply {
        let bearer = format!("Bearer {}", self.key);
        let mut headers =
            vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
        headers.extend(more);
        self.send(method, &format!("{}{path}", self.admin), &headers, Some(body))
    }

    /// A request with the root key and a JSON body.
    pub fn put(&self, method: &str, path: &str, body: &Value) -> Reply {
        self.raw(method, path, body.to_string().as_bytes())
    }

    /// GET with the root key.
    pub fn get(&self, path: &str) -> Reply {
        self.ask("GET", path)
    }

    /// POST with the root key.
    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.put("POST", path, body)
    }

    /// Opens a session for a subject; the answer's body.
    pub fn open(&self, subject: &str, delivery: &str) -> Value {
        let body = json!({"subject": subject, "delivery": delivery});
        self.post("/admin/v1/sessions", &body).expect(201).body
    }

    /// Adds a user; the user.
    pub fn add_user(&self, identifier: &str) -> Value {
        let body = json!({"identifier": identifier, "password": PASSWORD});
        self.post("/admin/v1/users", &body).expect(201).body["user"].clone()
    }

    /// Whether a session or access token counts, by `sessions/verify`.
    pub fn is_alive(&self, token: &str) -> bool {
        let answer = self.post("/admin/v1/sessions/verify", &json!({"token": token}));
        assert!([200, 401].contains(&answer.status), "{}", answer.text);
        answer.status == 200
    }

    /// How many events there are, to see that nothing changed.
    pub fn events(&self) -> Vec<Value> {
        let answer = self.get("/admin/v1/events?order=desc").expect(200);
        answer.body["events"].as_array().cloned().unwrap_or_default()
    }
}

impl Drop for AdminWorld {
    fn drop(&mut self) {
        if let (Some(runtime), Some(running)) = (self.runtime.take(), self.running.take()) {
            runtime.block_on(running.stop());
        }
    }
}

/// The text of a member.
#[track_caller]
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}
