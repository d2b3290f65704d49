//! Session data: what concurrent requests do to it, and what an end does.

use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::browser::Browser;
use crate::world::worlds;

#[tokio::test(flavor = "multi_thread")]
async fn g4_requests_that_change_different_keys_lose_nothing() {
    for world in worlds().await {
        let mut browser = Browser::new(world.app());
        browser.post("/sign-in?user=ada").await.expect(200);
        let writers: Vec<_> = (0..20)
            .map(|n| {
                let mut browser = browser.clone();
                tokio::spawn(async move {
                    let body = json!({"n": n}).to_string();
                    browser.put(&format!("/data/k{n}"), &body).await.expect(200);
                })
            })
            .collect();
        for writer in writers {
            writer.await.expect("written");
        }
        for n in 0..20 {
            let read = browser.get(&format!("/data/k{n}")).await.expect(200).json();
            assert_eq!(read, json!({"n": n}), "{}", world.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_write_to_a_key_wins_whole() {
    for world in worlds().await {
        let mut browser = Browser::new(world.app());
        browser.post("/sign-in?user=ada").await.expect(200);
        browser.put("/data/k", r#"{"a": 1, "b": {"c": 2}}"#).await.expect(200);
        browser.put("/data/other", "1").await.expect(200);
        let slow = {
            let mut browser = browser.clone();
            tokio::spawn(async move { browser.post("/slow/k").await })
        };
        world.doors.begun.notified().await;
        browser.put("/data/k", r#"{"b": {"d": 3}}"#).await.expect(200);
        let read = browser.get("/data/k").await.expect(200).json();
        assert_eq!(read, json!({"b": {"d": 3}}), "{}: nothing of the former is left", world.name);
        browser.unsafe_(Method::DELETE, "/data/other", "").await.expect(200);
        world.doors.open.notify_one();
        slow.await.expect("joined").expect(200);
        let read = browser.get("/data/k").await.expect(200).json();
        assert_eq!(read, json!({"after": {"a": 1, "b": {"c": 2}}}), "{}", world.name);
        assert_eq!(browser.get("/data/other").await.expect(200).json(), json!(null));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g3_a_slow_request_brings_no_session_back() {
    for world in worlds().await {
        let mut browser = Browser::new(world.app());
        browser.post("/sign-in?user=ada").await.expect(200);
        let mut slow = browser.clone();
        let waiting = tokio::spawn(async move { slow.post("/slow/k").await });
        world.doors.begun.notified().await;
        let mut thief = browser.clone();
        browser.post("/sign-out").await.expect(200);
        world.doors.open.notify_one();
        let late = waiting.await.expect("joined").expect(200);
        assert!(late.set_cookie().is_none(), "{}: {late:?}", world.name);
        thief.get("/me").await.code(401, "session_ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
        thief.get("/me").await.code(401, "session_ended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_and_leaves_what_was_there() {
    for world in worlds().await {
        let mut browser = Browser::new(world.app());
        browser.post("/sign-in?user=ada").await.expect(200);
        browser.put("/data/k", "1").await.expect(200);
        let large = format!("\"{}\"", "x".repeat(20_000));
        browser.put("/data/k", &large).await.code(413, "body_too_large");
        assert_eq!(browser.get("/data/k").await.expect(200).json(), json!(1), "{}", world.name);
    }
}
