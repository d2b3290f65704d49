//! What tower-sessions expects of a store, and what it can't ask for. Every promise is checked of
//! its own memory store too, so that none is ours alone.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use cloakroom::Cloakroom;
use cloakroom_tower_sessions::CloakroomStore;
use http::Request;
use http::header::{COOKIE, SET_COOKIE};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use tower_sessions::session::{Id, Record};
use tower_sessions::{
    CachingSessionStore, Expiry, MemoryStore, Session, SessionManagerLayer, SessionStore,
};

async fn ours() -> CloakroomStore {
    CloakroomStore::new(Cloakroom::memory().await.expect("started").guard())
}

async fn stores() -> Vec<(&'static str, Arc<dyn SessionStore>)> {
    let caching = CachingSessionStore::new(MemoryStore::default(), ours().await);
    vec![
        ("its own", Arc::new(MemoryStore::default())),
        ("ours", Arc::new(ours().await)),
        ("ours behind its cache", Arc::new(caching)),
    ]
}

/// A record that ends so many milliseconds from now. Whole ones: that is what both keep.
fn record(ends_in_ms: i64) -> Record {
    let now = time::OffsetDateTime::now_utc();
    let end = now.replace_millisecond(now.millisecond()).expect("a time");
    Record {
        id: Id::default(),
        data: [("k".to_owned(), serde_json::json!({"a": [1, null]}))].into_iter().collect(),
        expiry_date: end + time::Duration::milliseconds(ends_in_ms),
    }
}

#[tokio::test]
async fn what_is_created_saved_and_deleted_is_loaded_so() {
    for (name, store) in stores().await {
        let mut kept = record(60_000);
        assert_eq!(store.load(&kept.id).await.expect("loaded"), None, "{name}");
        store.create(&mut kept).await.expect("created");
        assert_eq!(store.load(&kept.id).await.expect("loaded").as_ref(), Some(&kept), "{name}");
        kept.data.insert("other".to_owned(), 1.into());
        kept.data.remove("k");
        kept.expiry_date += time::Duration::minutes(5);
        store.save(&kept).await.expect("saved");
        assert_eq!(store.load(&kept.id).await.expect("loaded").as_ref(), Some(&kept), "{name}");
        store.delete(&kept.id).await.expect("deleted");
        assert_eq!(store.load(&kept.id).await.expect("loaded"), None, "{name}");
        store.delete(&kept.id).await.expect("deleting nothing is no fault");
    }
}

#[tokio::test]
async fn an_id_that_is_taken_is_another_ones() {
    for (name, store) in stores().await {
        let mut first = record(60_000);
        store.create(&mut first).await.expect("created");
        let mut second = Record { id: first.id, ..record(60_000) };
        second.data.clear();
        store.create(&mut second).await.expect("created");
        assert_ne!(first.id, second.id, "{name}");
        assert_eq!(store.load(&first.id).await.expect("loaded"), Some(first), "{name}");
    }
}

#[tokio::test]
async fn what_has_expired_is_not_loaded() {
    for (name, store) in stores().await {
        let mut kept = record(300);
        store.create(&mut kept).await.expect("created");
        assert!(store.load(&kept.id).await.expect("loaded").is_some(), "{name}");
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        assert_eq!(store.load(&kept.id).await.expect("loaded"), None, "{name}");
    }
}

#[tokio::test]
async fn g3_a_save_after_a_delete_brings_nothing_back() {
    let store = ours().await;
    let mut kept = record(60_000);
    store.create(&mut kept).await.expect("created");
    store.delete(&kept.id).await.expect("deleted");
    store.save(&kept).await.expect("a slow request isn't punished");
    assert_eq!(store.load(&kept.id).await.expect("loaded"), None);
    // Its own store has it back: that is the difference.
    let own = MemoryStore::default();
    own.create(&mut kept).await.expect("created");
    own.delete(&kept.id).await.expect("deleted");
    own.save(&kept).await.expect("saved");
    assert!(own.load(&kept.id).await.expect("loaded").is_some());
}

async fn ask(app: &Router, path: &str, cookie: Option<&str>) -> (String, Option<String>) {
    let mut request = Request::get(path);
    if let Some(cookie) = cookie {
        request = request.header(COOKIE, cookie);
    }
    let request = request.body(Body::empty()).expect("a request");
    let answer = app.clone().oneshot(request).await.expect("infallible");
    let line = answer.headers().get(SET_COOKIE).and_then(|line| line.to_str().ok());
    let pair = line.and_then(|line| line.split(';').next()).map(str::to_owned);
    let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
    (String::from_utf8_lossy(&bytes).into_owned(), pair)
}

#[tokio::test]
async fn its_layer_works_on_either_store_alike() {
    async fn count(session: Session) -> String {
        let n: u32 = session.get("n").await.expect("readable").unwrap_or(0) + 1;
        session.insert("n", n).await.expect("written");
        n.to_string()
    }
    async fn cycle(session: Session) -> &'static str {
        session.cycle_id().await.expect("cycled");
        "cycled"
    }
    async fn flush(session: Session) -> &'static str {
        session.flush().await.expect("flushed");
        "flushed"
    }
    let routes = || {
        Router::new()
            .route("/count", get(count))
            .route("/cycle", get(cycle))
            .route("/flush", get(flush))
    };
    let expiry = || Expiry::OnInactivity(time::Duration::minutes(5));
    let own = SessionManagerLayer::new(MemoryStore::default()).with_expiry(expiry());
    let ours = SessionManagerLayer::new(ours().await).with_expiry(expiry());
    for app in [routes().layer(own), routes().layer(ours)] {
        let (n, cookie) = ask(&app, "/count", None).await;
        assert_eq!(n, "1");
        let first = cookie.expect("a cookie");
        assert_eq!(ask(&app, "/count", Some(&first)).await.0, "2");
        let second = ask(&app, "/cycle", Some(&first)).await.1.expect("a new cookie");
        assert_ne!(first, second);
        assert_eq!(ask(&app, "/count", Some(&second)).await.0, "3");
        assert_eq!(ask(&app, "/count", Some(&first)).await.0, "1", "the old id is nobody's");
        ask(&app, "/flush", Some(&second)).await;
        assert_eq!(ask(&app, "/count", Some(&second)).await.0, "1");
    }
}
