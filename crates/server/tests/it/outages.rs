//! What a node answers while something is wrong with its store. `docs/operate/outages.md` has the
//! same as a table, each cell with one of these tests.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cli_world::{Node, program, run};
use crate::http::{Answer, Ask, send};
use crate::proxy::Proxy;
use crate::servers::{Server, each, is_there, redis_with};
use crate::world::{ADA, World, login};

/// A node that reaches its store by way of a proxy.
struct Apart {
    world: World,
    proxy: Proxy,
    _server: Server,
}

/// Somebody who was there before it went wrong.
struct Before {
    cookie: String,
    access: String,
    refresh: String,
    sid: String,
    /// An access token of a session that was ended.
    ended: String,
}

const TIMEOUT: Duration = Duration::from_secs(1);
/// Machines that run tests are slow now and then.
const SLACK: Duration = Duration::from_millis(800);

/// Tells a story of a node behind a proxy, on each store.
async fn on_each(settings: &[(&str, &str)], story: impl AsyncFn(&Apart)) {
    for server in each().await {
        let proxy = Proxy::start(server.port()).await;
        let (ours, theirs) = (format!(":{}", proxy.port), format!(":{}", server.port()));
        let own = server.settings();
        let own: Vec<_> =
            own.into_iter().map(|(key, value)| (key, value.replace(&theirs, &ours))).collect();
        let own = own.iter().map(|(key, value)| (*key, value.as_str()));
        let own = own.chain([("store.timeout", "1s")]).chain(settings.iter().copied());
        let world = World::start(&own.collect::<Vec<_>>()).await;
        let apart = Apart { world, proxy, _server: server };
        story(&apart).await;
        apart.proxy.mend();
        apart.proxy.slow(Duration::ZERO);
        apart.world.stop().await;
    }
}

impl Before {
    async fn of(world: &World) -> Self {
        world.user(ADA).await;
        let browser = world.signed_in(ADA, "cookie").await;
        let ended = world.tokens(ADA).await.text("access_token");
        world.send(Ask::post("/auth/logout").bearer(&ended)).await.is(204);
        let tokens = world.tokens(ADA).await;
        Self {
            cookie: browser.cookie_line(),
            access: tokens.text("access_token"),
            refresh: tokens.text("refresh_token"),
            sid: tokens.text("session.id"),
            ended,
        }
    }

    /// What only reads.
    fn reads(&self) -> Vec<Ask> {
        vec![
            Ask::get("/auth/verify").cookie(&self.cookie).header("sec-fetch-site", "same-origin"),
            Ask::get("/auth/session").cookie(&self.cookie),
            Ask::get("/auth/session").bearer(&self.access),
        ]
    }

    /// What changes something: sign-in, refresh, logout, sign-out everywhere.
    fn changes(&self) -> Vec<Ask> {
        vec![
            login(ADA, "bearer"),
            login(ADA, "cookie"),
            Ask::post("/auth/refresh").json(&json!({"refresh_token": self.refresh})),
            Ask::post("/auth/logout").bearer(&self.access),
            Ask::post("/auth/logout/all").bearer(&self.access),
        ]
    }

    /// What backends change: an ending, an opening, data.
    fn admin_changes(&self, world: &World) -> Vec<Ask> {
        let session = format!("/admin/v1/sessions/{}", self.sid);
        let asks = [
            Ask::delete(&session),
            Ask::post("/admin/v1/sessions").json(&json!({"subject": "eve"})),
            Ask::new("PUT", &format!("{session}/data")).json(&json!({"n": 1})),
        ];
        asks.map(|ask| ask.bearer(&world.root_key)).to_vec()
    }

    /// Changes are taken, each at the first try, and none of them ends what is looked at later.
    async fn can_change(&self, world: &World) {
        let tokens = world.tokens(ADA).await;
        let (access, token) = (tokens.text("access_token"), tokens.text("refresh_token"));
        let refresh = Ask::post("/auth/refresh").json(&json!({"refresh_token": token}));
        world.send(refresh).await.ok();
        let data = format!("/admin/v1/sessions/{}/data", self.sid);
        world.admin(Ask::new("PUT", &data).json(&json!({"n": 2}))).await.ok();
        world.send(Ask::post("/auth/logout").bearer(&access)).await.is(204);
        assert_eq!(world.alive(&access).await, Err("session_ended".into()));
    }

