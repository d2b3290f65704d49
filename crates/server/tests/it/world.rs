//! A server in this process, on a store and with settings of the test's choosing.

use std::net::SocketAddr;

use cloakroom::{Context, NewPassword, NewUser, UserView};
use cloakroom_core::types::Secret;
use cloakroom_server::config::{Config, Flags, Loaded, Surroundings};
use cloakroom_server::serve::{Running, start};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::contract;
use crate::http::{Answer, Ask, Browser, send};
use crate::servers;

/// The user that most tests sign in.
pub const ADA: &str = "ada@example.com";
/// Somebody else.
pub const BOB: &str = "bob@example.com";
/// Everybody's password.
pub const PASSWORD: &str = "correct horse battery staple";
/// The origin of our own pages: the setting's default.
pub const ORIGIN: &str = "http://localhost:7400";

/// The stores that are run in this process.
const STORES: [Option<(&str, &str)>; 2] = [Some(("store.url", "memory:")), None];

/// A running server and its directory.
pub struct World {
    running: Option<Running>,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub root_key: String,
    pub directory: TempDir,
}

/// Tells a story on each store, those over the network included.
pub async fn on_each_store(settings: &[(&str, &str)], story: impl AsyncFn(&World)) {
    for store in STORES {
        let settings: Vec<_> = store.into_iter().chain(settings.iter().copied()).collect();
        let world = World::start(&settings).await;
        story(&world).await;
        world.stop().await;
    }
    for server in servers::each().await {
        let own = server.settings();
        let own = own.iter().map(|(key, value)| (*key, value.as_str()));
        let world = World::start(&own.chain(settings.iter().copied()).collect::<Vec<_>>()).await;
        story(&world).await;
        world.stop().await;
    }
}

impl World {
    /// Starts a server; on the embedded store, unless the settings say otherwise.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_in(TempDir::new().expect("a directory"), settings).await
    }

    /// Starts one on what is in a directory.
    pub async fn start_in(directory: TempDir, settings: &[(&str, &str)]) -> Self {
        let config = config(&directory, settings);
        let key_file = config.root_api_key_file.clone();
        let running = start(config).await.unwrap_or_else(|error| panic!("{error}"));
        let public = running.public.socket().expect("a TCP listener");
        let admin = running.admin.socket().expect("a TCP listener");
        contract::note(public, contract::PUBLIC);
        contract::note(admin, contract::ADMIN);
        let root_key = std::fs::read_to_string(key_file).expect("the root key").trim().to_owned();
        Self { running: Some(running), public, admin, root_key, directory }
    }

    /// What the server runs on.
    pub fn running(&self) -> &Running {
        self.running.as_ref().expect("not stopped yet")
    }

    /// Takes the server out, to be stopped by the test.
    pub fn take_running(&mut self) -> Running {
        self.running.take().expect("not stopped yet")
    }

    /// Stops it and gives back its directory.
    pub async fn stop(mut self) -> TempDir {
        self.take_running().stop().await;
        self.directory
    }

    /// Makes a user, without HTTP.
    pub async fn user(&self, identifier: &str) -> UserView {
        let password = Some(NewPassword::Chosen(Secret::new(PASSWORD.to_owned())));
        let claims = match json!({"email": identifier, "role": "user"}) {
            Value::Object(claims) => claims,
            other => panic!("{other} is no object"),
        };
        let user = NewUser { identifier: identifier.to_owned(), password, claims, disabled: false };
        let made = self.running().site().authority.create_user(user, &Context::system()).await;
        made.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sends a request to the public listener.
    pub async fn send(&self, ask: Ask) -> Answer {
        send(self.public, &ask).await
    }

    /// Sends a request to the admin listener, with the root key.
    pub async fn admin(&self, ask: Ask) -> Answer {
        send(self.admin, &ask.bearer(&self.root_key)).await
    }

    /// Sends a request to the admin listener as it is.
    pub async fn send_admin(&self, ask: Ask) -> Answer {
        send(self.admin, &ask).await
    }

    /// A browser with an empty jar.
    pub fn browser(&self) -> Browser {
        Browser::new(self.public)
    }

    /// A browser that this user is signed in on, by `delivery`.
    pub async fn signed_in(&self, identifier: &str, delivery: &str) -> Browser {
        let mut browser = self.browser();
        browser.send(Ask::get("/auth/csrf-token")).await.ok();
        browser.send(login(identifier, delivery)).await.ok();
        browser
    }

    /// Signs a user in as a program does, with tokens.
    pub async fn tokens(&self, identifier: &str) -> Answer {
        let answer = self.send(login(identifier, "bearer")).await;
        answer.ok();
        answer
    }

    /// Whether an access token's session lives, and if not, the code.
    pub async fn alive(&self, access_token: &str) -> Result<(), String> {
        let answer = self.send(Ask::get("/auth/session").bearer(access_token)).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.code()) }
    }

    /// The sids of a user's live sessions, by the engine.
    pub async fn sessions_of(&self, user: &UserView) -> Vec<String> {
        let listed = self.running().site().authority.sessions_of(&user.id).await;
        let listed = listed.unwrap_or_else(|error| panic!("{error}"));
        listed.iter().map(|one| one.session.sid.to_string()).collect()
    }
}

/// A sign-in.
pub fn login(identifier: &str, delivery: &str) -> Ask {
    let body = json!({"identifier": identifier, "password": PASSWORD, "delivery": delivery});
    Ask::post("/auth/login").json(&body)
}

/// The configuration that settings make, with free ports and few partitions.
pub fn config(directory: &TempDir, settings: &[(&str, &str)]) -> Config {
    let always = [
        ("server.public", "127.0.0.1:0"),
        ("server.admin", "127.0.0.1:0"),
        ("store.partitions", "4"),
        ("password.argon2", "m=7168,t=5,p=1"),
        ("limit.login_network", "10000/1m"),
    ];
    let variables = always.iter().chain(settings).map(|(key, value)| {
        let name = key.to_ascii_uppercase().replace('.', "__");
        (format!("CLOAKROOM_{name}"), (*value).to_owned())
    });
    let surroundings = Surroundings {
        variables: variables.collect(),
        unreadable: Vec::new(),
        terminal: false,
        cores: 2,
        search: Vec::new(),
    };
    let flags = Flags { config: None, data: Some(directory.path().join("data")) };
    match Loaded::read(&flags, &surroundings).outcome {
        Ok(config) => *config,
        Err(problems) => panic!("{problems}"),
    }
}

/// Compares text with a file of `tests/golden`; `UPDATE=1` writes it anew.
pub fn golden(name: &str, found: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, found).expect("a writable directory");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, found, "{name} differs; UPDATE=1 writes it anew");
}
