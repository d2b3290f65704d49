//! The ratchet, by itself: one lineage, retries that cost nothing, reuse that is caught.

use std::time::Duration;

use cloakroom_core::refresh::{Channel, Presented, RefreshDecision, RefreshRules, RefreshState};
use cloakroom_core::store_key::{DerivedKeys, StoreKey};
use cloakroom_core::token::opaque::{OpaqueKind, OpaqueToken};
use cloakroom_core::types::{Partition, Secret, Sid, Timestamp, TokenHash};
use proptest::prelude::*;

const RULES: RefreshRules =
    RefreshRules { grace: Duration::from_secs(30), retry_window: Duration::from_secs(24 * 3600) };
const IDLE: Duration = Duration::from_secs(7 * 24 * 3600);
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

/// A session's refresh state, and a clock moved by hand.
struct World {
    keys: DerivedKeys,
    state: RefreshState,
    now: Timestamp,
    drawn: u8,
}

impl World {
    fn new() -> (Self, OpaqueToken) {
        let sid = Sid::new(START, Partition(3), [1; 8]);
        let secret = Secret::new([9; 32]);
        let state = RefreshState::first(0, TokenHash::of(secret.expose()), START);
        let token =
            OpaqueToken { kind: OpaqueKind::Refresh, sid, lineage: 0, generation: 0, secret };
        let keys = DerivedKeys::derive(&StoreKey::from_bytes([5; 32]));
        (Self { keys, state, now: START.plus(Duration::from_secs(60)), drawn: 0 }, token)
    }

    fn advance(&mut self, secs: u64) {
        self.now = self.now.plus(Duration::from_secs(secs));
    }

    fn decide(&mut self, presented: &Presented<'_>) -> RefreshDecision {
        self.drawn = self.drawn.wrapping_add(1);
        let nonce = [self.drawn; 16];
        let decision = self.state.decide(presented, RULES, IDLE, self.now, nonce, &self.keys);
        if let RefreshDecision::Rotate { state, .. } = &decision {
            self.state = state.clone();
        }
        decision
    }

    fn refresh(&mut self, token: &OpaqueToken) -> RefreshDecision {
        self.decide(&Presented { token, channel: Channel::Body, idempotency: None })
    }

    fn refresh_with_key(&mut self, token: &OpaqueToken, key: u8) -> RefreshDecision {
        let idempotency = Some([key; 32]);
        self.decide(&Presented { token, channel: Channel::Body, idempotency })
    }

    fn refresh_by_cookie(&mut self, token: &OpaqueToken) -> RefreshDecision {
        self.decide(&Presented { token, channel: Channel::Cookie, idempotency: None })
    }

    fn rotated(&mut self, token: &OpaqueToken) -> OpaqueToken {
        match self.refresh(token) {
            RefreshDecision::Rotate { token, .. } => token,
            other => panic!("not rotated: {other:?}"),
        }
    }
}

fn same(a: &OpaqueToken, b: &OpaqueToken) -> bool {
    a.generation == b.generation && a.lineage == b.lineage && a.hash().same_as(&b.hash())
}

fn replayed(decision: RefreshDecision) -> OpaqueToken {
    match decision {
        RefreshDecision::Replay(token) => token,
        other => panic!("not a retry: {other:?}"),
    }
}

#[test]
fn f1_a_rotated_token_outside_its_grace_is_a_reuse() {
    let (mut world, first) = World::new();
    let second = world.rotated(&first);
    world.advance(30);
    assert!(matches!(world.refresh(&first), RefreshDecision::Reused));
    let third = world.rotated(&second);
    assert!(matches!(world.refresh(&first), RefreshDecision::Reused), "two behind, at once");
    assert!(matches!(world.refresh(&third), RefreshDecision::Rotate { .. }), "the control");
}

#[test]
fn lost_answer_within_grace_gets_the_same_successor_however_often() {
    let (mut world, first) = World::new();
    let lost = world.rotated(&first);
    for _ in 0..3 {
        world.advance(9);
        let again = replayed(world.refresh(&first));
        assert!(same(&again, &lost));
    }
}

#[test]
fn the_grace_is_anchored_at_the_rotation_and_retries_do_not_prolong_it() {
    let (mut world, first) = World::new();
    world.rotated(&first);
    world.advance(29);
    replayed(world.refresh(&first));
    world.advance(1);
    assert!(matches!(world.refresh(&first), RefreshDecision::Reused));
}

#[test]
fn f5_the_same_key_repeats_a_refresh_for_the_retry_window_while_the_successor_is_unused() {
    let (mut world, first) = World::new();
    let RefreshDecision::Rotate { token: lost, .. } = world.refresh_with_key(&first, 7) else {
        panic!("not rotated")
    };
    world.advance(23 * 3600);
    assert!(same(&replayed(world.refresh_with_key(&first, 7)), &lost));
    assert!(matches!(world.refresh_with_key(&first, 8), RefreshDecision::Reused), "another key");
    assert!(matches!(world.refresh(&first), RefreshDecision::Reused), "no key");
    world.rotated(&lost);
    assert!(matches!(world.refresh_with_key(&first, 7), RefreshDecision::Reused), "used");
}

