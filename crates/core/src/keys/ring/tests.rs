use super::super::KeyEntropy;
use super::*;
use crate::store_key::StoreKey;
use crate::types::Secret;

const RULES: KeyRules = KeyRules {
    algorithm: Algorithm::EdDsa,
    rotation: Duration::from_secs(86_400),
    access_ttl: Duration::from_secs(900),
};
const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const SECRET: &str = "5f3a9c0e7b1d48268fae93c0d1b7e42c";

fn after(secs: u64) -> Timestamp {
    START.plus(Duration::from_secs(secs))
}

/// A store of keys, to which plans are committed.
struct World {
    keys: DerivedKeys,
    records: BTreeMap<Kid, KeyRecord>,
    drawn: u8,
}

impl World {
    fn new() -> Self {
        let keys = DerivedKeys::derive(&StoreKey::from_bytes([7; 32]));
        Self { keys, records: BTreeMap::new(), drawn: 0 }
    }

    fn started() -> Self {
        let mut world = Self::new();
        world.turn(START, &RULES);
        world
    }

    fn ring(&self) -> KeyRing {
        KeyRing::new(self.records.values().cloned().collect(), &self.keys, None).expect("prepares")
    }

    fn turn(&mut self, now: Timestamp, rules: &KeyRules) -> usize {
        let plan = self.ring().plan(now, rules);
        let changes = plan.len();
        self.commit(plan, now);
        changes
    }

    fn commit(&mut self, changes: Vec<KeyChange>, now: Timestamp) {
        for change in changes {
            match change {
                KeyChange::Generate(algorithm, fresh) => {
                    self.drawn += 1;
                    let entropy =
                        KeyEntropy { seed: Secret::new([self.drawn; 32]), nonce: [self.drawn; 12] };
                    let record = KeyRecord::generate(algorithm, fresh, &entropy, &self.keys, now)
                        .expect("generates");
                    assert!(self.records.insert(record.kid.clone(), record).is_none());
                }
                KeyChange::Put(record) => {
                    assert!(self.records.insert(record.kid.clone(), record).is_some());
                }
                KeyChange::Remove(kid) => assert!(self.records.remove(&kid).is_some()),
            }
        }
        self.check(now);
    }

    /// What must hold after every commit.
    fn check(&self, now: Timestamp) {
        let count = |state| self.records.values().filter(|record| record.state == state).count();
        assert!(count(KeyState::Active) <= 1 && count(KeyState::Next) <= 1);
        for record in self.records.values() {
            let stopped = matches!(record.state, KeyState::Retired | KeyState::Revoked);
            assert_eq!(record.retires_at.is_some(), stopped);
            assert_eq!(record.removed_at.is_some(), stopped);
            assert_eq!(record.private.is_empty(), record.state == KeyState::Revoked);
        }
        assert_public_only(&self.ring().jwks(now));
    }

    fn one(&self, state: KeyState) -> KeyRecord {
        self.records.values().find(|record| record.state == state).expect("there is one").clone()
    }

    fn published(&self, now: Timestamp) -> Vec<String> {
        let jwks = self.ring().jwks(now);
        let keys = jwks["keys"].as_array().expect("an array");
        keys.iter().map(|jwk| jwk["kid"].as_str().expect("text").to_owned()).collect()
    }
}

fn assert_public_only(jwks: &Value) {
    let keys = jwks["keys"].as_array().expect("an array");
    let kids: std::collections::BTreeSet<_> =
        keys.iter().map(|jwk| jwk["kid"].to_string()).collect();
    assert_eq!(kids.len(), keys.len(), "kids are unique");
    for jwk in keys {
        for member in jwk.as_object().expect("an object").keys() {
            let known = ["kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"];
            assert!(known.contains(&member.as_str()), "{member}");
        }
        assert_ne!(jwk["alg"], "HS256");
    }
}

fn is_known(ring: &KeyRing, kid: &Kid, now: Timestamp) -> bool {
    matches!(ring.known(kid.as_str(), now), Some(Known::Good(_)))
}

#[test]
fn the_first_start_makes_a_key_that_signs_and_publishes_the_next() {
    let mut world = World::new();
    assert!(world.ring().signer().is_none());
    assert_eq!(world.turn(START, &RULES), 2);
    let active = world.one(KeyState::Active);
    assert_eq!(world.ring().signer().map(SigningKey::kid), Some(&active.kid));
    assert_eq!(world.published(START).len(), 2);
    assert_eq!(world.turn(after(1), &RULES), 0, "nothing else is due");
}

