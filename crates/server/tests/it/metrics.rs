//! What a node tells of itself: `GET /metrics`, and the files in `ops/` that read it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cloakroom_server::metrics::{Family, Kind, gather};
use serde_json::{Value, json};

use crate::http::{Ask, send};
use crate::world::{ADA, PASSWORD, World, golden, login};

const QUIET: [(&str, &str); 2] = [("store.url", "memory:"), ("limit.network", "100000/1m")];

/// Every sample of a scrape, by its name and labels as written.
async fn scrape(world: &World) -> BTreeMap<String, f64> {
    let answer = world.admin(Ask::get("/metrics")).await;
    assert_eq!(answer.status, 200);
    let text = String::from_utf8(answer.body).expect("UTF-8");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

fn value(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    *samples.get(name).unwrap_or_else(|| panic!("no {name}"))
}

/// The names of a metric's samples.
fn sample_names(family: &Family) -> Vec<String> {
    let name = family.full_name();
    match family.kind {
        Kind::Counter => vec![format!("{name}_total")],
        Kind::Gauge => vec![name],
        Kind::Histogram => ["bucket", "sum", "count"].map(|end| format!("{name}_{end}")).to_vec(),
        Kind::Info => vec![format!("{name}_info")],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l1_metrics_need_a_key_and_any_key_will_do() {
    let world = World::start(&QUIET).await;
    let bare = world.send_admin(Ask::get("/metrics")).await;
    assert_eq!((bare.status, bare.code().as_str()), (401, "credentials_required"));
    let body = json!({"name": "prometheus", "scopes": ["events"]});
    let made = world.admin(Ask::post("/admin/v1/api-keys").json(&body)).await;
    let key = made.is(201).text("secret");
    let answer = send(world.admin, &Ask::get("/metrics").bearer(&key)).await;
    assert_eq!(answer.status, 200);
    let kind = answer.header("content-type").expect("a content type");
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(send(world.admin, &Ask::get("/metrics").bearer("cka_junk")).await.status, 401);
    let samples = scrape(&world).await;
    for outcome in ["missing", "refused"] {
        let name = format!("cloakroom_api_key_checks_total{{outcome=\"{outcome}\"}}");
        assert!((value(&samples, &name) - 1.0).abs() < 0.1, "{name}");
    }
    assert!(value(&samples, "cloakroom_api_key_checks_total{outcome=\"ok\"}") >= 2.0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_names_of_metrics_are_stable_and_as_the_conventions_have_them() {
    let world = World::start(&QUIET).await;
    let families = gather(world.running().site());
    let mut list = String::new();
    for family in &families {
        let name = family.full_name();
        assert!(name.starts_with("cloakroom_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert!(!name.ends_with("_total") && !name.ends_with("_info"), "{name}");
        assert!(!family.help.is_empty() && !family.help.ends_with('.'), "{name}");
        for (labels, _) in &family.points {
            assert_eq!(labels.len(), family.labels.len(), "{name}");
        }
        let kind = format!("{:?}", family.kind).to_lowercase();
        list.push_str(&format!("{name} {kind} {{{}}}\n", family.labels.join(",")));
    }
    let names: BTreeSet<String> = families.iter().map(Family::full_name).collect();
    assert_eq!(names.len(), families.len(), "a name stands for one metric");
    golden("metrics.txt", &list);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_counted_where_it_belongs() {
    let settings = [("store.url", "memory:"), ("limit.session", "6/1h"), ("refresh.grace", "1s")];
    let world = World::start(&settings).await;
    world.user(ADA).await;
    let mut browser = world.signed_in(ADA, "cookie").await;
    browser.send(Ask::get("/auth/session")).await.ok();
    let wrong = json!({"identifier": ADA, "password": "no such umbrella here"});
    assert_eq!(world.send(Ask::post("/auth/login").json(&wrong)).await.status, 401);
    let cookie = format!("session={}", browser.jar["session"]);
    let forged = |site: &'static str| {
        Ask::post("/auth/logout").cookie(&cookie).header("sec-fetch-site", site)
    };
    assert_eq!(world.send(forged("cross-site")).await.status, 403);
    assert_eq!(world.send(forged("same-origin")).await.status, 403);
    let first = world.tokens(ADA).await;
    let refresh = |token: &str| Ask::post("/auth/refresh").json(&json!({"refresh_token": token}));
    let token = first.text("refresh_token");
    let second = world.send(refresh(&token)).await;
    world.send(refresh(&token)).await.ok();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    world.send(refresh(&second.text("refresh_token"))).await.ok();
    assert_eq!(world.send(refresh(&token)).await.code(), "refresh_token_reused");
    let junk = Ask::get("/auth/session").bearer("junk");
    assert_eq!(world.send(junk).await.status, 401);
    for _ in 0..6 {
        world.send(Ask::get("/auth/sessions").cookie(&cookie)).await;
    }
    assert_eq!(world.send(Ask::get("/auth/sessions").cookie(&cookie)).await.status, 429);
    let samples = scrape(&world).await;
    for (name, count) in [
        ("cloakroom_signins_total{outcome=\"ok\"}", 2.0),
        ("cloakroom_signins_total{outcome=\"failed\"}", 1.0),
        ("cloakroom_sessions_opened_total", 2.0),
        ("cloakroom_sessions_ended_total{reason=\"refresh_reused\"}", 1.0),
        ("cloakroom_csrf_refusals_total{step=\"2\"}", 1.0),
        ("cloakroom_csrf_refusals_total{step=\"4\"}", 1.0),
        ("cloakroom_refreshes_total{outcome=\"rotated\"}", 2.0),
        ("cloakroom_refreshes_total{outcome=\"retried\"}", 1.0),
        ("cloakroom_refreshes_total{outcome=\"reused\"}", 1.0),
        ("cloakroom_verdicts_total{kind=\"access\",outcome=\"invalid\"}", 1.0),
        ("cloakroom_password_hashes_total", 4.0),
        ("cloakroom_password_hash_wait_seconds_count", 4.0),
        ("cloakroom_signing_keys{state=\"active\"}", 1.0),
        ("cloakroom_store_errors_total{operation=\"commit\",kind=\"unavailable\"}", 0.0),
        (
            "cloakroom_http_requests_total{listener=\"public\",route=\"/auth/session\",\
             method=\"GET\",status=\"200\"}",
            1.0,
        ),
    ] {
        assert!((value(&samples, name) - count).abs() < 0.5, "{name}: {}", samples[name]);
    }
    for at_least_one in [
        "cloakroom_rate_limited_total{limit=\"session\"}",
        "cloakroom_verdicts_total{kind=\"cookie\",outcome=\"live\"}",
        "cloakroom_cache_lookups_total{cache=\"sessions\",outcome=\"hit\"}",
        "cloakroom_cache_entries{cache=\"sessions\"}",
        "cloakroom_store_call_duration_seconds_count{operation=\"commit\"}",
        "cloakroom_touches_total{outcome=\"queued\"}",
        "process_start_time_seconds",
        "cloakroom_connections_accepted_total{listener=\"public\"}",
    ] {
        let found = samples.get(at_least_one).copied().unwrap_or_default();
        assert!(found >= 1.0 || at_least_one.contains("touches"), "{at_least_one}: {found}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_route_is_counted_by_its_template() {
    let world = World::start(&QUIET).await;
    for path in [
        "/auth/login",
        "/auth/refresh",
        "/auth/logout",
        "/auth/logout/all",
        "/auth/session",
        "/auth/sessions",
        "/auth/sessions/01J9ZQ6M5T4W8Y2K3N7P0R1S2V",
        "/auth/reauthenticate",
        "/auth/password",
        "/auth/csrf-token",
        "/auth/verify",
        "/auth/verify/default",
        "/oauth2/introspect",
        "/oauth2/revoke",
        "/oauth2/token",
        "/healthz",
        "/readyz",
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            world.send(Ask::new(method, path)).await;
        }
    }
    for (method, path, _) in cloakroom_server::admin::table() {
        if !path.contains("stream") && !path.contains('*') {
            let path = path.replace(['{', '}'], "");
            world.admin(Ask::new(method.as_str(), &path)).await;
        }
    }
    let samples = scrape(&world).await;
    let routes: BTreeSet<&str> = samples
        .keys()
        .filter_map(|name| name.split("route=\"").nth(1)?.split('"').next())
        .collect();
    // Without parameters a path tells its route whatever the method; with some, once it is routed.
    assert!(routes.contains("/auth/sessions/{sid}"), "{routes:?}");
    assert!(routes.contains("/auth/verify/{policy}"), "{routes:?}");
    for (_, path, _) in cloakroom_server::admin::table() {
        if !path.contains("stream") && !path.contains('*') {
            assert!(routes.contains(path), "{path}: {routes:?}");
        }
    }
    let unmatched: f64 = samples
        .iter()
        .filter(|(name, _)| name.starts_with("cloakroom_http_requests_total"))
        .filter(|(name, _)| name.contains("unmatched") && !name.contains("405"))
        .map(|(_, count)| count)
        .sum();
    assert!(unmatched < 0.5, "{unmatched} requests of known routes are counted as unknown");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m6_metrics_carry_no_identity_and_their_number_is_bounded() {
    let world = World::start(&QUIET).await;
    let user = world.user(ADA).await;
    let tokens = world.tokens(ADA).await;
    let sid = tokens.text("session.id");
    let before = scrape(&world).await;
    for round in 0..300 {
        let path = format!("/nowhere/{round}/{sid}");
        let ask = Ask::get(&path).header("user-agent", &format!("agent-{round}"));
        world.send(ask).await;
        let name = format!("nobody{round}@example.com");
        if round < 20 {
            world.send(login(&name, "bearer")).await;
        }
        world.admin(Ask::get(&format!("/admin/v1/subjects/usr_{round}"))).await;
    }
    let after = scrape(&world).await;
    let grown = after.len() - before.len();
    // One histogram and a few counters for each route that hadn't been asked before.
    assert!(grown < 80, "{grown} more series");
    let text = String::from_utf8(world.admin(Ask::get("/metrics")).await.body).expect("UTF-8");
    for hidden in [&sid, user.id.as_str(), ADA, "127.0.0.1", "agent-", "nobody1", "usr_", PASSWORD]
    {
        assert!(!text.contains(hidden), "{hidden} is in the metrics");
    }
    assert!(text.contains("/admin/v1/subjects/{subject}"), "the control");
    world.stop().await;
}

/// The names of metrics in an expression: what looks like one of ours.
fn names_in(expression: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expression.split(|c| !word(c));
    let ours = words.filter(|w| w.starts_with("cloakroom_") || w.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

fn repository(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every `expr` and `query` of a JSON document.
fn expressions(document: &Value, found: &mut Vec<String>) {
    match document {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "expr" || name == "query" => {
                        found.push(text.clone());
                    }
                    other => expressions(other, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_alerts_and_their_page_name_metrics_that_exist() {
    let world = World::start(&QUIET).await;
    let families = gather(world.running().site());
    let known: BTreeSet<String> = families.iter().flat_map(sample_names).collect();
    let dashboard: Value =
        serde_json::from_str(&repository("ops/grafana/cloakroom.json")).expect("JSON");
    let mut shown = Vec::new();
    expressions(&dashboard, &mut shown);
    assert!(shown.len() > 40, "the control: {}", shown.len());
    let shown: BTreeSet<String> = shown.iter().flat_map(|text| names_in(text)).collect();
    let alerts = repository("ops/prometheus/alerts.yml");
    let watched = names_in(&alerts);
    for name in shown.iter().chain(&watched) {
        assert!(known.contains(name), "{name} is no metric of ours");
    }
    for family in &families {
        let is_shown = sample_names(family).iter().any(|name| shown.contains(name));
        assert!(is_shown, "{} is on no panel", family.full_name());
    }
    let page = repository("docs/operate/monitoring.md");
    let named: Vec<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(named.len() > 10, "the control");
    for alert in named {
        assert!(page.contains(&format!("`{alert}`")), "{alert} is not explained");
    }
    for name in names_in(&page) {
        let is_family = families.iter().any(|family| family.full_name() == name);
        assert!(is_family || known.contains(&name), "{name} is no metric of ours");
    }
    world.stop().await;
}
