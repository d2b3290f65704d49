//! What an operation costs on a store across a network: counted in the wire, and by the server.
//!
//! In the wire a trip begins with what is sent after an answer arrived: calls side by side are one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cloakroom::core::rate::Quota;
use cloakroom::core::session::Delivery;
use cloakroom::core::store_key::MasterKey;
use cloakroom::core::types::{Secret, Subject};
use cloakroom::store::Store;
use cloakroom::{
    Authority, Carried, Credential, Login, NewPassword, NewUser, Opened, Settings, StoreSecret,
    SystemClock, SystemEntropy,
};
use cloakroom_postgres::{PostgresSettings, PostgresStore};
use cloakroom_redis::{RedisSettings, RedisStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::servers::{Server, postgres_with, redis, redis_with};

#[allow(dead_code, reason = "the engine's own tests need more of it")]
#[path = "../../../cloakroom/tests/it/world.rs"]
mod engine;

/// How long each answer takes: calls side by side are answered before the first of them arrives.
const DELAY: Duration = Duration::from_millis(80);
const PASSWORD: &str = "correct horse battery staple";

/// More trips than an operation takes.
const TRIPS_MAX: usize = 1_000;

/// A wire to a server that counts the trips of one operation at a time.
struct Wire {
    port: u16,
    /// The deepest answer that has arrived, above what the operation began with: the first trip's
    /// answers are of depth 1, what is asked after one of them is of depth 2.
    arrived: Arc<AtomicUsize>,
}

impl Wire {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let wire = Self {
            port: listener.local_addr().expect("a port").port(),
            arrived: Arc::new(AtomicUsize::new(0)),
        };
        let arrived = Arc::clone(&wire.arrived);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.expect("the server");
                for end in [&client, &server] {
                    end.set_nodelay(true).expect("a socket");
                }
                let depth = Arc::new(AtomicUsize::new(0));
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(ask(from_client, to_server, Arc::clone(&depth), arrived.clone()));
                tokio::spawn(answer(from_server, to_client, depth, arrived.clone()));
            }
        });
        wire
    }

    /// How many trips an operation took, after the one before has come to rest.
    async fn trips<T>(&self, operation: impl Future<Output = T>) -> (usize, T) {
        sleep(DELAY * 3).await;
        // Above all before it: an answer that is later still counts for nothing.
        let ground = (self.arrived.load(Ordering::SeqCst) / TRIPS_MAX + 1) * TRIPS_MAX;
        self.arrived.store(ground, Ordering::SeqCst);
        let outcome = operation.await;
        (self.arrived.load(Ordering::SeqCst) - ground, outcome)
    }
}