#[test]
fn e9_a_key_turns_over_by_the_table() {
    let mut world = World::started();
    let (first, second) = (world.one(KeyState::Active), world.one(KeyState::Next));
    let state = |world: &World, kid: &Kid| world.records.get(kid).map(|record| record.state);
    // seconds after the start, changes due, states of the first and the second key then
    let table = [
        (299, 0, Some(KeyState::Active), Some(KeyState::Next)),
        (86_399, 0, Some(KeyState::Active), Some(KeyState::Next)),
        (86_400, 3, Some(KeyState::Retired), Some(KeyState::Active)),
        (86_400 + 914, 0, Some(KeyState::Retired), Some(KeyState::Active)),
        (86_400 + 915, 1, None, Some(KeyState::Active)),
        (2 * 86_400 - 1, 0, None, Some(KeyState::Active)),
        (2 * 86_400, 3, None, Some(KeyState::Retired)),
    ];
    for (secs, changes, of_first, of_second) in table {
        assert_eq!(world.turn(after(secs), &RULES), changes, "at {secs}");
        assert_eq!(state(&world, &first.kid), of_first, "at {secs}");
        assert_eq!(state(&world, &second.kid), of_second, "at {secs}");
    }
}

#[test]
fn e9_no_key_signs_before_it_was_published_for_the_cache_time() {
    let hasty = KeyRules { rotation: Duration::from_secs(1), ..RULES };
    let mut world = World::started();
    let mut published_at = BTreeMap::new();
    let first = world.one(KeyState::Active).kid;
    for secs in 0..2000 {
        let now = after(secs);
        world.turn(now, &hasty);
        for kid in world.published(now) {
            published_at.entry(kid).or_insert(secs);
        }
        let signer = world.ring().signer().expect("one signs").kid().clone();
        let since = published_at[signer.as_str()];
        assert!(signer == first || secs >= since + 300, "{signer} at {secs}, published at {since}");
    }
    assert!(published_at.len() > 6, "keys did turn over");
}

#[test]
fn e9_a_retired_key_verifies_until_its_last_token_is_over() {
    let mut world = World::started();
    let first = world.one(KeyState::Active).kid;
    world.turn(after(86_400), &RULES);
    // The last token is signed at the change, lives 900 s and has 5 s of leeway.
    let last = after(86_400 + 905);
    assert!(is_known(&world.ring(), &first, last));
    assert!(world.published(last).contains(&first.to_string()));
    // Nothing swept it yet, and it is over all the same.
    let over = after(86_400 + 915);
    assert!(world.ring().known(first.as_str(), over).is_none());
    assert!(!world.published(over).contains(&first.to_string()));
}

#[test]
fn rotating_now_waits_for_the_cache_time() {
    let mut world = World::started();
    let next = world.one(KeyState::Next);
    let refused = world.ring().rotate_now(after(299), &RULES);
    assert_eq!(refused, Err(RotateRefused::NotYet { at: after(300) }));
    let changes = world.ring().rotate_now(after(300), &RULES).expect("is ready");
    world.commit(changes, after(300));
    assert_eq!(world.one(KeyState::Active).kid, next.kid);
    assert_eq!(world.one(KeyState::Active).activates_at, after(300));
    assert_eq!(
        world.ring().rotate_now(after(301), &RULES),
        Err(RotateRefused::NotYet { at: after(600) })
    );
}

#[test]
fn e10_revoking_the_active_key_leaves_a_working_one() {
    let mut world = World::started();
    let (active, next) = (world.one(KeyState::Active), world.one(KeyState::Next));
    let changes = world.ring().revoke(active.kid.as_str(), after(10), &RULES).expect("is there");
    world.commit(changes, after(10));
    assert_eq!(world.one(KeyState::Active).kid, next.kid, "at once, though young");
    assert_ne!(world.one(KeyState::Next).kid, next.kid);
    let ring = world.ring();
    assert!(matches!(ring.known(active.kid.as_str(), after(10)), Some(Known::Revoked(_))));
    assert!(!world.published(after(10)).contains(&active.kid.to_string()));
    let again = ring.revoke(active.kid.as_str(), after(11), &RULES);
    assert_eq!(again, Ok(Vec::new()));
    // Its record goes when nothing it signed could be valid; it stays unknown from then on.
    assert_eq!(world.turn(after(10 + 914), &RULES), 0);
    assert_eq!(world.turn(after(10 + 915), &RULES), 1);
    assert!(world.ring().known(active.kid.as_str(), after(10 + 915)).is_none());
}

