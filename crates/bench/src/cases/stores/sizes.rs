//! What must not depend on how much is stored, on a store across a network.

use cloakroom_store::Store;

use crate::Outcome;
use crate::cases::sizes::{FLAT, LARGE, SMALL, list, sign_out, sweep};
use crate::fill::{self, PER_SUBJECT};
use crate::report::{Figure, Kind, Report};
use crate::setting;

const ROUNDS: usize = 5;

/// The same operations on a small store and on a large one, in turn.
pub(super) async fn measure<S: Store>(
    report: &Report,
    [listing, ending, sweeping]: [&'static str; 3],
    [small, large]: [S; 2],
) -> Outcome<()> {
    let small = setting::open_on(small, false, None).await?;
    let large = setting::open_on(large, false, None).await?;
    let now = small.now();
    fill::plant(&small, "user", SMALL / PER_SUBJECT, PER_SUBJECT, now).await?;
    fill::plant(&large, "user", LARGE / PER_SUBJECT, PER_SUBJECT, now).await?;
    let mut listed = Figure::new(listing, "us", Kind::Growth, FLAT);
    let mut ended = Figure::new(ending, "us", Kind::Growth, FLAT);
    let mut swept = Figure::new(sweeping, "ms", Kind::Growth, FLAT);
    // Once each, so that the server has read what it will read again and again.
    let (_, _) = (list(&small, SMALL).await?, list(&large, LARGE).await?);
    for _ in 0..ROUNDS {
        let few = list(&small, SMALL).await?;
        listed.pair(list(&large, LARGE).await?, few);
    }
    report.tell(&listed);
    for round in 0..ROUNDS {
        let few = sign_out(&small, round).await?;
        ended.pair(sign_out(&large, round).await?, few);
    }
    report.tell(&ended);
    if report.wants(sweeping) {
        for round in 0..ROUNDS {
            let few = sweep(&small, round).await?.0;
            swept.pair(sweep(&large, round).await?.0, few);
        }
        report.tell(&swept);
    }
    Ok(())
}
