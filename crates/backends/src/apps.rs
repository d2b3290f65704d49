//! The axum applications that are measured: one protected route, with ours, with nothing, and with
//! what axum's users have otherwise.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use axum::extract::Query;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use clap::ValueEnum;
use cloakroom::core::rate::Quota;
use cloakroom::{Cloakroom, CurrentUser, Session, Tokens, WebError};
use cloakroom_bench::Outcome;
use serde::Deserialize;
use serde_json::{Value, json};
use tower_sessions::{MemoryStore, SessionManagerLayer, SessionStore};
use tower_sessions_redis_store::RedisStore;
use tower_sessions_redis_store::fred::clients::Pool;
use tower_sessions_redis_store::fred::interfaces::ClientLike as _;
use tower_sessions_redis_store::fred::types::config::Config;

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The route without anything.
    Bare,
    /// The authority in the application's process, over the embedded store.
    Embedded,
    /// The authority is the server of `CLOAKROOM_URL`.
    Remote,
    /// tower-sessions over its memory store.
    TowerMemory,
    /// tower-sessions over its Redis store, on `BENCH_REDIS_PORT`.
    TowerRedis,
}

/// Connections of tower-sessions to Redis: what the store's own example takes.
const REDIS_POOL: usize = 6;
/// Every session asks for more than any application's would: the limit is counted, never reached.
const REQUESTS_MAX: (u32, Duration) = (1_000_000, Duration::from_secs(60));

#[derive(Deserialize)]
struct Who {
    user: String,
}

/// Serves the application on `address` until the process is ended; its store, if it has one, lies
/// in `folder`.
pub fn serve(kind: Kind, address: &str, folder: &Path) -> Outcome<()> {
    // As many workers as this process has cores: one when it is pinned.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let router = match kind {
            Kind::Bare => bare(),
            Kind::Embedded => ours(&Cloakroom::embedded(folder).await?, address)?,
            Kind::Remote => {
                let (url, key) = (variable("CLOAKROOM_URL")?, variable("CLOAKROOM_API_KEY")?);
                ours(&Cloakroom::remote(&url, &key).await?, address)?
            }
            Kind::TowerMemory => theirs(MemoryStore::default()),
            Kind::TowerRedis => theirs(redis_store().await?),
        };
        let listener = tokio::net::TcpListener::bind(address).await?;
        Ok(axum::serve(listener, router).await?)
    })
}

fn variable(name: &str) -> io::Result<String> {
    std::env::var(name).map_err(|_| io::Error::other(format!("{name} isn't set")))
}

fn cart() -> BTreeMap<String, u32> {
    BTreeMap::from([("apple".to_owned(), 2)])
}

fn bare() -> Router {
    Router::new().route("/me", get(async || Json(json!({ "id": "ada" }))))
}

fn ours(cloakroom: &Cloakroom, address: &str) -> Outcome<Router> {
    async fn login(session: Session, Query(who): Query<Who>) -> Result<Json<Value>, WebError> {
        session.insert("cart", cart()).await?;
        session.sign_in(who.user).await?;
        Ok(Json(json!({})))
    }
    async fn tokens(session: Session, Query(who): Query<Who>) -> Result<Json<Tokens>, WebError> {
        session.issue_tokens(who.user).await.map(Json)
    }
    async fn me(user: CurrentUser) -> Json<Value> {
        Json(json!({ "id": user.id() }))
    }
    async fn cart_of(user: CurrentUser, session: Session) -> Result<Json<Value>, WebError> {
        let cart: BTreeMap<String, u32> = session.get("cart").await?.unwrap_or_default();
        Ok(Json(json!({ "id": user.id(), "cart": cart })))
    }
    let (count, window) = REQUESTS_MAX;
    let quota = Quota::new(count, window).map_err(|malformed| format!("{malformed:?}"))?;
    let layer = cloakroom.layer().origin(&format!("http://{address}"))?.session_limit(quota);
    Ok(Router::new()
        .route("/login", get(login))
        .route("/tokens", get(tokens))
        .route("/me", get(me))
        .route("/cart", get(cart_of))
        .layer(layer))
}

fn theirs<S: SessionStore + Clone>(store: S) -> Router {
    type Theirs = tower_sessions::Session;
    const BROKEN: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;

    async fn login(session: Theirs, Query(who): Query<Who>) -> Result<Json<Value>, StatusCode> {
        session.cycle_id().await.map_err(|_| BROKEN)?;
        session.insert("user", who.user).await.map_err(|_| BROKEN)?;
        session.insert("cart", cart()).await.map_err(|_| BROKEN)?;
        Ok(Json(json!({})))
    }
    async fn user_of(session: &Theirs) -> Result<String, StatusCode> {
        let user = session.get::<String>("user").await.map_err(|_| BROKEN)?;
        user.ok_or(StatusCode::UNAUTHORIZED)
    }
    async fn me(session: Theirs) -> Result<Json<Value>, StatusCode> {
        Ok(Json(json!({ "id": user_of(&session).await? })))
    }
    async fn cart_of(session: Theirs) -> Result<Json<Value>, StatusCode> {
        let user = user_of(&session).await?;
        let cart = session.get::<BTreeMap<String, u32>>("cart").await.map_err(|_| BROKEN)?;
        Ok(Json(json!({ "id": user, "cart": cart.unwrap_or_default() })))
    }
    Router::new()
        .route("/login", get(login))
        .route("/me", get(me))
        .route("/cart", get(cart_of))
        .layer(SessionManagerLayer::new(store).with_secure(false))
}

async fn redis_store() -> Outcome<RedisStore<Pool>> {
    let url = format!("redis://127.0.0.1:{}", variable("BENCH_REDIS_PORT")?);
    let pool = Pool::new(Config::from_url(&url)?, None, None, None, REDIS_POOL)?;
    pool.connect();
    pool.wait_for_connect().await?;
    Ok(RedisStore::new(pool))
}
