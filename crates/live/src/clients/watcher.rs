//! Whoever looks: at sessions of others, most of all at ended ones, and around an expiry.

use std::thread;
use std::time::Duration;

use super::{Talk, any_subject, pause};
use crate::history::SECOND;

pub(super) fn play(talk: &mut Talk<'_>) {
    while !talk.shared.is_over() {
        pause(&mut talk.random, 25);
        let ended = talk.random.percent(60);
        let known = if ended {
            talk.shared.any_ended(&mut talk.random)
        } else {
            talk.shared.any_known(&mut talk.random)
        };
        let Some(known) = known else { continue };
        let node = talk.any_node();
        talk.verify(node, &known);
    }
}

pub(super) fn play_expiring(talk: &mut Talk<'_>) {
    while !talk.shared.is_over() {
        let lifetime = 2 + talk.random.below(3) as u64;
        let subject = any_subject(&mut talk.random);
        let Some(own) = talk.open(subject, Some(lifetime)) else {
            pause(&mut talk.random, 100);
            continue;
        };
        let expires_at = talk.shared.stopwatch.at() + lifetime * SECOND;
        while talk.shared.stopwatch.at() < expires_at + SECOND / 2 && !talk.shared.is_over() {
            let left = expires_at.saturating_sub(talk.shared.stopwatch.at());
            thread::sleep(Duration::from_millis(if left > SECOND / 2 { 200 } else { 10 }));
            let node = talk.any_node();
            talk.verify(node, &own.known);
        }
    }
}
