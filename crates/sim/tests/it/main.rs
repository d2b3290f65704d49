//! Worlds that must go well, and broken rules that must be noticed.

use cloakroom_sim::{report, run};

/// Seeds of a quick run; `cargo xtask simulate` takes any number.
const SEEDS: u64 = 150;

#[test]
fn no_seed_breaks_an_invariant() {
    for seed in 1..=SEEDS {
        if run(seed, None, false).violation.is_some() {
            let again = run(seed, None, true);
            panic!("{}", report::failure(&again, &format!("cargo xtask simulate --seed {seed}")));
        }
    }
}

#[test]
fn one_seed_gives_one_history() {
    for seed in [3, 14, 159] {
        let (first, second, third) =
            (run(seed, None, false), run(seed, None, true), run(seed + 1, None, false));
        assert_eq!(first.digest, second.digest);
        assert_eq!(first.tally, second.tally);
        assert_ne!(first.digest, third.digest);
    }
}