#[test]
fn f5_a_key_does_not_work_beyond_the_retry_window() {
    let (mut world, first) = World::new();
    world.refresh_with_key(&first, 7);
    world.advance(24 * 3600);
    assert!(matches!(world.refresh_with_key(&first, 7), RefreshDecision::Reused));
}

#[test]
fn f4_a_retry_does_not_outlive_the_predecessors_own_lifetime() {
    let (mut world, first) = World::new();
    world.now = START.plus(IDLE - Duration::from_secs(10));
    world.refresh_with_key(&first, 7);
    world.advance(9);
    replayed(world.refresh_with_key(&first, 7));
    world.advance(1);
    assert!(matches!(world.refresh_with_key(&first, 7), RefreshDecision::Expired));
    assert!(matches!(world.refresh(&first), RefreshDecision::Expired), "in grace as well");
}

#[test]
fn a_refresh_cookie_younger_than_the_grace_is_kept() {
    let (mut world, first) = World::new();
    let RefreshDecision::Rotate { token: second, .. } = world.refresh_by_cookie(&first) else {
        panic!("not rotated")
    };
    world.advance(29);
    assert!(matches!(world.refresh_by_cookie(&second), RefreshDecision::Keep));
    world.advance(1);
    assert!(matches!(world.refresh_by_cookie(&second), RefreshDecision::Rotate { .. }));
}

#[test]
fn a_genuine_token_ahead_of_the_record_means_that_the_store_went_back() {
    let (mut world, first) = World::new();
    let before = world.state.clone();
    let second = world.rotated(&first);
    world.state = before.clone();
    assert!(matches!(world.refresh(&second), RefreshDecision::Ahead), "a generation above");
    let other = world.rotated(&first);
    assert!(!same(&other, &second));
    assert!(matches!(world.refresh(&second), RefreshDecision::Ahead), "the same, other secret");
    assert!(matches!(world.refresh(&other), RefreshDecision::Rotate { .. }), "the control");
}

#[test]
fn earlier_lineages_are_superseded_not_reused() {
    let (mut world, first) = World::new();
    let secret = Secret::new([77; 32]);
    world.state = RefreshState::first(1, TokenHash::of(secret.expose()), world.now);
    assert!(matches!(world.refresh(&first), RefreshDecision::Superseded));
}

#[test]
fn f10_what_is_stored_does_not_grow_with_rotations() {
    let (mut world, mut token) = World::new();
    for _ in 0..1000 {
        world.advance(60);
        token = world.rotated(&token);
    }
    assert_eq!(world.state.generation, 1000);
}

#[test]
fn nothing_at_rest_can_mint() {
    // With all that the record holds, but another ratchet key, the successor comes out otherwise.
    let (mut world, first) = World::new();
    let second = world.rotated(&first);
    world.keys = DerivedKeys::derive(&StoreKey::from_bytes([6; 32]));
    assert!(!same(&replayed(world.refresh(&first)), &second));
}

/// What one of two holders of the same token does next.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Refresh { thief: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0u64..100).prop_map(Step::Wait),
        any::<bool>().prop_map(|thief| Step::Refresh { thief }),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// Two parties hold one token. Whatever they do, all answers to one predecessor carry one
    /// successor, and once one has rotated twice past what the other holds, the other is caught.
    #[test]
    fn of_two_holders_the_second_rotation_past_the_others_is_caught(steps in steps()) {
        let (mut world, stolen) = World::new();
        let mut held = [stolen.clone(), stolen];
        let mut answered: Vec<(u32, TokenHash)> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(secs) => world.advance(secs),
                Step::Refresh { thief } => {
                    let mine = held[usize::from(thief)].clone();
                    let behind = world.state.generation - mine.generation;
                    match world.refresh(&mine) {
                        RefreshDecision::Rotate { token, .. } | RefreshDecision::Replay(token) => {
                            prop_assert!(behind <= 1);
                            let known = answered.iter().find(|(g, _)| *g == token.generation);
                            if let Some((_, hash)) = known {
                                prop_assert!(hash.same_as(&token.hash()));
                            }
                            answered.push((token.generation, token.hash()));
                            held[usize::from(thief)] = token;
                        }
                        RefreshDecision::Reused => {
                            prop_assert!(behind >= 1);
                            return Ok(());
                        }
                        other => prop_assert!(false, "{:?}", other),
                    }
                    prop_assert!(behind < 2, "two behind and not caught");
                }
            }
        }
    }

    /// One holder whose answers are lost at will, and who repeats with one key an attempt, is
    /// never taken for a thief.
    #[test]
    fn a_lone_holder_with_keys_is_never_caught(
        lost in prop::collection::vec(any::<bool>(), 1..80),
    ) {
        let (mut world, mut mine) = World::new();
        let mut attempt = 0u8;
        for lost in lost {
            world.advance(601);
            match world.refresh_with_key(&mine, attempt) {
                RefreshDecision::Rotate { token, .. } | RefreshDecision::Replay(token) => {
                    if !lost {
                        mine = token;
                        attempt = attempt.wrapping_add(1);
                    }
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
