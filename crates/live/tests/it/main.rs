//! The judge of live runs, judged: it passes what is right and finds what was planted.

mod planted;
