//! The judge of live runs, judged: it passes what is right and finds what was planted; and a run
//! that is ended early.

mod interrupted;
mod planted;
#[allow(dead_code, reason = "no test here ends its program")]
#[path = "../../../xtask/src/skips/tell.rs"]
mod skips;
