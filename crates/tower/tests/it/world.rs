//! An application behind the layer, over each kind of authority.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path as Segments, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use cloakroom::Cloakroom;
use cloakroom_core::rate::Quota;
use cloakroom_tower::{
    Claims, CsrfToken, CurrentUser, Error, Session, SignIn, Tokens, rate_limit, require_auth,
    require_claim, require_recent_auth,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Notify;

#[allow(dead_code, reason = "other tests need more of it")]
#[path = "../../../xtask/src/skips/tell.rs"]
pub mod skips;

/// Why a test on a real server can't be.
pub const NO_PROGRAM: &str = "no program `cloakroom` was built, and CLOAKROOM_BIN names none";

pub const ORIGIN: &str = "http://127.0.0.1:3000";

/// What a handler waits for, and what it tells when it has begun.
#[derive(Clone, Default)]
pub struct Doors {
    pub begun: Arc<Notify>,
    pub open: Arc<Notify>,
}

pub struct World {
    pub name: &'static str,
    pub cloakroom: Cloakroom,
    pub doors: Doors,
    pub node: Option<Node>,
    _dir: Option<tempfile::TempDir>,
}

/// All worlds that can be made here.
pub async fn worlds() -> Vec<World> {
    let mut worlds = vec![World::memory().await, World::embedded().await];
    match World::remote().await {
        Some(world) => worlds.push(world),
        None => skips::tell(NO_PROGRAM),
    }
    worlds
}

impl World {
    pub async fn memory() -> Self {
        Self::of("memory", Cloakroom::memory().await.expect("started"), None, None)
    }

    pub async fn embedded() -> Self {
        let dir = tempfile::TempDir::new().expect("a directory");
        let cloakroom = Cloakroom::embedded(dir.path().join("data")).await.expect("started");
        Self::of("embedded", cloakroom, None, Some(dir))
    }

    pub async fn remote() -> Option<Self> {
        let dir = tempfile::TempDir::new().expect("a directory");
        let node = Node::start(dir.path(), "127.0.0.1:0")?;
        let cloakroom = Cloakroom::remote(&node.admin, &node.key).await.expect("connected");
        Some(Self::of("remote", cloakroom, Some(node), Some(dir)))
    }

    fn of(
        name: &'static str,
        cloakroom: Cloakroom,
        node: Option<Node>,
        dir: Option<tempfile::TempDir>,
    ) -> Self {
        Self { name, cloakroom, doors: Doors::default(), node, _dir: dir }
    }

    pub fn dir(&self) -> &Path {
        self._dir.as_ref().expect("a directory").path()
    }

    pub fn app(&self) -> Router {
        let layer = self.cloakroom.layer().origin(ORIGIN).expect("an origin");
        self.app_behind(layer.sign_in_page("/login").without_session_limit())
    }

    pub fn app_behind(&self, layer: cloakroom_tower::CloakroomLayer) -> Router {
        routes(self.doors.clone()).layer(layer)
    }
}

#[derive(Deserialize)]
pub struct Grant {
    user: String,
    #[serde(default)]
    role: Option<String>,
}

impl Grant {
    fn sign_in(&self) -> SignIn {
        let grant = SignIn::new(&self.user);
        match &self.role {
            Some(role) => grant.claim("role", role.as_str()),
            None => grant,
        }
    }
}

#[derive(Deserialize)]
struct Role {
    role: String,
}

pub fn routes(doors: Doors) -> Router {
    let quota = Quota::new(2, Duration::from_secs(60)).expect("a quota");
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/me", get(|user: CurrentUser| async move { user.id().to_owned() }))
        .route("/maybe", get(maybe))
        .route("/role", get(|claims: Claims<Role>| async move { claims.0.role }))
        .route("/sign-in", post(sign_in))
        .route("/tokens", post(tokens))
        .route("/refresh", post(refresh))
        .route("/sign-out", post(|s: Session| async move { s.sign_out().await.map(|()| "out") }))
        .route("/everywhere", post(everywhere))
        .route("/csrf", get(|CsrfToken(token): CsrfToken| async move { token }))
        .route("/data/{key}", get(read).put(write).delete(remove))
        .route("/slow/{key}", post(slow))
        .route("/guarded", get(|| async { "in" }).layer(require_auth()))
        .route("/admin", get(|| async { "in" }).layer(require_claim("role", "admin")))
        .route("/fresh", get(|| async { "in" }).layer(require_recent_auth(Duration::ZERO)))
        .route("/limited", get(|| async { "in" }).layer(rate_limit("limited", quota)))
        .with_state(doors)
}

async fn maybe(session: Option<Session>, user: Option<CurrentUser>) -> Json<Value> {
    Json(json!({"session": session.is_some(), "user": user.map(|user| user.id().to_owned())}))
}

async fn sign_in(session: Session, Query(grant): Query<Grant>) -> Result<&'static str, Error> {
    session.sign_in(grant.sign_in()).await?;
    Ok("in")
}

