//! A thief with a copy of a refresh token, and the user it was copied from.

use super::{Talk, any_subject, held, pause};
use crate::fleet::GRACE_SECS;
use crate::history::Turn;

pub(super) fn play(talk: &mut Talk<'_>) {
    while !talk.shared.is_over() {
        let subject = any_subject(&mut talk.random);
        let Some(own) = talk.open(subject, None).filter(|own| !own.refresh.is_empty()) else {
            pause(&mut talk.random, 100);
            continue;
        };
        held(&talk.shared.stolen).insert(own.known.sid.clone());
        // The user's token, and the thief's copy of it.
        let mut holds = [own.refresh.clone(), own.refresh.clone()];
        while !talk.shared.is_over() {
            let party = talk.random.below(2);
            let node = talk.any_node();
            match talk.refresh(node, &own.known, &holds[party].clone(), None) {
                Some(Turn::Next(next)) => holds[party] = next,
                Some(Turn::Over(_) | Turn::Reused | Turn::Refused(_)) => break,
                None => {}
            }
            // Now within the grace, now after it.
            let most = if talk.random.percent(40) { GRACE_SECS as usize * 1500 } else { 300 };
            pause(&mut talk.random, most);
        }
        for _ in 0..2 {
            let node = talk.any_node();
            talk.verify(node, &own.known);
        }
    }
}
