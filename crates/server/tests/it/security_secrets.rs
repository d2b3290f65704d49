//! Secrets: nowhere but where they belong, however much is logged and whatever goes wrong.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cloakroom_server::config::{Flags, Loaded, Surroundings};
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::http::{Answer, Ask, send};
use crate::world::{ADA, BOB, PASSWORD, World, login};

/// Everything that was logged.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Takes all that is logged by this process from now on, at every level.
    fn take_over() -> Self {
        let log = Self::default();
        let lines = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(log.clone())
            .finish();
        tracing::subscriber::set_global_default(lines).expect("nobody else logs in tests");
        log
    }

    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

const SHARED_SECRET: &str = "r7Zk2mQv9xLb4TgW1nHy6CdUe8PsJf3A";
const NEW_PASSWORD: &str = "seven lanterns over the river";
const WRONG_PASSWORD: &str = "eleven geese under a bridge";
const IDEMPOTENCY_KEY: &str = "idem-4f1c9a7be2d05368";
const HIDDEN: &str = "hidden-in-an-unknown-member-51ac";

/// What was handed out or typed, and what was told of errors and in lists.
#[derive(Default)]
struct Story {
    secrets: BTreeMap<String, String>,
    told: Vec<(String, String)>,
}

impl Story {
    /// Notes a secret by what is unmistakable of it.
    fn secret(&mut self, what: &str, text: &str) {
        let text = match text.get(..4) {
            Some("cks_" | "ckr_" | "cka_" | "ckp_") => &text[text.len() - 60..],
            _ => match text.rsplit_once('.') {
                // Of a token its signature.
                Some((head, signature)) if head.contains('.') => signature,
                _ => text,
            },
        };
        assert!(text.len() >= 16, "{what}");
        self.secrets.insert(text.to_owned(), what.to_owned());
    }

    /// Notes the credentials of an answer.
    fn answer(&mut self, what: &str, answer: &Answer) {
        for name in ["session", "refresh"] {
            if let Some(value) = answer.set_cookie(name) {
                self.secret(what, &value);
            }
        }
        if answer.body.is_empty() {
            return;
        }
        for name in
            ["access_token", "refresh_token", "csrf_token", "session_token", "secret", "token"]
        {
            if let Value::String(text) = answer.at(name) {
                self.secret(what, &text);
            }
        }
    }

    /// Notes the CSRF keys of a listing as secrets, and what else it tells. A key is for backends
    /// to have, there and nowhere else.
    fn listing(&mut self, what: &str, answer: &Answer) {
        let mut sessions = answer.at("sessions");
        let sessions = sessions.as_array_mut().expect("a list");
        for session in sessions.iter_mut() {
            let key = session.as_object_mut().and_then(|members| members.remove("csrf_key"));
            let key = key.expect("a session has a key");
            self.secret("a CSRF key", key.as_str().expect("text"));
        }
        assert!(!sessions.is_empty(), "the control");
        self.told.push((what.to_owned(), format!("{sessions:?}")));
    }

    /// Notes what must hold no secret.
    fn told(&mut self, what: &str, answer: &Answer) {
        let head: Vec<String> =
            answer.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        self.told.push((what.to_owned(), format!("{}\n{body}", head.join("\n"))));
    }

    /// Notes a refusal.
    #[track_caller]
    fn refused(&mut self, what: &str, answer: &Answer) {
        assert!((400..500).contains(&answer.status), "{what}: {}", answer.status);
        self.told(what, answer);
    }

    fn judge(&self, place: &str, text: &str) {
        for (secret, what) in &self.secrets {
            assert!(!text.contains(secret), "{place} holds {what}: {secret}");
        }
    }
}