async fn tokens(session: Session, Query(grant): Query<Grant>) -> Result<Json<Tokens>, Error> {
    session.issue_tokens(grant.sign_in()).await.map(Json)
}

async fn refresh(session: Session, token: String) -> Result<Json<Tokens>, Error> {
    session.refresh(&token).await.map(Json)
}

async fn everywhere(session: Session) -> Result<String, Error> {
    session.sign_out_everywhere().await.map(|ended| ended.to_string())
}

async fn read(session: Session, Segments(key): Segments<String>) -> Result<Json<Value>, Error> {
    Ok(Json(session.get(&key).await?.unwrap_or_default()))
}

async fn write(
    session: Session,
    Segments(key): Segments<String>,
    Json(value): Json<Value>,
) -> Result<&'static str, Error> {
    session.insert(&key, value).await?;
    Ok("kept")
}

async fn remove(session: Session, Segments(key): Segments<String>) -> Result<&'static str, Error> {
    session.remove(&key).await?;
    Ok("gone")
}

/// Reads everything first, as a handler does that was slow to decide.
async fn slow(
    State(doors): State<Doors>,
    session: Session,
    Segments(key): Segments<String>,
) -> Result<&'static str, Error> {
    let before: Option<Value> = session.get(&key).await?;
    doors.begun.notify_one();
    doors.open.notified().await;
    session.insert(&key, json!({"after": before})).await?;
    Ok("kept")
}

/// A server in a process of its own.
pub struct Node {
    child: Child,
    pub admin: String,
    pub key: String,
}

impl Node {
    /// Starts one; none where the program wasn't built.
    pub fn start(data: &Path, admin: &str) -> Option<Self> {
        let mut command = Command::new(program()?);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CLOAKROOM_") {
                command.env_remove(name);
            }
        }
        command.args(["serve", "--json", "--data"]).arg(data);
        command.env("CLOAKROOM_SERVER__PUBLIC", "127.0.0.1:0");
        command.env("CLOAKROOM_SERVER__ADMIN", admin);
        command.env("CLOAKROOM_STORE__PARTITIONS", "8");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let mut said = String::new();
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        while lines.read_line(&mut said).expect("readable") > 0 {
            if said.ends_with("}\n") {
                break;
            }
        }
        let told: Value = serde_json::from_str(&said).expect("JSON");
        let key = std::fs::read_to_string(data.join("root-api.key")).expect("a key");
        let admin = told["admin"].as_str().expect("a URL").to_owned();
        Some(Self { child, admin, key: key.trim().to_owned() })
    }

    /// Its address without the scheme.
    pub fn address(&self) -> &str {
        self.admin.trim_start_matches("http://").trim_end_matches('/')
    }

    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill").success());
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CLOAKROOM_BIN") {
        return Some(named.into());
    }
    let own = std::env::current_exe().ok()?;
    let built = own.parent()?.parent()?.join("cloakroom");
    built.exists().then_some(built)
}
