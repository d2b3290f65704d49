//! Worlds that must go well, and broken rules that must be noticed.

use cloakroom_sim::{report, run};

/// Seeds of a quick run; `cargo xtask simulate` takes any number.
const SEEDS: u64 = 150;

#[test]
fn no_seed_breaks_an_invariant() {
    for seed in 1..=SEEDS {
        if run(seed, None, false).violation.is_some() {
            let again = run(seed, None, true);
            let command = format!("cargo xtask simulate --seed {seed}");
            panic!("{}", report::failure(&again, &command, report::SHOWN));
        }
    }
}

/// Seeds that have broken an invariant once; what they showed is mended.
const ONCE_BROKEN: [u64; 13] =
    [437, 554, 2_220, 3_617, 3_638, 7_525, 16_825, 18_052, 22_512, 58_914, 61_029, 77_170, 86_680];

#[test]
fn seeds_that_once_broke_an_invariant_break_none() {
    for seed in ONCE_BROKEN {
        assert!(run(seed, None, false).violation.is_none(), "seed {seed}");
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
