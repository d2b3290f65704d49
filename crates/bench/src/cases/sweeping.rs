//! Whether a node still answers while it cleans up: verifications during the sweep of many expired
//! sessions, beside the same without one.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloakroom::{Credential, Swept};
use cloakroom_core::session::Delivery;

use crate::Outcome;
use crate::fill;
use crate::report::{Aim, Figure, Kind, Report};
use crate::setting::{self, Engine};

/// Sessions that expired before the sweep.
const EXPIRED: usize = 1_000_000;
/// How long ago: their reasons aren't kept any more either.
const LONG_AGO: Duration = Duration::from_secs(30 * 24 * 3600);
/// Live sessions that are verified in turn.
const LIVE: usize = 1000;
/// A verification begins this often.
const EVERY: Duration = Duration::from_millis(1);
/// How long is measured without a sweep.
const QUIET: Duration = Duration::from_secs(20);

const NAMES: [&str; 4] = [
    "sweep/verify-read-p99",
    "sweep/verify-read-p50",
    "sweep/verify-cached-p99",
    "sweep/records-a-second",
];

/// Measures what is asked for.
pub fn run(report: &Report, folder: &Path) -> Outcome<()> {
    if !report.wants_any(&NAMES) {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let read = runtime.block_on(measure(&folder.join("sweep-read"), false))?;
    for (name, place) in [(NAMES[0], 99), (NAMES[1], 50)] {
        let mut figure = Figure::new(name, "us", Kind::Growth, Aim::Open);
        figure.pair(percentile(&read.during, place), percentile(&read.quiet, place));
        report.tell(&figure);
    }
    let mut pace = Figure::new(NAMES[3], "/s", Kind::Rate, Aim::Open);
    pace.alone(read.swept.removed.max(read.swept.ended) as f64 / read.took.as_secs_f64());
    report.tell(&pace);
    if report.wants(NAMES[2]) {
        let cached = runtime.block_on(measure(&folder.join("sweep-cached"), true))?;
        let mut figure = Figure::new(NAMES[2], "us", Kind::Growth, Aim::Open);
        figure.pair(percentile(&cached.during, 99), percentile(&cached.quiet, 99));
        report.tell(&figure);
    }
    Ok(())
}

/// Times of verifications, in microseconds, sorted.
struct Measured {
    quiet: Vec<f64>,
    during: Vec<f64>,
    swept: Swept,
    took: Duration,
}

async fn measure(folder: &Path, cached: bool) -> Outcome<Measured> {
    let engine = setting::open(folder, cached).await?;
    let mut cookies = Vec::new();
    for number in 0..LIVE {
        let opened = setting::open_one(&engine, &format!("live{number}"), Delivery::Cookie).await?;
        cookies.push(opened.token.expose().clone());
    }
    let opened_at = engine.now().minus(LONG_AGO);
    fill::plant(&engine, "expired", EXPIRED, 1, opened_at).await?;
    let cookies = Arc::new(cookies);
    let over = Instant::now() + QUIET;
    let quiet = verify(&engine, &cookies, move || Instant::now() < over).await?;
    let sweeping = {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            let began = Instant::now();
            let swept = engine.sweep().await?;
            Outcome::Ok((swept, began.elapsed()))
        })
    };
    let during = verify(&engine, &cookies, || !sweeping.is_finished()).await?;
    let (swept, took) = sweeping.await??;
    if swept.removed.max(swept.ended) < EXPIRED {
        return Err(format!("the sweep found {swept:?}").into());
    }
    Ok(Measured { quiet, during, swept, took })
}

/// Verifies at a steady pace; a late answer doesn't hide the wait of those after it.
async fn verify(
    engine: &Engine,
    cookies: &[String],
    goes_on: impl Fn() -> bool,
) -> Outcome<Vec<f64>> {
    let mut times = Vec::new();
    let mut due = Instant::now();
    for cookie in cookies.iter().cycle() {
        if !goes_on() {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        engine.verify(Credential::Cookie(cookie)).await?;
        times.push(due.elapsed().as_secs_f64() * 1e6);
        due += EVERY;
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn percentile(sorted: &[f64], place: usize) -> f64 {
    let index = (sorted.len() * place / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or_default()
}