/// Signs in in every way, refreshes, retries, reuses, steps up, changes the password.
async fn live_well(world: &World, story: &mut Story) {
    let mut browser = world.browser();
    let answer = browser.send(Ask::get("/auth/csrf-token")).await;
    story.answer("the token before sign-in", &answer);
    story.secret("the csrf cookie", &browser.jar["csrf"]);
    story.answer("a sign-in by cookie", browser.send(login(ADA, "cookie")).await.ok());
    story.answer("a slide", browser.send(Ask::post("/auth/refresh")).await.ok());
    let verify = browser.send(Ask::get("/auth/verify")).await;
    let assertion = verify.ok().header("authorization").expect("an assertion");
    story.secret("an assertion", assertion);
    let body = json!({"password": PASSWORD});
    let again = browser.send(Ask::post("/auth/reauthenticate").json(&body)).await;
    story.answer("a step-up", again.ok());
    let body = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    let changed = browser.send(Ask::post("/auth/password").json(&body)).await;
    story.answer("a change of password", changed.ok());
    let mut split = world.signed_in(BOB, "split").await;
    story.secret("a refresh cookie", &split.jar["refresh"]);
    story.answer("a split refresh", split.send(Ask::post("/auth/refresh")).await.ok());
    let first = world.tokens(BOB).await;
    story.answer("a sign-in by tokens", &first);
    let token = first.text("refresh_token");
    let keyed = Ask::post("/auth/refresh")
        .json(&json!({"refresh_token": token}))
        .header("idempotency-key", IDEMPOTENCY_KEY);
    let second = world.send(keyed).await;
    story.answer("a refresh", second.ok());
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let form = format!("grant_type=refresh_token&refresh_token={}", second.text("refresh_token"));
    story.answer("a third", world.send(Ask::post("/oauth2/token").form(&form)).await.ok());
    let reuse = Ask::post("/auth/refresh").json(&json!({"refresh_token": token}));
    story.refused("a reuse", &world.send(reuse).await);
}

/// Does everything wrong that can be done wrong with secrets in hand.
async fn live_badly(world: &World, story: &mut Story) {
    let tokens = world.tokens(BOB).await;
    story.answer("one more sign-in", &tokens);
    let (access, refresh) = (tokens.text("access_token"), tokens.text("refresh_token"));
    let browser = world.signed_in(BOB, "cookie").await;
    let cookie = browser.jar["session"].clone();
    story.secret("one more cookie", &cookie);
    let password = |text: &str| json!({"identifier": BOB, "password": text, "extra": HIDDEN});
    let wrong = json!({"identifier": BOB, "password": WRONG_PASSWORD});
    let half = format!("{{\"identifier\": \"{BOB}\", \"password\": \"{PASSWORD}\", ");
    let asks = [
        Ask::post("/auth/login").json(&wrong),
        Ask::post("/auth/login").json(&password(PASSWORD)),
        Ask::post("/auth/login").body("application/json", half.as_bytes()),
        Ask::post("/auth/login").body("text/plain", half.as_bytes()),
        Ask::post("/auth/login").json(&json!({"identifier": BOB, "password": [PASSWORD]})),
        Ask::get(&format!("/auth/session?access_token={access}")),
        Ask::get(&format!("/nowhere/{cookie}?refresh_token={refresh}")),
        Ask::get("/auth/session").bearer(&format!("{access}x")),
        Ask::get("/auth/session").bearer(&cookie),
        Ask::get("/auth/session").cookie(&format!("session={refresh}")),
        Ask::get("/auth/session").header("authorization", &format!("Bearer {cookie} {access}")),
        Ask::post("/auth/logout/all").cookie(&format!("session={cookie}")),
        Ask::post("/auth/logout/all")
            .cookie(&format!("session={cookie}"))
            .header("x-csrf-token", &format!("{}x", browser.csrf.clone().expect("a token"))),
        Ask::post("/auth/refresh")
            .json(&json!({"refresh_token": refresh}))
            .header("idempotency-key", IDEMPOTENCY_KEY)
            .header("idempotency-key", IDEMPOTENCY_KEY),
        Ask::post("/oauth2/token")
            .form(&format!("grant_type=password&password={PASSWORD}&refresh_token={refresh}")),
        Ask::post("/oauth2/introspect").form(&format!("token={access}")).bearer(&refresh),
        Ask::delete(&format!("/auth/sessions/{cookie}")).bearer(&access),
        Ask::get("/auth/verify/nowhere").cookie(&format!("session={cookie}")),
    ];
    for ask in asks {
        let what = format!("{ask:?}").chars().take(60).collect::<String>();
        story.refused(&what, &world.send(ask).await);
    }
    let stranger = Ask::get(&format!("/admin/v1/users?api_key={}", world.root_key));
    story.refused("a key in a query", &send(world.admin, &stranger).await);
    for path in ["/admin/v1/nowhere", "/admin/v1/sessions/x"] {
        story.refused(path, &world.admin(Ask::get(&format!("{path}?token={access}"))).await);
    }
    let body = json!({"identifier": BOB, "password": PASSWORD, "claims": {"sub": "x"}});
    story.refused("a bad user", &world.admin(Ask::post("/admin/v1/users").json(&body)).await);
    let body = json!({"token": format!("{access}.x")});
    let verify = Ask::post("/admin/v1/sessions/verify").json(&body);
    story.refused("a bad token", &world.admin(verify).await);
}