    /// All of it is as it was: nobody is signed out, nobody is in who wasn't.
    async fn is_untouched(&self, world: &World) {
        for ask in self.reads() {
            world.send(ask).await.ok();
        }
        assert_eq!(world.alive(&self.ended).await, Err("session_ended".into()));
        let refresh = Ask::post("/auth/refresh").json(&json!({"refresh_token": self.refresh}));
        world.send(refresh).await.ok();
        world.send(Ask::get("/readyz")).await.ok();
    }
}

/// Not a yes, not a no, and nothing that a browser keeps.
#[track_caller]
fn is_unsure(answer: &Answer) {
    assert_eq!(answer.refused(503, "store_unavailable").all("set-cookie"), [""; 0]);
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
}

/// Sends all at once, to one listener.
async fn answers(address: std::net::SocketAddr, asks: Vec<Ask>) -> Vec<Answer> {
    let sent: Vec<_> = asks
        .into_iter()
        .map(|ask| tokio::spawn(async move { send(address, &ask).await }))
        .collect();
    let mut answers = Vec::new();
    for answer in sent {
        answers.push(answer.await.expect("an answer"));
    }
    answers
}

/// Waits until a store that is there again is used again.
async fn is_used_again(world: &World, access: &str, within: Duration) {
    let mended_at = Instant::now();
    while world.alive(access).await.is_err() {
        assert!(mended_at.elapsed() < within, "it isn't used again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything that a credential is for is 503, within this time.
async fn nothing_is_known(world: &World, before: &Before, within: Duration) {
    let asks = before
        .reads()
        .into_iter()
        .chain(before.changes())
        .chain([Ask::get("/auth/session").bearer(&before.ended), Ask::get("/readyz")]);
    let began_at = Instant::now();
    for answer in answers(world.public, asks.collect()).await {
        is_unsure(&answer);
    }
    for answer in answers(world.admin, before.admin_changes(world)).await {
        is_unsure(&answer);
    }
    assert!(began_at.elapsed() < within, "{:?}", began_at.elapsed());
}

/// Who shows nothing genuine is answered without the store, and the process is healthy.
async fn nobody_is_told_so(world: &World) {
    let began_at = Instant::now();
    world.send(Ask::get("/auth/session")).await.refused(401, "credentials_required");
    world.send(Ask::get("/auth/verify")).await.refused(401, "credentials_required");
    let forged = format!("session=cks_{}", "A".repeat(100));
    assert_eq!(world.send(Ask::get("/auth/session").cookie(&forged)).await.status, 401);
    world.send(Ask::get("/healthz")).await.ok();
    world.send(Ask::get("/.well-known/jwks.json")).await.ok();
    assert!(began_at.elapsed() < SLACK, "{:?}", began_at.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_an_unreachable_store_is_503_and_used_again_within_a_second() {
    on_each(&[("limit.network", "10000/1m")], async |Apart { world, proxy, .. }| {
        let before = Before::of(world).await;
        proxy.cut();
        nothing_is_known(world, &before, TIMEOUT * 2 + SLACK).await;
        nobody_is_told_so(world).await;
        // Everybody comes back at once.
        let opened = proxy.opened();
        proxy.mend();
        is_used_again(world, &before.access, Duration::from_secs(1)).await;
        let crowd = vec![Ask::get("/auth/session").bearer(&before.access); 200];
        for answer in answers(world.public, crowd).await {
            answer.ok();
        }
        // `store.pool` is 4, and one or two watch the log.
        let more = proxy.opened() - opened;
        assert!(more <= 8, "{more} connections for 200 requests");
        before.is_untouched(world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_a_slow_store_is_waited_for_until_the_deadline() {
    on_each(&[], async |Apart { world, proxy, .. }| {
        let before = Before::of(world).await;
        proxy.slow(Duration::from_millis(60));
        for ask in before.reads() {
            world.send(ask).await.ok();
        }
        before.can_change(world).await;
        world.send(Ask::get("/readyz")).await.ok();
        proxy.slow(TIMEOUT * 3);
        nothing_is_known(world, &before, TIMEOUT * 2 + SLACK).await;
        nobody_is_told_so(world).await;
        proxy.slow(Duration::ZERO);
        // What was asked meanwhile may have taken effect: a logout too, so nobody is held to it.
        let mended_at = Instant::now();
        while world.send(Ask::get("/auth/session").cookie(&before.cookie)).await.status == 503 {
            assert!(mended_at.elapsed() < TIMEOUT * 4, "it isn't used again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(world.alive(&before.ended).await, Err("session_ended".into()));
        world.send(login(ADA, "bearer")).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_more_calls_than_connections_wait_and_then_are_503() {
    let settings =
        [("store.pool", "2"), ("limit.session", "100000/1m"), ("limit.verify", "100000/1m")];
    on_each(&settings, async |Apart { world, proxy, .. }| {
        let before = Before::of(world).await;
        let crowd: Vec<_> = (0..120).flat_map(|_| before.reads()).collect();
        proxy.slow(Duration::from_millis(100));
        let waited = answers(world.public, crowd.clone()).await;
        let (served, late): (Vec<_>, Vec<_>) =
            waited.into_iter().partition(|answer| answer.status == 200);
        assert!(!served.is_empty(), "nobody's turn came");
        // From now on no turn comes in time for most.
        proxy.slow(TIMEOUT * 7 / 10);
        let mut queue: Vec<_> = (0..10).map(|_| Ask::get("/readyz")).collect();
        queue.push(login(ADA, "bearer"));
        let refresh = json!({"refresh_token": before.refresh});
        queue.push(Ask::post("/auth/refresh").json(&refresh));
        let data = format!("/admin/v1/sessions/{}/data", before.sid);
        let data = Ask::new("PUT", &data).json(&json!({"n": 3})).bearer(&world.root_key);
        let began_at = Instant::now();
        let (read, queued, changed) = tokio::join!(
            answers(world.public, crowd),
            answers(world.public, queue),
            answers(world.admin, vec![data]),
        );
        // A sign-in asks up to four times, each with a deadline of its own.
        assert!(began_at.elapsed() < TIMEOUT * 4 + SLACK, "{:?}", began_at.elapsed());
        let unsure: Vec<_> = read.iter().filter(|answer| answer.status != 200).collect();
        assert!(!unsure.is_empty(), "all were served");
        let (ready, changes) = queued.split_at(10);
        let not_ready: Vec<_> = ready.iter().filter(|answer| answer.status != 200).collect();
        assert!(!not_ready.is_empty(), "ready, whoever waits");
        // A change takes two calls.
        for answer in
            unsure.into_iter().chain(not_ready).chain(&late).chain(changes).chain(&changed)
        {
            is_unsure(answer);
        }
        nobody_is_told_so(world).await;
        proxy.slow(Duration::ZERO);
        is_used_again(world, &before.access, TIMEOUT * 2).await;
        before.is_untouched(world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g6_anonymous_requests_touch_no_store() {
    on_each(&[("limit.network", "100000/1m")], async |Apart { world, proxy, .. }| {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (asked, began_at) = (proxy.asked(), Instant::now());
        let forged = format!("session=cks_{}", "A".repeat(100));
        for _ in 0..100 {
            world.send(Ask::get("/auth/session")).await.is(401);
            world.send(Ask::get("/auth/verify")).await.is(401);
            world.send(Ask::get("/auth/session").cookie(&forged)).await.is(401);
            world.send(Ask::get("/auth/session").bearer("a.b.c")).await.is(401);
        }
        // A node follows its keys twice a second and has chores, whoever asks.
        let by_itself = 40 + began_at.elapsed().as_millis() / 25;
        let more = proxy.asked() - asked;
        assert!((more as u128) < by_itself, "{more} questions in {:?}", began_at.elapsed());
        assert!(more < 300, "{more}");
    })
    .await;
}

/// A way in which a store takes no writes, and the way back.
struct NoWrites {
    name: &'static str,
    begin: Vec<Vec<String>>,
    end: Vec<Vec<String>>,
}

fn words(lines: &[&str]) -> Vec<Vec<String>> {
    let words = |line: &&str| line.split(' ').map(str::to_owned).collect();
    lines.iter().map(words).collect()
}

fn ways() -> Vec<NoWrites> {
    let way = |name, begin: &[&str], end: &[&str]| NoWrites {
        name,
        begin: words(begin),
        end: words(end),
    };
    vec![
        way("-READONLY", &["REPLICAOF 127.0.0.1 1"], &["REPLICAOF NO ONE"]),
        way("-OOM", &["CONFIG SET maxmemory 1mb"], &["CONFIG SET maxmemory 0"]),
        way(
            "-NOREPLICAS",
            &["CONFIG SET min-replicas-to-write 1"],
            &["CONFIG SET min-replicas-to-write 0"],
        ),
    ]
}

/// Verdicts are served, and no change is: none of it happened.
async fn only_reads(world: &World, before: &Before, name: &str) {
    for ask in before.reads() {
        assert_eq!(world.send(ask).await.status, 200, "{name}");
    }
    for ask in before.changes() {
        is_unsure(&world.send(ask).await);
    }
    for ask in before.admin_changes(world) {
        is_unsure(&world.send_admin(ask).await);
    }
    assert_eq!(world.alive(&before.ended).await, Err("session_ended".into()), "{name}");
    assert_eq!(world.send(Ask::get("/readyz")).await.status, 200, "{name}");
    nobody_is_told_so(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_a_redis_that_takes_no_writes_serves_verdicts_and_refuses_changes() {
    let Some(server) = redis_with(&["--appendonly", "yes"]).await else { return };
    let Server::Redis(process) = &server else { panic!("not Redis") };
    let own = server.settings();
    let own = own.iter().map(|(key, value)| (*key, value.as_str()));
    let world = World::start(&own.chain([("store.timeout", "1s")]).collect::<Vec<_>>()).await;
    let before = Before::of(&world).await;
    let tell = |lines: &[Vec<String>]| {
        for line in lines {
            let line: Vec<_> = line.iter().map(String::as_str).collect();
            assert_eq!(process.cli(&line), "OK");
        }
    };
    for way in ways() {
        tell(&way.begin);
        only_reads(&world, &before, way.name).await;
        tell(&way.end);
        before.can_change(&world).await;
    }
    // A full disk: what it saves can't be put in its place.
    std::fs::create_dir(process.dir.path().join("dump.rdb")).expect("a directory");
    std::fs::write(process.dir.path().join("dump.rdb/in-the-way"), "").expect("a file");
    assert_eq!(process.cli(&["CONFIG", "SET", "save", "3600 1"]), "OK");
    process.cli(&["BGSAVE"]);
    let failed = || process.cli(&["INFO", "persistence"]).contains("bgsave_status:err");
    let began_at = Instant::now();
    while !failed() {
        assert!(began_at.elapsed() < Duration::from_secs(10), "it could save");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    only_reads(&world, &before, "-MISCONF").await;
    assert_eq!(process.cli(&["CONFIG", "SET", "save", ""]), "OK");
    before.can_change(&world).await;
    before.is_untouched(&world).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g5_a_postgres_that_takes_no_writes_serves_verdicts_and_refuses_changes() {
    for server in each().await {
        let Server::Postgres(postgres) = &server else { continue };
        let own = server.settings();
        let schema = own.iter().find(|(key, _)| *key == "store.namespace").expect("one").1.clone();
        let own = own.iter().map(|(key, value)| (*key, value.as_str()));
        let world = World::start(&own.chain([("store.timeout", "1s")]).collect::<Vec<_>>()).await;
        let before = Before::of(&world).await;
        let client = postgres.client().await;
        let tell = async |lines: &[&str]| {
            for line in lines {
                client.batch_execute(line).await.expect("done");
            }
            // Servers read their settings again when they are told to, each in its own time.
            tokio::time::sleep(Duration::from_millis(300)).await;
        };
        let read_only = "ALTER SYSTEM SET default_transaction_read_only = on";
        tell(&[read_only, "SELECT pg_reload_conf()"]).await;
        only_reads(&world, &before, "read-only").await;
        let reset = "ALTER SYSTEM RESET default_transaction_read_only";
        tell(&["SET default_transaction_read_only = off", reset, "SELECT pg_reload_conf()"]).await;
        before.can_change(&world).await;
        // What a server says whose disk is full.
        let full = format!(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$; \
             CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE OR DELETE ON {schema}.records \
             FOR EACH STATEMENT EXECUTE FUNCTION full_disk()"
        );
        tell(&[full.as_str()]).await;
        only_reads(&world, &before, "disk full").await;
        tell(&[&format!("DROP TRIGGER full_disk ON {schema}.records")]).await;
        before.can_change(&world).await;
        before.is_untouched(&world).await;
        world.stop().await;
    }
}

#[test]
fn b7_a_node_whose_clock_is_off_is_not_ready() {
    if !is_there("faketime", &["faketime"]) {
        return;
    }
    // `faketime` itself would stay between us and the node.
    let asked = Command::new("faketime").args(["-f", "+0s", "env"]).output().expect("faketime");
    let asked = String::from_utf8(asked.stdout).expect("text");
    let preload = asked.lines().find_map(|line| line.strip_prefix("LD_PRELOAD="));
    let preload = preload.expect("a library").to_owned();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for server in runtime.block_on(each()) {
        let directory = tempfile::TempDir::new().expect("a directory");
        for (ahead, code, store_ahead_ms) in [("+0s", 0, 0), ("+5s", 1, -5000), ("-5s", 1, 5000)] {
            let mut command = program();
            command.args(["serve", "--json", "--data"]).arg(directory.path());
            command.env("LD_PRELOAD", &preload).env("FAKETIME", ahead);
            for (key, value) in server.settings() {
                let name = key.to_ascii_uppercase().replace('.', "__");
                command.env(format!("CLOAKROOM_{name}"), value);
            }
            command.env("CLOAKROOM_SERVER__PUBLIC", "127.0.0.1:0");
            command.env("CLOAKROOM_SERVER__ADMIN", "127.0.0.1:0");
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            let node = Node::start(&mut command, "}");
            let said: serde_json::Value = serde_json::from_str(&node.greeting).expect("JSON");
            let admin = said["admin"].as_str().expect("a URL").to_owned();
            let health = |ready: &[&str]| {
                let mut command = program();
                run(command.args(["health", "--admin-url", &admin]).args(ready), "")
            };
            health(&["--ready"]).expect(code);
            health(&[]).expect(0);
            let address = admin.strip_prefix("http://").expect("a URL").parse();
            let ask = Ask::get("/readyz");
            let ready = runtime.block_on(send(address.expect("an address"), &ask));
            let told = ready.at("store_clock_ahead_ms").as_i64().expect("a number");
            assert!(told.abs_diff(store_ahead_ms) < 1500, "{told} for {ahead}");
            // The store's clock is this test's own.
            let date = ready.header("date").expect("always");
            let date = httpdate::parse_http_date(date).expect("a date");
            let now = std::time::SystemTime::now();
            let apart = now.duration_since(date).unwrap_or_else(|error| error.duration());
            assert!(apart < Duration::from_millis(3500), "{apart:?} for {ahead}");
            // Reads and changes go on, by the store's clock.
            let public = said["public"].as_str().and_then(|url| url.strip_prefix("http://"));
            let public = public.expect("a URL").parse().expect("an address");
            let admin_at = admin.trim_start_matches("http://").parse().expect("an address");
            let key = std::fs::read_to_string(directory.path().join("root-api.key"));
            let key = key.expect("a root key");
            runtime.block_on(async {
                let open = Ask::post("/admin/v1/sessions").bearer(key.trim());
                let body = json!({"subject": "ada", "delivery": "bearer"});
                let opened = send(admin_at, &open.json(&body)).await;
                let access = opened.is(201).text("access_token");
                let session = Ask::get("/auth/session").bearer(&access);
                send(public, &session).await.ok();
                send(public, &Ask::post("/auth/logout").bearer(&access)).await.is(204);
                send(public, &session).await.refused(401, "session_ended");
            });
            let mut doctor = program();
            let said = run(doctor.args(["doctor", "--json", "--admin-url", &admin]), "").json();
            let said = said.to_string();
            assert!(said.contains("ms ahead of this node's"), "{said}");
            assert_eq!(node.stop("-TERM").0, 0);
        }
    }
}