/// Passes questions on; each is one deeper than the deepest answer so far.
async fn ask(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    depth: Arc<AtomicUsize>,
    arrived: Arc<AtomicUsize>,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = client.read(&mut bytes).await {
        depth.store(arrived.load(Ordering::SeqCst) + 1, Ordering::SeqCst);
        if server.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// Passes answers on, later.
async fn answer(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    depth: Arc<AtomicUsize>,
    arrived: Arc<AtomicUsize>,
) {
    let (sender, mut waiting) = mpsc::unbounded_channel::<(Instant, usize, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((at, depth, bytes)) = waiting.recv().await {
            sleep_until(at).await;
            arrived.fetch_max(depth, Ordering::SeqCst);
            if client.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = server.read(&mut bytes).await {
        let late = (Instant::now() + DELAY, depth.load(Ordering::SeqCst), bytes[..count].to_vec());
        if sender.send(late).is_err() {
            return;
        }
    }
}

/// Asks a server how many calls it has served for a store.
trait Calls {
    async fn calls(&self, namespace: &str) -> u64;
}

impl Calls for Server {
    async fn calls(&self, namespace: &str) -> u64 {
        match self {
            Self::Redis(process) => {
                let statistics = process.cli(&["INFO", "commandstats"]);
                // A load is a transaction, a script or a plain read of several, a commit a script.
                let calls = statistics.lines().filter_map(|line| {
                    let (name, rest) = line.trim().split_once(":calls=")?;
                    let is_call =
                        ["cmdstat_evalsha", "cmdstat_exec", "cmdstat_mget", "cmdstat_wait"];
                    let count = rest.split(',').next().filter(|_| is_call.contains(&name))?;
                    count.parse::<u64>().ok()
                });
                calls.sum()
            }
            Self::Postgres(server) => {
                let sql = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements \
                           WHERE strpos(query, $1) > 0";
                let schema = format!("{namespace}.");
                let row = server.client().await.query_one(sql, &[&schema]).await.expect("a row");
                u64::try_from(row.get::<_, i64>(0)).expect("a count")
            }
        }
    }
}

/// An engine whose store is at the other end of a wire; nothing runs beside what a test asks for.
struct Far<S: Store> {
    authority: Authority<S>,
    wire: Wire,
    namespace: String,
}

const NAMESPACE: &str = "round_trips";

fn settings() -> Settings {
    let mut settings = engine::settings();
    settings.verify.cache = false;
    // So that one sign-in after the other can be counted, and each attempt is still remembered
    // when it is given back.
    settings.login_limits.login = Quota::new(100, 20 * engine::HOUR).expect("a quota");
    settings.store_timeout = Duration::from_secs(20);
    settings
}

async fn authority<S: Store>(store: S, wire: Wire) -> Far<S> {
    let secret = StoreSecret { master: MasterKey::from_bytes([7; 32]), previous: None };
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy::new()));
    let authority = Authority::open(store, settings(), secret, clock, entropy).await;
    Far { authority: authority.expect("an authority"), wire, namespace: NAMESPACE.to_owned() }
}

async fn far_redis(server: &Server) -> Far<RedisStore> {
    let Server::Redis(process) = server else { panic!("not Redis") };
    let wire = Wire::to(process.port).await;
    let settings = RedisSettings {
        url: Secret::new(format!("redis://127.0.0.1:{}", wire.port)),
        namespace: NAMESPACE.to_owned(),
        partitions: 8,
        timeout: Duration::from_secs(20),
        pool: 2,
        tls: cloakroom_redis::TlsFiles::default(),
        replica_wait: Duration::from_secs(10),
    };
    authority(RedisStore::connect(&settings).await.expect("a store"), wire).await
}

async fn far_postgres(server: &Server) -> Far<PostgresStore> {
    let Server::Postgres(process) = server else { panic!("not PostgreSQL") };
    let wire = Wire::to(process.port).await;
    let near = format!(":{}/", process.port);
    let settings = PostgresSettings {
        url: Secret::new(process.url().replace(&near, &format!(":{}/", wire.port))),
        schema: NAMESPACE.to_owned(),
        partitions: 8,
        timeout: Duration::from_secs(20),
        pool: 4,
        tls: cloakroom_postgres::TlsFiles::default(),
        migrate: true,
    };
    authority(PostgresStore::connect(&settings).await.expect("a store"), wire).await
}

impl<S: Store> Far<S> {
    /// Counts an operation: its trips in the wire and its calls at the server.
    async fn count<T>(&self, server: &Server, operation: impl Future<Output = T>) -> (Cost, T) {
        let before = server.calls(&self.namespace).await;
        let (trips, outcome) = self.wire.trips(Box::pin(operation)).await;
        let calls = server.calls(&self.namespace).await - before;
        (Cost { trips, calls }, outcome)
    }

    async fn open(&self, delivery: Delivery) -> Opened {
        let request = engine::request(engine::grant(delivery));
        Box::pin(self.authority.open_session(request, &engine::ctx())).await.expect("a session")
    }

    async fn sign_in(&self) -> Opened {
        let login = Login {
            identifier: "ada@example.com".to_owned(),
            password: Secret::new(PASSWORD.to_owned()),
            delivery: Delivery::Cookie,
            remember: false,
            label: None,
            carried: Vec::<Carried>::new(),
        };
        Box::pin(self.authority.sign_in(login, &engine::ctx())).await.expect("a session")
    }

    async fn refresh(&self, token: &str) -> Opened {
        let channel = cloakroom::core::refresh::Channel::Body;
        Box::pin(self.authority.refresh(token, channel, None, &engine::ctx()))
            .await
            .expect("a token")
    }

    async fn end_all(&self, subject: &Subject) -> usize {
        let ended = Box::pin(self.authority.end_subject(subject, &engine::ctx())).await;
        ended.expect("an ending").revoked
    }

    /// Does everything a few times at once, so that each connection knows what it will be asked.
    async fn warm_up(&self) {
        let password = Some(NewPassword::Chosen(Secret::new(PASSWORD.to_owned())));
        let user = NewUser {
            identifier: "ada@example.com".to_owned(),
            password,
            claims: Default::default(),
            disabled: false,
        };
        Box::pin(self.authority.create_user(user, &engine::ctx())).await.expect("a user");
        let bearer = self.open(Delivery::Bearer).await;
        let cookie = self.open(Delivery::Cookie).await;
        let verify = async || {
            let credential = Credential::Cookie(cookie.token.expose());
            Box::pin(self.authority.verify(credential)).await.expect("a session");
        };
        let subject = engine::ada();
        for _ in 0..3 {
            let loads = async { tokio::join!(verify(), verify(), verify(), verify()) };
            let commits =
                async { tokio::join!(self.sign_in(), self.sign_in(), self.open(Delivery::Cookie)) };
            tokio::join!(loads, commits);
            self.authority.sessions_of(&subject).await.expect("a list");
        }
        self.refresh(bearer.token.expose()).await;
        self.end_all(&subject).await;
        let ctx = engine::ctx();
        let logout = self.authority.logout(Credential::Cookie(cookie.token.expose()), &ctx);
        Box::pin(logout).await.expect("an ending");
    }
}

/// What an operation cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    trips: usize,
    calls: u64,
}

/// One call in each trip.
const fn trips(count: usize) -> Cost {
    Cost { trips: count, calls: count as u64 }
}

/// Does one thing after the other and counts each; an ending may take `waits` more.
async fn all_operations<S: Store>(far: &Far<S>, server: &Server, waits: usize) {
    Box::pin(far.warm_up()).await;
    let (cost, cookie) = far.count(server, far.open(Delivery::Cookie)).await;
    assert_eq!(cost, trips(2), "open");
    let bearer = far.open(Delivery::Bearer).await;
    let by_cookie = Box::pin(far.authority.verify(Credential::Cookie(cookie.token.expose())));
    let (cost, verified) = far.count(server, by_cookie).await;
    assert_eq!((cost, verified.is_ok()), (trips(1), true), "verify by cookie");
    let access = bearer.access.as_ref().expect("a token").token.expose();
    let by_token = Box::pin(far.authority.verify(Credential::Access(access)));
    let (cost, verified) = far.count(server, by_token).await;
    assert_eq!((cost, verified.is_ok()), (trips(1), true), "verify by access token");
    let (cost, _) = far.count(server, far.refresh(bearer.token.expose())).await;
    assert_eq!(cost, trips(2), "refresh");
    let (cost, listed) = far.count(server, far.authority.sessions_of(&engine::ada())).await;
    assert_eq!((cost, listed.expect("a list").len()), (trips(1), 2), "list");
    let ctx = engine::ctx();
    let logout = Box::pin(far.authority.logout(Credential::Cookie(cookie.token.expose()), &ctx));
    let (cost, ended) = far.count(server, logout).await;
    assert_eq!(
        (cost, ended.is_ok_and(|ended| ended.is_some())),
        (trips(2 + waits), true),
        "logout"
    );
    let (cost, revoked) = far.count(server, far.end_all(&engine::ada())).await;
    assert_eq!((cost, revoked), (trips(2 + waits), 1), "sign out everywhere");
    let user = far.sign_in().await.session.subject.clone().expect("a user");
    far.end_all(&user).await;
    // Counted at the name and at the network side by side; given back while the session opens.
    let (cost, _) = far.count(server, far.sign_in()).await;
    assert_eq!(cost, Cost { trips: 4, calls: 8 }, "sign in by password");
    // As many as may be: the oldest makes room within the same trips.
    for _ in 0..5 {
        far.open(Delivery::Cookie).await;
    }
    let (cost, _) = far.count(server, far.open(Delivery::Cookie)).await;
    assert_eq!(cost, trips(2 + waits), "open over the limit");
    let (cost, revoked) = far.count(server, far.end_all(&engine::ada())).await;
    assert_eq!((cost, revoked), (trips(2 + waits), 5), "sign out everywhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn round_trips_on_redis_are_as_few_as_promised() {
    let Some(server) = redis().await else { return };
    let far = far_redis(&server).await;
    Box::pin(all_operations(&far, &server, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_with_a_replica_an_ending_waits_once_more() {
    let Some(server) = redis().await else { return };
    let Server::Redis(master) = &server else { return };
    let port = master.port.to_string();
    let Some(_replica) = redis_with(&["--replicaof", "127.0.0.1", &port]).await else { return };
    let begun = Instant::now();
    while !master.cli(&["INFO", "replication"]).contains("state=online") {
        assert!(begun.elapsed() < Duration::from_secs(30), "no replica");
        sleep(Duration::from_millis(50)).await;
    }
    let far = far_redis(&server).await;
    Box::pin(all_operations(&far, &server, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn round_trips_on_postgres_are_as_few_as_promised() {
    let preloaded = "shared_preload_libraries=pg_stat_statements";
    let Some(server) = postgres_with(&[preloaded]).await else { return };
    let Server::Postgres(process) = &server else { return };
    let client = process.client().await;
    client.batch_execute("CREATE EXTENSION pg_stat_statements").await.expect("the statistics");
    let far = far_postgres(&server).await;
    Box::pin(all_operations(&far, &server, 0)).await;
}