/// Resets a password: by a token that was replaced, by a mangled one, and by the good one.
async fn reset(world: &World, story: &mut Story) {
    let users = world.admin(Ask::get("/admin/v1/users")).await;
    let users = users.ok().at("users");
    let bob = users.as_array().into_iter().flatten().find(|user| user["identifier"] == BOB);
    let id = bob.and_then(|user| user["id"].as_str()).expect("Bob").to_owned();
    let path = format!("/admin/v1/users/{id}/reset");
    let replaced = world.admin(Ask::post(&path)).await;
    story.answer("a replaced reset token", replaced.is(201));
    let made = world.admin(Ask::post(&path)).await;
    story.answer("a reset token", made.is(201));
    let (replaced, token) = (replaced.text("token"), made.text("token"));
    let with = |token: &str| json!({"current_password": token, "new_password": PASSWORD});
    let mangled = token.replacen("ckp_", "ckp_x", 1);
    for bad in [&replaced, &mangled] {
        story.refused("a reset", &world.send(Ask::post("/auth/password").json(&with(bad))).await);
    }
    let elsewhere = Ask::get(&format!("/auth/session?token={token}"))
        .header("x-request-id", &token)
        .header("user-agent", &token)
        .bearer(&token);
    story.refused("a reset token as bearer", &world.send(elsewhere).await);
    let named = json!({"identifier": token, "password": WRONG_PASSWORD});
    story.refused("one as a name", &world.send(Ask::post("/auth/login").json(&named)).await);
    let done = world.send(Ask::post("/auth/password").json(&with(&token))).await;
    story.told("a reset", done.ok());
}

/// Listens to a stream until the node stops; gives what it said.
async fn listen(world: &World, path: &str) -> tokio::task::JoinHandle<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut stream = tokio::net::TcpStream::connect(world.admin).await.expect("accepted");
    let key = &world.root_key;
    // HTTP/1.0: the body comes as it is, without chunks.
    let head = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\nauthorization: Bearer {key}");
    stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await.expect("sent");
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.expect("an answer");
    assert_eq!(&first[9..], b"200");
    tokio::spawn(async move {
        let mut said = String::new();
        stream.read_to_string(&mut said).await.expect("UTF-8");
        said
    })
}

/// What an operator does, and everything that lists.
async fn operate(world: &World, story: &mut Story) {
    let body = json!({"name": "shop", "scopes": ["sessions:read"]});
    let made = world.admin(Ask::post("/admin/v1/api-keys").json(&body)).await;
    story.answer("an API key", made.is(201));
    let key = made.text("secret");
    send(world.admin, &Ask::get("/admin/v1/sessions").bearer(&key)).await.ok();
    let short = send(world.admin, &Ask::get("/admin/v1/users").bearer(&key)).await;
    story.refused("a key without the scope", &short);
    for delivery in ["cookie", "bearer", "split"] {
        let body = json!({"subject": "usr_backend", "delivery": delivery});
        let opened = world.admin(Ask::post("/admin/v1/sessions").json(&body)).await;
        for line in opened.is(201).at("set_cookie").as_array().into_iter().flatten() {
            let value = line.as_str().and_then(|line| line.split_once('=')).expect("a cookie").1;
            story.secret("a ready cookie", value.split(';').next().expect("a value"));
        }
        story.answer("a session of a backend", &opened);
    }
    for path in [
        "/admin/v1/api-keys",
        "/admin/v1/users",
        "/admin/v1/events?limit=200",
        "/admin/v1/events?limit=200&order=desc",
        "/admin/v1/keys",
        "/admin/v1/revocations",
        "/admin/v1/stats",
        "/metrics",
        "/openapi.json",
    ] {
        let answer = world.admin(Ask::get(path)).await;
        assert!([200, 404].contains(&answer.status), "{path}: {}", answer.status);
        story.told(path, &answer);
    }
    let listed = world.admin(Ask::get("/admin/v1/sessions?limit=200")).await;
    story.listing("the sessions", listed.ok());
    for path in ["/.well-known/jwks.json", "/.well-known/oauth-authorization-server", "/readyz"] {
        story.told(path, world.send(Ask::get(path)).await.ok());
    }
}

