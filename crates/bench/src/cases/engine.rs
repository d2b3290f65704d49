//! The engine in this process: verification beside a bare signature check, durable operations
//! beside a bare loop of group-committed appends to the same disk.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use cloakroom::{Context, Credential};
use cloakroom_core::refresh::Channel;
use cloakroom_core::session::Delivery;
use cloakroom_store::{Record, record};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use crate::Outcome;
use crate::append::Appender;
use crate::report::{Aim, Figure, Kind, Report};
use crate::setting::{self, Engine, Pace, at_once, open_one};

const CREDENTIALS: usize = 10_000;
const ROUNDS: usize = 5;
/// Calls of a round, where one takes microseconds.
const CALLS: usize = 20_000;
/// Callers at once, where each waits for the disk.
const CALLERS: usize = 256;
const ROUND: Duration = Duration::from_secs(2);
/// As long as an access token's signed part.
const SIGNED_BYTES: usize = 420;
/// What the store keeps around a record and how it is called, in bytes: about.
const AROUND_RECORD_BYTES: usize = 64;

const COOKIE_CACHED: &str = "engine/verify-cookie-cached";
const COOKIE_READ: &str = "engine/verify-cookie-read";
const ACCESS_CACHED: &str = "engine/verify-access-cached";
const ACCESS_FIRST: &str = "engine/verify-access-first";
const OPEN: &str = "engine/open";
const OPEN_CPU: &str = "engine/open-cpu";
const REFRESH: &str = "engine/refresh";
const REFRESH_CPU: &str = "engine/refresh-cpu";

/// Measures what is asked for.
pub fn run(report: &Report, folder: &Path) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if report.wants_any(&[COOKIE_CACHED, COOKIE_READ, ACCESS_CACHED, ACCESS_FIRST]) {
        verify(report, &runtime, &folder.join("engine-verify"))?;
    }
    if report.wants_any(&[OPEN, OPEN_CPU, REFRESH, REFRESH_CPU]) {
        runtime.block_on(write(report, &folder.join("engine-write")))?;
    }
    Ok(())
}

/// The texts of many sessions' credentials.
struct Credentials {
    cookies: Vec<String>,
    access: Vec<String>,
}

fn verify(report: &Report, runtime: &Runtime, folder: &Path) -> Outcome<()> {
    let credentials = {
        let engine = runtime.block_on(setting::open(folder, true))?;
        let credentials = runtime.block_on(open_many(&engine))?;
        let cached = [(COOKIE_CACHED, Aim::Below(2.0)), (ACCESS_CACHED, Aim::Below(2.0))];
        for (name, aim) in cached {
            let texts = credentials.of(name);
            // Once round, so that everything is in the cache.
            look_at(runtime, &engine, name, texts.iter())?;
            let mut figure = Figure::new(name, "us", Kind::Cost, aim);
            for _ in 0..ROUNDS {
                let texts = texts.iter().cycle().take(10 * CALLS);
                let ours = look_at(runtime, &engine, name, texts)?;
                figure.pair(ours, signature_check()?);
            }
            report.tell(&figure);
        }
        credentials
    };
    let engine = runtime.block_on(setting::open(folder, false))?;
    for name in [COOKIE_READ, ACCESS_FIRST] {
        let mut figure = Figure::new(name, "us", Kind::Cost, Aim::Open);
        // Each token is seen once only, so that its signature is checked each time.
        for texts in credentials.of(name).chunks(CREDENTIALS / ROUNDS) {
            let ours = look_at(runtime, &engine, name, texts.iter())?;
            figure.pair(ours, signature_check()?);
        }
        report.tell(&figure);
    }
    Ok(())
}

impl Credentials {
    fn of(&self, name: &str) -> &[String] {
        if name.contains("cookie") { &self.cookies } else { &self.access }
    }
}

async fn open_many(engine: &Arc<Engine>) -> Outcome<Credentials> {
    let mut credentials = Credentials { cookies: Vec::new(), access: Vec::new() };
    for delivery in [Delivery::Cookie, Delivery::Bearer] {
        let numbers: Vec<usize> = (0..CREDENTIALS).collect();
        for numbers in numbers.chunks(CALLERS) {
            let opening: Vec<_> = numbers
                .iter()
                .map(|number| {
                    let engine = Arc::clone(engine);
                    let subject = format!("{}{number}", delivery.as_str());
                    tokio::spawn(async move { open_one(&engine, &subject, delivery).await })
                })
                .collect();
            for opened in opening {
                let opened = opened.await??;
                match opened.access {
                    Some(access) => credentials.access.push(access.token.expose().clone()),
                    None => credentials.cookies.push(opened.token.expose().clone()),
                }
            }
        }
    }
    Ok(credentials)
}

/// The time of one verification, in microseconds.
fn look_at<'a>(
    runtime: &Runtime,
    engine: &Engine,
    name: &str,
    texts: impl Iterator<Item = &'a String>,
) -> Outcome<f64> {
    let by_cookie = name.contains("cookie");
    runtime.block_on(async {
        let (started, mut made) = (Instant::now(), 0_u32);
        for text in texts {
            let credential =
                if by_cookie { Credential::Cookie(text) } else { Credential::Access(text) };
            black_box(engine.verify(credential).await?);
            made += 1;
        }
        Ok(started.elapsed().as_secs_f64() * 1e6 / f64::from(made))
    })
}

