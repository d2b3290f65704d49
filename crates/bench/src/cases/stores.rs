//! The engine on a store across a network, beside what its client library does bare: by the same
//! number of connections to the same server, with values of the same size.

mod bare;
mod revoking;
mod sizes;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cloakroom::{Authority, Credential};
use cloakroom_core::session::Delivery;
use cloakroom_core::types::Secret;
use cloakroom_postgres::{PostgresSettings, PostgresStore};
use cloakroom_redis::{RedisSettings, RedisStore};
use cloakroom_store::{Record, Store, record};

use crate::Outcome;
use crate::report::{Aim, Figure, Kind, Report, skipped};
use crate::servers::{self, Database};
use crate::setting::{self, Pace, at_once, open_one};

use bare::Bare;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
/// Callers at once.
const CALLERS: usize = 64;
/// Connections to the server; on Redis a quarter of them is shared by all calls.
const POOL: usize = 16;
/// Sessions that are verified in turn.
const SESSIONS: usize = 2000;
/// Sessions that are opened are spread over so many subjects.
const SUBJECTS: usize = 50_000;

/// The figures of one kind of server.
struct Names {
    store: &'static str,
    verify: &'static str,
    verify_cpu: &'static str,
    open: &'static str,
    cached: &'static str,
    revoked: [&'static str; 2],
    sizes: [&'static str; 3],
}

const REDIS: Names = Names {
    store: "redis",
    verify: "stores/redis-verify",
    verify_cpu: "stores/redis-verify-cpu",
    open: "stores/redis-open",
    cached: "stores/redis-verify-cached",
    revoked: ["stores/redis-revoked-p50", "stores/redis-revoked-p99"],
    sizes: ["stores/redis-list", "stores/redis-sign-out-everywhere", "stores/redis-sweep"],
};

const POSTGRES: Names = Names {
    store: "postgres",
    verify: "stores/postgres-verify",
    verify_cpu: "stores/postgres-verify-cpu",
    open: "stores/postgres-open",
    cached: "stores/postgres-verify-cached",
    revoked: ["stores/postgres-revoked-p50", "stores/postgres-revoked-p99"],
    sizes: ["stores/postgres-list", "stores/postgres-sign-out-everywhere", "stores/postgres-sweep"],
};

impl Names {
    fn all(&self) -> Vec<&'static str> {
        let some = [self.verify, self.verify_cpu, self.open, self.cached];
        some.into_iter().chain(self.revoked).chain(self.sizes).collect()
    }
}

/// Measures what is asked for.
pub fn run(report: &Report, folder: &Path) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if report.wants_any(&REDIS.all()) {
        match servers::redis(&folder.join("redis"))? {
            Some(server) => {
                let open = async |name: &str| open_redis(&server, name).await;
                let bare = runtime.block_on(bare::Redis::connect(server.port, POOL / 4))?;
                runtime.block_on(measure(report, &REDIS, open, bare, folder))?;
            }
            None => skipped("stores/redis-*", "there is no redis-server"),
        }
    }
    if report.wants_any(&POSTGRES.all()) {
        match servers::postgres(&folder.join("postgres"))? {
            Some(server) => {
                let open = async |name: &str| open_postgres(&server, name).await;
                let bare = runtime.block_on(bare::Postgres::connect(server.port, POOL))?;
                runtime.block_on(measure(report, &POSTGRES, open, bare, folder))?;
            }
            None => skipped("stores/postgres-*", "there is no PostgreSQL server"),
        }
    }
    Ok(())
}

async fn open_redis(server: &Database, namespace: &str) -> Outcome<RedisStore> {
    let settings = RedisSettings {
        url: Secret::new(format!("redis://127.0.0.1:{}", server.port)),
        namespace: namespace.to_owned(),
        partitions: 256,
        timeout: Duration::from_secs(10),
        pool: POOL,
        tls: cloakroom_redis::TlsFiles::default(),
        replica_wait: Duration::ZERO,
    };
    Ok(RedisStore::connect(&settings).await?)
}

async fn open_postgres(server: &Database, schema: &str) -> Outcome<PostgresStore> {
    let settings = PostgresSettings {
        url: Secret::new(format!("postgres://postgres:none@127.0.0.1:{}/postgres", server.port)),
        schema: schema.to_owned(),
        partitions: 256,
        timeout: Duration::from_secs(10),
        pool: POOL,
        tls: cloakroom_postgres::TlsFiles::default(),
        migrate: true,
    };
    Ok(PostgresStore::connect(&settings).await?)
}

async fn measure<S: Store, B: Bare>(
    report: &Report,
    names: &Names,
    open: impl AsyncFn(&str) -> Outcome<S>,
    bare: B,
    folder: &Path,
) -> Outcome<()> {
    let bare = Arc::new(bare);
    if report.wants_any(&[names.verify, names.verify_cpu, names.open]) {
        let engine = setting::open_on(open("bare").await?, false, Some(STALENESS)).await?;
        let cookies = Arc::new(open_many(&engine).await?);
        let (read, written) = sizes_of(&engine).await?;
        if report.wants_any(&[names.verify, names.verify_cpu]) {
            bare.put(SESSIONS, read).await?;
            verify(report, names, &engine, &cookies, &bare).await?;
        }
        if report.wants(names.open) {
            bare.put(SUBJECTS, read / 2).await?;
            opening(report, names, &engine, &bare, written).await?;
        }
    }
    if report.wants(names.cached) {
        let engine = setting::open_on(open("cached").await?, true, Some(STALENESS)).await?;
        cached(report, names, engine, &folder.join(names.store).with_extension("beside")).await?;
    }
    if report.wants_any(&names.revoked) {
        let nodes = [open("revoking").await?, open("revoking").await?];
        revoking::measure(report, names.revoked, nodes).await?;
    }
    if report.wants_any(&names.sizes) {
        sizes::measure(report, names.sizes, [open("small").await?, open("large").await?]).await?;
    }
    Ok(())
}