/// All bytes below a directory, as far as they are text.
fn dump(directory: &Path, into: &mut String) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            dump(&path, into);
        } else {
            into.push_str(&String::from_utf8_lossy(&std::fs::read(&path).expect("a file")));
        }
    }
}

/// `config show` under settings with a secret in each place that can have one.
fn shown(directory: &Path) -> String {
    let variables = [
        ("CLOAKROOM_TOKEN__ALGORITHM", "HS256"),
        ("CLOAKROOM_TOKEN__HS256_SECRET", SHARED_SECRET),
        ("CLOAKROOM_STORE__URL", "redis://cloakroom:hunter2-of-the-store@127.0.0.1:6379/0"),
        ("CLOAKROOM_MASTER_KEY", "mk4Xq0m2wR7tYb1ZsP9cVn5LdJh8GfKuEo3iTaWxSyM"),
    ];
    let surroundings = Surroundings {
        variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        unreadable: Vec::new(),
        terminal: false,
        cores: 2,
        search: Vec::new(),
    };
    let flags = Flags { config: None, data: Some(directory.to_owned()) };
    let loaded = Loaded::read(&flags, &surroundings);
    let text = format!("{:?}\n{:?}\n{:?}", loaded.show(), loaded.outcome, loaded.warnings);
    for variable in ["token.hs256_secret", "store.url"] {
        assert!(text.contains(variable), "the control: {text}");
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn m1_l8_no_secret_is_in_logs_errors_lists_events_or_the_store() {
    let log = Log::take_over();
    let settings = [
        ("refresh.grace", "1s"),
        ("token.algorithm", "HS256"),
        ("token.hs256_secret", SHARED_SECRET),
        ("limit.network", "100000/1m"),
        ("limit.session", "100000/1m"),
    ];
    let world = World::start(&settings).await;
    let mut story = Story::default();
    story.secret("the root key", &world.root_key);
    for (what, text) in [
        ("a password", PASSWORD),
        ("a new password", NEW_PASSWORD),
        ("a wrong password", WRONG_PASSWORD),
        ("an idempotency key", IDEMPOTENCY_KEY),
        ("the shared secret", SHARED_SECRET),
        ("the value of an unknown member", HIDDEN),
        ("the password of the store", "hunter2-of-the-store"),
        ("a master key", "mk4Xq0m2wR7tYb1ZsP9cVn5LdJh8GfKuEo3iTaWxSyM"),
    ] {
        story.secret(what, text);
    }
    let data = world.directory.path().join("data");
    let master = std::fs::read_to_string(data.join("master.key")).expect("a master key");
    story.secret("the master key", master.trim());
    world.user(ADA).await;
    world.user(BOB).await;
    let events = listen(&world, "/admin/v1/events/stream").await;
    let revocations = listen(&world, "/admin/v1/revocations/stream").await;
    live_well(&world, &mut story).await;
    live_badly(&world, &mut story).await;
    operate(&world, &mut story).await;
    reset(&world, &mut story).await;
    let config = world.running().site().config.clone();
    let directory = world.stop().await;
    assert!(story.secrets.len() > 30, "the control: {}", story.secrets.len());
    for (what, text) in &story.told {
        story.judge(what, text);
    }
    for (what, said, heard) in [
        ("the stream of events", "session.ended", events),
        ("the stream of revocations", "event: session", revocations),
    ] {
        let text = heard.await.expect("it ended");
        assert!(text.contains(said), "the control: {what}: {text}");
        story.judge(what, &text);
    }
    story.judge("the log", &log.text());
    assert!(log.text().contains("serving"), "the control");
    story.judge("config show", &shown(directory.path()));
    story.judge("the configuration as it prints itself", &format!("{config:?}"));
    let mut stored = String::new();
    dump(&directory.path().join("data").join("store"), &mut stored);
    assert!(stored.len() > 1000, "the control");
    story.judge("the store", &stored);
}