#[test]
fn e10_revoking_the_last_key_makes_another() {
    let mut world = World::started();
    let next = world.one(KeyState::Next).kid;
    world.records.remove(&next);
    let active = world.one(KeyState::Active).kid;
    let changes = world.ring().revoke(active.as_str(), after(10), &RULES).expect("is there");
    world.commit(changes, after(10));
    let successor = world.one(KeyState::Active);
    assert_ne!(successor.kid, active);
    assert_eq!(world.ring().signer().map(SigningKey::kid), Some(&successor.kid));
    assert_ne!(world.one(KeyState::Next).kid, next);
}

#[test]
fn e10_revoking_the_next_or_a_retired_key_leaves_the_active_one() {
    let mut world = World::started();
    world.turn(after(86_400), &RULES);
    let active = world.one(KeyState::Active).kid;
    for state in [KeyState::Next, KeyState::Retired] {
        let kid = world.one(state).kid;
        let changes = world.ring().revoke(kid.as_str(), after(86_401), &RULES).expect("is there");
        world.commit(changes, after(86_401));
        assert_eq!(world.records[&kid].state, KeyState::Revoked);
        assert_eq!(world.one(KeyState::Active).kid, active);
        assert_eq!(world.one(KeyState::Next).algorithm, Algorithm::EdDsa);
    }
    let unknown = world.ring().revoke("nobody", after(86_402), &RULES);
    assert_eq!(unknown, Err(RevokeRefused::Unknown));
}

#[test]
fn another_algorithm_takes_over_as_a_next_key_does() {
    let mut world = World::started();
    let es256 = KeyRules { algorithm: Algorithm::Es256, ..RULES };
    let old = world.one(KeyState::Active).kid;
    world.turn(after(10), &es256);
    assert_eq!(world.one(KeyState::Active).kid, old);
    world.turn(after(11), &es256);
    assert_eq!(world.one(KeyState::Next).algorithm, Algorithm::Es256);
    world.turn(after(309), &es256);
    assert_eq!(world.one(KeyState::Active).kid, old);
    world.turn(after(311), &es256);
    assert_eq!(world.one(KeyState::Active).algorithm, Algorithm::Es256);
    assert_eq!(world.one(KeyState::Retired).kid, old);
}

#[test]
fn a_shared_secret_signs_while_the_stored_keys_only_verify() {
    let mut world = World::started();
    let hs256 = KeyRules { algorithm: Algorithm::Hs256, ..RULES };
    let old = world.one(KeyState::Active).kid;
    world.turn(after(10), &hs256);
    assert_eq!(world.turn(after(11), &hs256), 0);
    assert_eq!(world.records.len(), 1, "the next key is gone, the active one retired");
    let secret = Hs256Secret::parse(SECRET).expect("sound");
    let records = world.records.values().cloned().collect();
    let ring = KeyRing::new(records, &world.keys, Some(&secret)).expect("prepares");
    let signer = ring.signer().expect("one signs");
    assert_eq!(signer.algorithm(), Algorithm::Hs256);
    assert!(is_known(&ring, signer.kid(), after(10)) && is_known(&ring, &old, after(10)));
    assert_public_only(&ring.jwks(after(10)));
    assert_eq!(ring.rotate_now(after(10), &hs256), Err(RotateRefused::SharedSecret));
    let revoked = ring.revoke(signer.kid().as_str(), after(10), &hs256);
    assert_eq!(revoked, Err(RevokeRefused::SharedSecret));
    // Back to EdDSA: the retired key doesn't come back, a new one signs.
    world.turn(after(20), &RULES);
    assert_ne!(world.one(KeyState::Active).kid, old);
}

#[test]
fn two_active_keys_are_brought_back_to_one() {
    let mut world = World::started();
    let mut other = World::new();
    other.drawn = 100;
    other.turn(after(5), &RULES);
    world.records.append(&mut other.records);
    let plan = world.ring().plan(after(6), &RULES);
    let signer = world.ring().signer().expect("one signs").kid().clone();
    world.commit(plan, after(6));
    assert_eq!(world.one(KeyState::Active).kid, signer);
    assert_eq!(world.one(KeyState::Active).activates_at, after(5));
}

#[test]
fn a_ring_that_can_not_be_unsealed_is_a_fault() {
    let world = World::started();
    let records = world.records.values().cloned().collect();
    let others = DerivedKeys::derive(&StoreKey::from_bytes([8; 32]));
    assert_eq!(KeyRing::new(records, &others, None).err(), Some(KeyFault::Sealed));
}
