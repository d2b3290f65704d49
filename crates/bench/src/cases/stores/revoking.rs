//! From "revoke returned" to "refused on another node", with the cache on and under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cloakroom::{Authority, Context, Credential};
use cloakroom_core::session::Delivery;
use cloakroom_store::Store;

use crate::Outcome;
use crate::report::{Aim, Figure, Kind, Report};
use crate::setting::{self, open_one};

/// How many sessions are revoked.
const REVOKED: usize = 1000;
/// Callers that open, verify and revoke beside it, on both nodes.
const LOADING: usize = 4;
/// One of them waits so long between two calls: the machine shall be busy, not full.
const PAUSE: Duration = Duration::from_millis(2);
/// How often the other node is asked whether the session still lives.
const LOOK_EVERY: Duration = Duration::from_micros(500);
const PATIENCE: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_millis(500);
const STALENESS: Duration = Duration::from_secs(5);

/// Follows the logs as a node does: twice a second, and at once where it is woken.
pub(super) async fn follow<S: Store>(engine: Arc<Authority<S>>) {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        let read = tokio::select! {
            _ = ticks.tick() => engine.follow().await,
            partitions = engine.store().changed() => engine.follow_changed(&partitions).await,
        };
        if let Err(error) = read {
            eprintln!("the log can't be followed: {error}");
        }
    }
}

/// Revokes on one node and waits for the other.
pub(super) async fn measure<S: Store>(
    report: &Report,
    [median, tail]: [&'static str; 2],
    [one, other]: [S; 2],
) -> Outcome<()> {
    let one = setting::open_on(one, true, Some(STALENESS)).await?;
    let other = setting::open_on(other, true, Some(STALENESS)).await?;
    let mut beside: Vec<_> =
        [&one, &other].map(|node| tokio::spawn(follow(Arc::clone(node)))).into();
    tokio::time::sleep(EVERY * 2).await;
    let count = Arc::new(AtomicUsize::new(0));
    for node in [&one, &other].into_iter().cycle().take(LOADING) {
        let (node, count) = (Arc::clone(node), Arc::clone(&count));
        beside.push(tokio::spawn(async move {
            if let Err(fault) = load(node, count).await {
                eprintln!("the load beside it failed: {fault}");
            }
        }));
    }
    let mut waited = Vec::with_capacity(REVOKED);
    for number in 0..REVOKED {
        let opened = open_one(&one, &format!("revoked{}", number % 200), Delivery::Cookie).await?;
        let cookie = Credential::Cookie(opened.token.expose());
        other.verify(cookie).await?;
        one.end_session(opened.session.sid, None, &Context::system()).await?;
        let revoked_at = Instant::now();
        while other.verify(cookie).await.is_ok() {
            if revoked_at.elapsed() > PATIENCE {
                return Err("a revoked session is still served".into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        waited.push(revoked_at.elapsed().as_secs_f64() * 1e3);
    }
    beside.iter().for_each(tokio::task::JoinHandle::abort);
    waited.sort_by(f64::total_cmp);
    for (name, place, aim) in
        [(median, REVOKED / 2, Aim::Open), (tail, REVOKED * 99 / 100, Aim::Below(50.0))]
    {
        let mut figure = Figure::new(name, "ms", Kind::Cost, aim);
        figure.alone(waited[place]);
        report.tell(&figure);
    }
    Ok(())
}

/// What others do meanwhile: each fourth session is revoked again.
async fn load<S: Store>(node: Arc<Authority<S>>, count: Arc<AtomicUsize>) -> Outcome<()> {
    loop {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let opened = open_one(&node, &format!("load{}", number % 500), Delivery::Cookie).await?;
        for _ in 0..10 {
            node.verify(Credential::Cookie(opened.token.expose())).await?;
        }
        if number.is_multiple_of(4) {
            node.end_session(opened.session.sid, None, &Context::system()).await?;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