/// The time of one Ed25519 signature check (RFC 8032) and nothing else, in microseconds.
fn signature_check() -> Outcome<f64> {
    let failed = |_| "the cryptographic library failed";
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(failed)?;
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref())?;
    let message = [b'a'; SIGNED_BYTES];
    let signature = pair.sign(&message);
    let key = UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref());
    let calls = CALLS / 10;
    let started = Instant::now();
    for _ in 0..calls {
        key.verify(black_box(&message), signature.as_ref()).map_err(failed)?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / calls as f64)
}

async fn write(report: &Report, folder: &Path) -> Outcome<()> {
    let engine = setting::open(folder, true).await?;
    let appender = Arc::new(Appender::create(&folder.with_extension("log"))?);
    let bytes = bytes_of_an_opening(&engine).await?;
    let chains = chains(&engine).await?;
    let mut opened = Duel::new(OPEN, OPEN_CPU, Aim::AtLeast(0.4));
    let mut refreshed = Duel::new(REFRESH, REFRESH_CPU, Aim::Open);
    let count = Arc::new(AtomicU64::new(0));
    for _ in 0..ROUNDS {
        let append = || {
            let (appender, bytes) = (Arc::clone(&appender), Arc::clone(&bytes));
            at_once(CALLERS, ROUND, move |_, _| {
                let (appender, bytes) = (Arc::clone(&appender), Arc::clone(&bytes));
                async move { Ok(appender.append(bytes).await?) }
            })
        };
        if report.wants_any(&[OPEN, OPEN_CPU]) {
            let ours = open_at_once(&engine, &count).await?;
            opened.pair(ours, append().await?);
        }
        if report.wants_any(&[REFRESH, REFRESH_CPU]) {
            let ours = refresh_at_once(&engine, &chains).await?;
            refreshed.pair(ours, append().await?);
        }
    }
    opened.tell(report);
    refreshed.tell(report);
    Ok(())
}

/// Calls beside appends, by their number and by their processor time.
struct Duel {
    rates: Figure,
    costs: Figure,
}

impl Duel {
    fn new(rate: &'static str, cpu: &'static str, aim: Aim) -> Self {
        Self {
            rates: Figure::new(rate, "calls/s", Kind::Rate, aim),
            costs: Figure::new(cpu, "us CPU", Kind::Cost, Aim::Open),
        }
    }

    fn pair(&mut self, ours: Pace, reference: Pace) {
        self.rates.pair(ours.per_second, reference.per_second);
        self.costs.pair(ours.cpu_us, reference.cpu_us);
    }

    fn tell(&self, report: &Report) {
        report.tell(&self.rates);
        report.tell(&self.costs);
    }
}

async fn open_at_once(engine: &Arc<Engine>, count: &Arc<AtomicU64>) -> Outcome<Pace> {
    let (engine, count) = (Arc::clone(engine), Arc::clone(count));
    at_once(CALLERS, ROUND, move |_, _| {
        let engine = Arc::clone(&engine);
        let subject = format!("user{}", count.fetch_add(1, Ordering::Relaxed) % 50_000);
        async move { open_one(&engine, &subject, Delivery::Cookie).await.map(drop) }
    })
    .await
}

/// Refresh tokens, one for each caller.
type Chains = Arc<Vec<Mutex<String>>>;

async fn chains(engine: &Engine) -> Outcome<Chains> {
    let mut chains = Vec::new();
    for caller in 0..CALLERS {
        let opened = open_one(engine, &format!("refreshing{caller}"), Delivery::Bearer).await?;
        chains.push(Mutex::new(opened.token.expose().clone()));
    }
    Ok(Arc::new(chains))
}

async fn refresh_at_once(engine: &Arc<Engine>, chains: &Chains) -> Outcome<Pace> {
    let (engine, chains) = (Arc::clone(engine), Arc::clone(chains));
    at_once(CALLERS, ROUND, move |caller, _| {
        let (engine, chains) = (Arc::clone(&engine), Arc::clone(&chains));
        async move {
            let mut token = chains[caller].lock().await;
            let ctx = Context::system();
            let next = engine.refresh(&token, Channel::Body, None, &ctx).await?;
            *token = next.token.expose().clone();
            Ok(())
        }
    })
    .await
}

/// As many bytes as one opening stores: its records and its event.
async fn bytes_of_an_opening(engine: &Engine) -> Outcome<Arc<[u8]>> {
    let opened = open_one(engine, "measured", Delivery::Cookie).await?;
    let session = record::encode(&Record::Session(Box::new((*opened.session).clone())));
    let index = record::encode(&Record::Index(vec![opened.session.sid]));
    // The event names the session, its subject and its client, as the session does.
    let event = session.len() / 2;
    let bytes = session.len() + index.len() + event + 3 * AROUND_RECORD_BYTES;
    Ok(Arc::from(vec![b'a'; bytes]))
}
