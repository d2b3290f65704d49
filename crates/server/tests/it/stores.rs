//! Two nodes on one store over the network: what one does, the other must know.

mod races;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cloakroom_server::serve::start;
use serde_json::json;
use tempfile::TempDir;

use crate::http::{Answer, Ask, send};
use crate::servers::{MASTER_KEY, Server, each, postgres, redis, redis_with};
use crate::world::{ADA, BOB, PASSWORD, World, config, login};

/// Two nodes.
struct Pair {
    one: World,
    two: World,
}

/// Tells a story of two nodes on each store.
async fn on_each_server(settings: &[(&str, &str)], story: impl AsyncFn(&Pair, &Server)) {
    for server in each().await {
        let own = server.settings();
        let all: Vec<_> = own.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let all: Vec<_> = all.into_iter().chain(settings.iter().copied()).collect();
        let pair = Pair { one: World::start(&all).await, two: World::start(&all).await };
        story(&pair, &server).await;
        pair.one.stop().await;
        pair.two.stop().await;
    }
}

/// Asks again until it is as it should be, or this much time has passed.
async fn within(span: Duration, mut is_so: impl AsyncFnMut() -> bool) -> Option<Duration> {
    let began_at = Instant::now();
    loop {
        if is_so().await {
            return Some(began_at.elapsed());
        }
        if began_at.elapsed() > span {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn refresh(token: &str) -> Ask {
    Ask::post("/auth/refresh").json(&json!({"refresh_token": token}))
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_the_store_and_its_promise() {
    on_each_server(&[], async |pair, server| {
        let ready = pair.one.send(Ask::get("/readyz")).await;
        assert_eq!(ready.ok().text("store"), server.name());
        assert_eq!(ready.text("durability"), "durable");
        let ahead = ready.at("store_clock_ahead_ms").as_i64().expect("a number");
        assert!(ahead.abs() < 100, "{ahead}");
    })
    .await;
    let Some(forgetful) = redis_with(&["--appendonly", "no"]).await else { return };
    let own = forgetful.settings();
    let all: Vec<_> = own.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let world = World::start(&all).await;
    assert_eq!(world.send(Ask::get("/readyz")).await.ok().text("durability"), "local");
    world.user(ADA).await;
    let access = world.tokens(ADA).await.text("access_token");
    let out = world.send(Ask::post("/auth/logout").bearer(&access)).await;
    assert_eq!(out.is(204).header("cloakroom-durability"), Some("local"));
    // What was over already is promised no more than that.
    let again = world.send(Ask::post("/auth/logout").bearer(&access)).await;
    assert_ne!(again.is(204).header("cloakroom-durability"), Some("durable"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_by_one_node_is_refused_by_the_other_at_once() {
    on_each_server(&[], async |Pair { one, two }, _| {
        one.user(ADA).await;
        for _ in 0..30 {
            let browser = one.signed_in(ADA, "cookie").await;
            let tokens = one.tokens(ADA).await;
            let (access, token) = (tokens.text("access_token"), tokens.text("refresh_token"));
            let by_cookie = Ask::get("/auth/session").cookie(&browser.cookie_line());
            two.send(by_cookie.clone()).await.ok();
            assert_eq!(two.alive(&access).await, Ok(()));
            let out = one.send(Ask::post("/auth/logout").bearer(&access)).await;
            assert_eq!(out.is(204).header("cloakroom-durability"), Some("durable"));
            assert_eq!(two.alive(&access).await, Err("session_ended".into()));
            two.send(refresh(&token)).await.refused(401, "session_ended");
            // Nobody else's session went with it.
            two.send(by_cookie).await.ok();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_cache_revoked_is_refused_within_the_staleness_that_is_allowed() {
    let settings = [("verify.cache", "true"), ("verify.max_staleness", "2s")];
    on_each_server(&settings, async |Pair { one, two }, server| {
        one.user(ADA).await;
        // The logs are followed from now on.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        for _ in 0..4 {
            let access = one.tokens(ADA).await.text("access_token");
            for _ in 0..3 {
                assert_eq!(two.alive(&access).await, Ok(()));
            }
            one.send(Ask::post("/auth/logout").bearer(&access)).await.is(204);
            // At once on the node that did it.
            assert_eq!(one.alive(&access).await, Err("session_ended".into()));
            let refused =
                within(Duration::from_secs(2), async || two.alive(&access).await.is_err());
            let refused = refused.await.unwrap_or_else(|| panic!("still alive: {}", server.name()));
            assert_eq!(two.alive(&access).await, Err("session_ended".into()), "{refused:?}");
        }
    })
    .await;
}

/// Followers read twice a second by themselves, so without being woken half of this would take
/// longer than a quarter of a second.
#[tokio::test(flavor = "multi_thread")]
async fn an_ending_on_one_node_wakes_the_other() {
    let settings = [("verify.cache", "true"), ("limit.session", "10000/1m")];
    on_each_server(&settings, async |Pair { one, two }, server| {
        one.user(ADA).await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let mut delays = Vec::new();
        for _ in 0..15 {
            let access = one.tokens(ADA).await.text("access_token");
            assert_eq!(two.alive(&access).await, Ok(()));
            one.send(Ask::post("/auth/logout").bearer(&access)).await.is(204);
            let refused =
                within(Duration::from_secs(5), async || two.alive(&access).await.is_err());
            delays.push(refused.await.unwrap_or_else(|| panic!("alive: {}", server.name())));
        }
        delays.sort();
        let median = delays[delays.len() / 2];
        assert!(median < Duration::from_millis(120), "{}: {delays:?}", server.name());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_once_read_its_cache_does_not_contradict() {
    let settings = [("verify.cache", "true"), ("verify.max_staleness", "10s")];
    on_each_server(&settings, async |Pair { one, two }, _| {
        one.user(ADA).await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        for _ in 0..10 {
            let tokens = one.tokens(ADA).await;
            let (access, sid) = (tokens.text("access_token"), tokens.text("session.id"));
            for _ in 0..3 {
                assert_eq!(two.alive(&access).await, Ok(()));
            }
            one.send(Ask::post("/auth/logout").bearer(&access)).await.is(204);
            // Data is never told from a cache, so this node has just been told.
            let data = two.admin(Ask::get(&format!("/admin/v1/sessions/{sid}/data"))).await;
            assert_ne!(data.status, 200);
            assert_eq!(two.alive(&access).await, Err("session_ended".into()));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g9_a_store_that_hangs_lets_no_cache_decide() {
    let settings =
        [("verify.cache", "true"), ("verify.max_staleness", "600ms"), ("store.timeout", "1s")];
    on_each_server(&settings, async |Pair { one, two }, server| {
        one.user(ADA).await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let access = one.tokens(ADA).await.text("access_token");
        assert_eq!(two.alive(&access).await, Ok(()));
        server.freeze();
        tokio::time::sleep(Duration::from_millis(700)).await;
        for _ in 0..3 {
            assert_eq!(two.alive(&access).await, Err("store_unavailable".into()));
        }
        server.thaw();
        let again = within(Duration::from_secs(5), async || two.alive(&access).await.is_ok());
        again.await.expect("it is asked again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_give_one_successor_to_one_refresh_token() {
    let limits = [("limit.session", "10000/1m"), ("limit.network", "10000/1m")];
    on_each_server(&limits, async |Pair { one, two }, _| {
        one.user(ADA).await;
        let mut token = one.tokens(ADA).await.text("refresh_token");
        for round in 0..200 {
            let ask = refresh(&token);
            let (left, right) = tokio::join!(one.send(ask.clone()), two.send(ask.clone()));
            let next = left.ok().text("refresh_token");
            assert_eq!(next, right.ok().text("refresh_token"), "round {round}");
            assert_ne!(next, token);
            token = next;
        }
        let access = two.send(refresh(&token)).await.ok().text("access_token");
        assert_eq!(one.alive(&access).await, Ok(()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_reused_on_another_node_ends_the_session_on_both() {
    on_each_server(&[("refresh.grace", "0")], async |Pair { one, two }, _| {
        one.user(ADA).await;
        let stolen = one.tokens(ADA).await.text("refresh_token");
        let second = one.send(refresh(&stolen)).await.ok().text("refresh_token");
        let third = two.send(refresh(&second)).await;
        assert_eq!(one.alive(&third.ok().text("access_token")).await, Ok(()));
        two.send(refresh(&stolen)).await.refused(401, "refresh_token_reused");
        let access = third.text("access_token");
        assert_eq!(one.alive(&access).await, Err("session_ended".into()));
        let last = third.text("refresh_token");
        one.send(refresh(&last)).await.refused(401, "session_ended");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_out_everywhere_is_so_on_every_node() {
    on_each_server(&[], async |Pair { one, two }, _| {
        let ada = one.user(ADA).await;
        one.user(BOB).await;
        let bob = two.tokens(BOB).await.text("access_token");
        let mut tokens = Vec::new();
        for node in [one, two, one, two] {
            tokens.push(node.tokens(ADA).await.text("access_token"));
        }
        for access in &tokens {
            assert_eq!(two.alive(access).await, Ok(()));
        }
        let path = format!("/admin/v1/subjects/{}/sessions", ada.id.as_str());
        let ended = one.admin(Ask::delete(&path)).await;
        assert_eq!(ended.ok().at("revoked"), 4);
        for access in &tokens {
            assert_eq!(two.alive(access).await, Err("session_ended".into()));
            assert_eq!(one.alive(access).await, Err("session_ended".into()));
        }
        assert_eq!(one.alive(&bob).await, Ok(()));
        // She may come back, on either.
        let access = two.tokens(ADA).await.text("access_token");
        assert_eq!(one.alive(&access).await, Ok(()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j10_failed_sign_ins_are_counted_by_all_nodes_together() {
    on_each_server(&[], async |Pair { one, two }, _| {
        one.user(ADA).await;
        one.user(BOB).await;
        let body = json!({"identifier": ADA, "password": "wrong", "delivery": "bearer"});
        let wrong = Ask::post("/auth/login").json(&body);
        for node in [one, two, one, two] {
            node.send(wrong.clone()).await.refused(401, "credentials_invalid");
        }
        // A success gives back what was counted.
        two.send(login(ADA, "bearer")).await.ok();
        for node in [one, two, one, two, one] {
            node.send(wrong.clone()).await.refused(401, "credentials_invalid");
        }
        for node in [one, two] {
            node.send(wrong.clone()).await.refused(429, "login_throttled");
            node.send(login(ADA, "bearer")).await.refused(429, "login_throttled");
        }
        one.send(login(BOB, "bearer")).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e10_a_key_revoked_by_one_node_verifies_nothing_on_the_other() {
    const STALENESS: Duration = Duration::from_secs(1);
    on_each_server(&[("verify.max_staleness", "1s")], async |Pair { one, two }, _| {
        one.user(ADA).await;
        let keys = async |node: &World| -> Vec<String> {
            let set = node.send(Ask::get("/.well-known/jwks.json")).await.ok().at("keys");
            let keys = set.as_array().expect("an array").iter();
            keys.map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
        };
        assert_eq!(keys(one).await, keys(two).await);
        let before = one.tokens(ADA).await.text("access_token");
        assert_eq!(two.alive(&before).await, Ok(()));
        let listed = one.admin(Ask::get("/admin/v1/keys")).await.ok().at("keys");
        let active = listed.as_array().expect("an array").iter();
        let mut active = active.filter(|key| key["state"] == "active");
        let kid = active.next().expect("an active key")["kid"].as_str().expect("text").to_owned();
        one.admin(Ask::post(&format!("/admin/v1/keys/{kid}/revoke"))).await.ok();
        assert!(one.alive(&before).await.is_err());
        // What is verified later than that was verified by keys that were read since.
        tokio::time::sleep(STALENESS).await;
        assert!(two.alive(&before).await.is_err());
        let followed =
            within(Duration::from_secs(10), async || !keys(two).await.contains(&kid)).await;
        followed.expect("the other node publishes it no more");
        assert_eq!(keys(one).await, keys(two).await);
        let after = one.tokens(ADA).await.text("access_token");
        assert_eq!(two.alive(&after).await, Ok(()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g11_only_the_stores_own_master_key_starts_and_namespaces_never_meet() {
    for server in each().await {
        let own = server.settings();
        let own: Vec<_> = own.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let world = World::start(&own).await;
        world.user(ADA).await;
        let tokens = world.tokens(ADA).await;
        let elsewhere = TempDir::new().expect("a directory");
        let other_key = ("master_key", "b3RoZXItdGVzdC1tYXN0ZXIta2V5LXR3by0wMDAwMDA");
        let wrong: Vec<_> = own.iter().copied().chain([other_key]).collect();
        let refused = start(config(&elsewhere, &wrong)).await.err().expect("refused");
        assert!(refused.to_string().contains("master key"), "{refused}");
        // The same server and the same key, and yet another store.
        let other: Vec<_> = own.iter().copied().chain([("store.namespace", "another")]).collect();
        let stranger = World::start(&other).await;
        let (access, token) = (tokens.text("access_token"), tokens.text("refresh_token"));
        assert_eq!(stranger.alive(&access).await, Err("token_invalid".into()));
        stranger.send(refresh(&token)).await.refused(401, "token_invalid");
        assert_eq!(world.alive(&access).await, Ok(()));
        stranger.stop().await;
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g11_a_master_key_is_changed_node_by_node_and_nobody_is_signed_out() {
    for server in each().await {
        let own = server.settings();
        let own: Vec<_> = own.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let (_, old) = *own.iter().find(|(key, _)| *key == "master_key").expect("a key");
        let new = ("master_key", "b3RoZXItdGVzdC1tYXN0ZXIta2V5LXR3by0wMDAwMDA");
        let with = |more: &[(&'static str, &'static str)]| -> Vec<(&str, String)> {
            let all = own.iter().filter(|(key, _)| *key != "master_key").chain(more);
            all.map(|(key, value)| (*key, (*value).to_owned())).collect()
        };
        let start_with = async |settings: Vec<(&str, String)>| {
            let settings: Vec<_> = settings.iter().map(|(k, v)| (*k, v.as_str())).collect();
            World::start(&settings).await
        };
        let before = World::start(&own).await;
        before.user(ADA).await;
        let access = before.tokens(ADA).await.text("access_token");
        let changing = || {
            let mut settings = with(&[new]);
            settings.push(("master_key_previous", old.to_owned()));
            settings
        };
        let first = start_with(changing()).await;
        assert_eq!(first.alive(&access).await, Ok(()));
        before.stop().await;
        let second = start_with(changing()).await;
        let rewrapped = async |node: &World| {
            node.admin(Ask::post("/admin/v1/keys/rewrap")).await.ok().at("rewrapped")
        };
        assert_eq!(rewrapped(&first).await, true);
        assert_eq!(rewrapped(&second).await, false);
        let events = second.admin(Ask::get("/admin/v1/events?type=key.rewrapped")).await;
        assert_eq!(events.ok().at("events").as_array().map(Vec::len), Some(1));
        let elsewhere = TempDir::new().expect("a directory");
        let refused = start(config(&elsewhere, &own)).await.err().expect("refused");
        assert!(refused.to_string().contains("master key"), "{refused}");
        let after = start_with(with(&[new])).await;
        for node in [&first, &second, &after] {
            assert_eq!(node.alive(&access).await, Ok(()));
        }
        for node in [first, second, after] {
            node.stop().await;
        }
    }
}

/// An answer of a node whose store is away: not a yes, not a no, and nothing that a browser keeps.
#[track_caller]
fn is_unsure(answer: &Answer) {
    assert_eq!(answer.refused(503, "store_unavailable").all("set-cookie"), [""; 0]);
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_without_the_store_nothing_is_granted_refused_or_forgotten() {
    on_each_server(&[("store.timeout", "1s")], async |Pair { one, .. }, server| {
        one.user(ADA).await;
        let browser = one.signed_in(ADA, "cookie").await;
        let tokens = one.tokens(ADA).await;
        let (access, token) = (tokens.text("access_token"), tokens.text("refresh_token"));
        let cookie = browser.cookie_line();
        let gone = one.tokens(ADA).await.text("access_token");
        one.send(Ask::post("/auth/logout").bearer(&gone)).await.is(204);
        server.freeze();
        let asks = [
            Ask::get("/auth/verify").cookie(&cookie),
            Ask::get("/auth/session").bearer(&access),
            Ask::get("/auth/session").bearer(&gone),
            login(ADA, "bearer"),
            refresh(&token),
            Ask::post("/auth/logout").bearer(&access),
            Ask::get("/readyz"),
        ];
        let began_at = Instant::now();
        for answer in answers(one, &asks).await {
            is_unsure(&answer);
        }
        assert!(began_at.elapsed() < Duration::from_secs(2), "{:?}", began_at.elapsed());
        // What shows nothing genuine is told so without the store.
        one.send(Ask::get("/auth/session")).await.refused(401, "credentials_required");
        let forged = format!("session=cks_{}", "A".repeat(100));
        let junk = one.send(Ask::get("/auth/session").cookie(&forged)).await;
        assert_eq!(junk.status, 401, "{junk:?}");
        one.send(Ask::get("/healthz")).await.ok();
        server.thaw();
        let back = within(Duration::from_secs(5), async || one.alive(&access).await.is_ok());
        back.await.expect("the store is used again");
        one.send(Ask::get("/auth/session").cookie(&cookie)).await.ok();
        assert_eq!(one.alive(&gone).await, Err("session_ended".into()));
        one.send(refresh(&token)).await.ok();
        one.send(Ask::get("/readyz")).await.ok();
    })
    .await;
}

/// Sends all at once.
async fn answers(node: &World, asks: &[Ask]) -> Vec<Answer> {
    let address = node.public;
    let sent: Vec<_> = asks
        .iter()
        .cloned()
        .map(|ask| tokio::spawn(async move { send(address, &ask).await }))
        .collect();
    let mut answers = Vec::new();
    for answer in sent {
        answers.push(answer.await.expect("an answer"));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_a_store_killed_and_started_again_has_what_was_acknowledged() {
    let Some(mut server) = redis().await else { return };
    let own = server.settings();
    let all: Vec<_> = own.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let world = World::start(&all).await;
    world.user(ADA).await;
    let lives = world.tokens(ADA).await.text("access_token");
    let ended = world.tokens(ADA).await.text("access_token");
    world.send(Ask::post("/auth/logout").bearer(&ended)).await.is(204);
    let Server::Redis(process) = &mut server else { panic!("not Redis") };
    process.kill();
    is_unsure(&world.send(Ask::get("/auth/session").bearer(&lives)).await);
    is_unsure(&world.send(Ask::post("/auth/logout").bearer(&lives)).await);
    process.restart();
    process.wait_until_ready();
    let back = within(Duration::from_secs(5), async || world.alive(&lives).await.is_ok()).await;
    back.expect("the store is used again");
    assert_eq!(world.alive(&ended).await, Err("session_ended".into()));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_waits_for_a_store_that_comes_up_after_it() {
    let Some(mut server) = redis().await else { return };
    let Server::Redis(process) = &mut server else { panic!("not Redis") };
    process.kill();
    let url = format!("redis://127.0.0.1:{}", process.port);
    let settings = [("store.url", url.as_str()), ("master_key", MASTER_KEY)];
    let (world, ()) = tokio::join!(World::start(&settings), async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        process.restart();
    });
    world.send(Ask::get("/readyz")).await.ok();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_is_one_nodes() {
    let Some(server) = redis().await else { return };
    let own = server.settings();
    let own: Vec<_> = own.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let world = World::start(&own).await;
    let refused = start(config(&world.directory, &own)).await.err().expect("refused");
    assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
    let directory = world.stop().await;
    World::start_in(directory, &own).await.stop().await;
}

/// Runs a command of `cloakroom store` with these settings.
fn store_command(arguments: &[&str], settings: &[(&str, String)], data: &TempDir) -> String {
    let variables = settings.iter().map(|(key, value)| {
        (format!("CLOAKROOM_{}", key.to_ascii_uppercase().replace('.', "__")), value)
    });
    let output = Command::new(env!("CARGO_BIN_EXE_cloakroom"))
        .arg("store")
        .args(arguments)
        .arg("--data")
        .arg(data.path().join("data"))
        .envs(variables)
        .stdin(Stdio::null())
        .output()
        .expect("the program");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_move_from_store_to_store_and_stay_what_they_were() {
    let servers = each().await;
    let Some(first) = servers.first() else { return };
    let first = first.settings();
    let at_first: Vec<_> = first.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let world = World::start(&at_first).await;
    world.user(ADA).await;
    let kept = world.tokens(ADA).await;
    let ended = world.tokens(ADA).await.text("access_token");
    world.send(Ask::post("/auth/logout").bearer(&ended)).await.is(204);
    let events = world.admin(Ask::get("/admin/v1/events?limit=200")).await.ok().at("events");
    let events = events.as_array().expect("an array").len();
    let directory = world.stop().await;
    let info = store_command(&["info", "--json"], &first, &directory);
    assert!(info.contains("\"partitions\": 4") && !info.contains("\"created_at\": null"), "{info}");
    let mut from = first.iter().find(|(key, _)| *key == "store.url").expect("a URL").1.clone();
    let mut token = kept.text("refresh_token");
    let file = format!("file:{}", directory.path().join("data").display());
    let urls = servers.iter().skip(1).map(Server::url).chain([file]);
    for to in urls {
        let copied = store_command(&["copy", "--from", &from, "--to", &to], &first, &directory);
        assert!(copied.contains("copied and compared"), "{copied}");
        let settings = at_first.iter().copied().filter(|(key, _)| *key != "store.url");
        let settings: Vec<_> = settings.chain([("store.url", to.as_str())]).collect();
        let here = TempDir::new().expect("a directory");
        if to.starts_with("file:") {
            // The copy is in the first node's directory; that directory is now this node's.
            let data = directory.path().join("data");
            std::fs::rename(data, here.path().join("data")).expect("moved");
        }
        let is_network = |(key, _): &(&str, &str)| *key != "store.url" || !to.starts_with("file:");
        let settings: Vec<_> = settings.into_iter().filter(is_network).collect();
        let world = World::start_in(here, &settings).await;
        let next = world.send(refresh(&token)).await;
        assert_eq!(world.alive(&next.ok().text("access_token")).await, Ok(()), "{to}");
        token = next.text("refresh_token");
        assert_eq!(world.alive(&ended).await, Err("session_ended".into()), "{to}");
        world.send(login(ADA, "bearer")).await.ok();
        let here = world.admin(Ask::get("/admin/v1/events?limit=200")).await.ok().at("events");
        assert!(here.as_array().expect("an array").len() > events, "{to}");
        world.stop().await;
        from = to;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_us_is_one_plain_sentence_and_exit_code_3() {
    let guarded = redis_with(&["--requirepass", PASSWORD]).await;
    let urls = guarded.iter().map(|server| server.url().replace("//", "//:hush@"));
    let database = postgres().await;
    let wrong = database.iter().flat_map(|server| {
        let url = server.url();
        let elsewhere = url.replace("/postgres", "/nowhere").replace("//nowhere", "//postgres");
        [url.replace("//postgres:", "//postgres:hush"), elsewhere]
    });
    for url in urls.chain(wrong) {
        let directory = TempDir::new().expect("a directory");
        let output = Command::new(env!("CARGO_BIN_EXE_cloakroom"))
            .args(["serve", "--data"])
            .arg(directory.path())
            .env("CLOAKROOM_STORE__URL", &url)
            .env("CLOAKROOM_MASTER_KEY", MASTER_KEY)
            .env("CLOAKROOM_SERVER__PUBLIC", "127.0.0.1:0")
            .env("CLOAKROOM_SERVER__ADMIN", "127.0.0.1:0")
            .stdin(Stdio::null())
            .output()
            .expect("the program");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{said}");
        let errors: Vec<_> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].starts_with("error: store: "), "{said}");
        assert!(!said.contains("hush") && !said.contains(MASTER_KEY), "{said}");
    }
}