/// How old what is cached may be.
const STALENESS: Duration = Duration::from_secs(5);

async fn open_many<S: Store>(engine: &Arc<Authority<S>>) -> Outcome<Vec<String>> {
    let mut cookies = Vec::with_capacity(SESSIONS);
    let numbers: Vec<usize> = (0..SESSIONS).collect();
    for numbers in numbers.chunks(CALLERS) {
        let opening: Vec<_> = numbers
            .iter()
            .map(|number| {
                let (engine, subject) = (Arc::clone(engine), format!("verified{number}"));
                tokio::spawn(async move { open_one(&engine, &subject, Delivery::Cookie).await })
            })
            .collect();
        for opened in opening {
            cookies.push(opened.await??.token.expose().clone());
        }
    }
    Ok(cookies)
}

/// As many bytes as a verification reads, and as an opening writes: about.
async fn sizes_of<S: Store>(engine: &Authority<S>) -> Outcome<(usize, usize)> {
    let opened = open_one(engine, "measured", Delivery::Cookie).await?;
    let session = record::encode(&Record::Session(Box::new((*opened.session).clone()))).len();
    let around = 128;
    Ok((session + around, session + session / 2 + around))
}

async fn verify<S: Store, B: Bare>(
    report: &Report,
    names: &Names,
    engine: &Arc<Authority<S>>,
    cookies: &Arc<Vec<String>>,
    bare: &Arc<B>,
) -> Outcome<()> {
    let mut rate = Figure::new(names.verify, "calls/s", Kind::Rate, Aim::AtLeast(0.7));
    let mut cost = Figure::new(names.verify_cpu, "us CPU", Kind::Cost, Aim::Open);
    for _ in 0..ROUNDS {
        let ours = {
            let (engine, cookies) = (Arc::clone(engine), Arc::clone(cookies));
            at_once(CALLERS, ROUND, move |task, made| {
                let (engine, cookies) = (Arc::clone(&engine), Arc::clone(&cookies));
                async move {
                    let cookie = &cookies[(task * 31 + made) % cookies.len()];
                    engine.verify(Credential::Cookie(cookie)).await?;
                    Ok(())
                }
            })
            .await?
        };
        let theirs = bare_reads(bare).await?;
        rate.pair(ours.per_second, theirs.per_second);
        cost.pair(ours.cpu_us, theirs.cpu_us);
    }
    report.tell(&rate);
    report.tell(&cost);
    Ok(())
}

async fn bare_reads<B: Bare>(bare: &Arc<B>) -> Outcome<Pace> {
    let bare = Arc::clone(bare);
    at_once(CALLERS, ROUND, move |task, made| {
        let bare = Arc::clone(&bare);
        async move { bare.read((task * 31 + made) % SESSIONS).await }
    })
    .await
}

async fn opening<S: Store, B: Bare>(
    report: &Report,
    names: &Names,
    engine: &Arc<Authority<S>>,
    bare: &Arc<B>,
    bytes: usize,
) -> Outcome<()> {
    let mut rate = Figure::new(names.open, "calls/s", Kind::Rate, Aim::AtLeast(0.6));
    let count = Arc::new(AtomicUsize::new(0));
    for _ in 0..ROUNDS {
        let ours = {
            let (engine, count) = (Arc::clone(engine), Arc::clone(&count));
            at_once(CALLERS, ROUND, move |_, _| {
                let engine = Arc::clone(&engine);
                let subject = format!("user{}", count.fetch_add(1, Ordering::Relaxed) % SUBJECTS);
                async move { open_one(&engine, &subject, Delivery::Cookie).await.map(drop) }
            })
            .await?
        };
        let theirs = {
            let (bare, count) = (Arc::clone(bare), Arc::clone(&count));
            at_once(CALLERS, ROUND, move |_, _| {
                let bare = Arc::clone(&bare);
                let number = count.fetch_add(1, Ordering::Relaxed);
                async move {
                    bare.read(number % SUBJECTS).await?;
                    bare.write(number, bytes).await
                }
            })
            .await?
        };
        rate.pair(ours.per_second, theirs.per_second);
    }
    report.tell(&rate);
    Ok(())
}

/// From the cache, while the log is followed: beside the embedded store, which nobody else writes
/// to.
async fn cached<S: Store>(
    report: &Report,
    names: &Names,
    engine: Arc<Authority<S>>,
    folder: &Path,
) -> Outcome<()> {
    let beside = setting::open(folder, true).await?;
    let (ours, theirs) = (open_many(&engine).await?, open_many(&beside).await?);
    engine.follow().await?;
    let following = tokio::spawn(revoking::follow(Arc::clone(&engine)));
    let mut figure = Figure::new(names.cached, "us", Kind::Cost, Aim::AtLeast(0.9));
    // Once round, so that everything is in the caches.
    let (_, _) = (look_at(&engine, &ours).await?, look_at(&beside, &theirs).await?);
    for _ in 0..ROUNDS {
        figure.pair(look_at(&engine, &ours).await?, look_at(&beside, &theirs).await?);
    }
    following.abort();
    report.tell(&figure);
    Ok(())
}

/// The time of one verification, in microseconds.
async fn look_at<S: Store>(engine: &Authority<S>, cookies: &[String]) -> Outcome<f64> {
    const TIMES: usize = 40;
    let started = Instant::now();
    for _ in 0..TIMES {
        for cookie in cookies {
            std::hint::black_box(engine.verify(Credential::Cookie(cookie)).await?);
        }
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / (TIMES * cookies.len()) as f64)
}
