//! A stream by hand, a clock by hand, tokens signed here.

use std::cell::RefCell;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::keys::{Algorithm, SigningKey};
use cloakroom_core::token::access::{ExtraClaims, issue, new_jti};
use cloakroom_core::types::{Partition, Secret};
use serde_json::json;

use super::*;

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const SECOND: Duration = Duration::from_secs(1);

struct World {
    verifier: Verifier,
    key: SigningKey,
    now: Moment,
    /// Tokens that were live, with what is kept of them.
    genuine: RefCell<BTreeMap<String, (AccessClaims, String)>>,
}

fn key_set(keys: &[&SigningKey]) -> Value {
    let jwk = |key: &&SigningKey| {
        let x = URL_SAFE_NO_PAD.encode(key.public());
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": key.kid().as_str(), "alg": "EdDSA"})
    };
    json!({"keys": keys.iter().map(jwk).collect::<Vec<_>>()})
}

fn signing_key(seed: u8) -> SigningKey {
    SigningKey::generate(Algorithm::EdDsa, &Secret::new([seed; 32])).expect("a key")
}

fn sid(n: u8) -> Sid {
    Sid::new(START, Partition(1), [n; 8])
}

fn subject(name: &str) -> Subject {
    Subject::parse(name).expect("a subject")
}

/// When an ending may be forgotten.
fn later() -> Timestamp {
    START.plus(3600 * SECOND)
}

fn at(moment: Timestamp) -> Value {
    let text = jiff::Timestamp::from_millisecond(moment.as_millis()).expect("a time").to_string();
    Value::String(text)
}

impl World {
    /// A verifier that has a key, the snapshot, and a heartbeat of this moment.
    fn new() -> Self {
        let audiences = ["cloakroom".to_owned()];
        let foreign = ["upstream".to_owned()];
        let verifier = Verifier::new("https://id.example", &audiences, &foreign, 2 * SECOND);
        let now = Moment { wall: START, steady: 100 * SECOND };
        let genuine = RefCell::default();
        let mut world = Self { verifier, key: signing_key(1), now, genuine };
        world.snapshot(json!({}));
        world.beat();
        world
    }

    /// Takes a snapshot and then the key set, as whoever follows does.
    fn snapshot(&mut self, more: Value) {
        let mut snapshot = json!({
            "sessions": [], "subjects": [], "tokens": [], "keys": [], "all": null, "cursor": "c1",
        });
        for (name, value) in more.as_object().expect("an object") {
            snapshot[name] = value.clone();
        }
        let snapshot = snapshot.as_object().expect("an object");
        assert_eq!(self.verifier.take_snapshot(snapshot).as_deref(), Some("c1"));
        assert!(self.verifier.wants_keys(self.now));
        self.take_keys(&[&signing_key(1)]);
    }

    fn take_keys(&mut self, keys: &[&SigningKey]) {
        self.verifier.take_keys(&key_set(keys), self.now).expect("a key set");
    }

    fn tell(&mut self, event: &str, data: Value) -> Told {
        let message = Message { id: None, event: event.to_owned(), data };
        self.verifier.take_event(&message, self.now)
    }

    fn beat(&mut self) {
        assert_eq!(self.tell("heartbeat", json!({"at": at(self.now.wall)})), Told::Nothing);
    }

    fn pass(&mut self, span: Duration) {
        self.now = Moment { wall: self.now.wall.plus(span), steady: self.now.steady + span };
    }

    fn claims(&self) -> AccessClaims {
        AccessClaims {
            issuer: "https://id.example".into(),
            subject: subject("ada"),
            audience: vec!["cloakroom".into()],
            expires_at: START.plus(900 * SECOND),
            not_before: START.minus(5 * SECOND),
            issued_at: START,
            jti: new_jti(Partition(1), [1; 16]),
            sid: sid(1),
            auth_time: START,
            amr: vec!["pwd".into()],
            acr: "aal1".into(),
            epoch: 3,
            actor: None,
            claims: Map::new(),
        }
    }

    fn sign(&self, claims: &AccessClaims) -> String {
        issue(&self.key, claims, &ExtraClaims::default()).expect("a token")
    }

    /// What becomes of a token; and of one that was live before it must be the same when only what
    /// may have changed is looked at.
    fn judge(&self, token: &str) -> Verdict {
        let verdict = self.verifier.judge(token, self.now);
        if let Some((claims, kid)) = self.genuine.borrow().get(token) {
            match (self.verifier.judge_again(claims, kid, self.now), &verdict) {
                (Ok(()), Verdict::Live(_))
                | (Err(Verdict::Ask), Verdict::Ask | Verdict::FetchKeys) => {}
                // A key that isn't known any more: the token is looked at anew.
                (Err(Verdict::Ask), Verdict::Refused(Refusal::TokenInvalid)) => {}
                (Err(again), first) => assert_eq!(again, *first),
                (Ok(()), refused) => panic!("live the second time, the first {refused:?}"),
            }
        }
        if let Verdict::Live(claims) = &verdict {
            let kid = access::named_key(token).expect("a key's name");
            self.genuine.borrow_mut().insert(token.to_owned(), ((**claims).clone(), kid));
        }
        verdict
    }

    fn verdict(&self) -> Verdict {
        self.judge(&self.sign(&self.claims()))
    }
}

fn refused(refusal: Refusal) -> Verdict {
    Verdict::Refused(refusal)
}

#[test]
fn a_good_token_is_live_and_says_what_it_says() {
    let world = World::new();
    assert_eq!(world.verdict(), Verdict::Live(Box::new(world.claims())));
}

#[test]
fn e1_a_bad_token_is_refused_for_what_it_is() {
    let mut world = World::new();
    let good = world.sign(&world.claims());
    assert_eq!(world.judge("junk"), refused(Refusal::TokenInvalid));
    assert_eq!(world.judge(&format!("{good}x")), refused(Refusal::TokenInvalid));
    assert_eq!(world.judge("ckr_x"), refused(Refusal::TokenWrongType));
    let with = |change: fn(&mut AccessClaims)| {
        let mut claims = world.claims();
        change(&mut claims);
        world.judge(&world.sign(&claims))
    };
    let elsewhere = with(|claims| claims.issuer = "https://other.example".into());
    assert_eq!(elsewhere, refused(Refusal::TokenInvalid));
    let others = with(|claims| claims.audience = vec!["other".into()]);
    assert_eq!(others, refused(Refusal::TokenInvalid));
    let gateways = with(|claims| claims.audience = vec!["cloakroom".into(), "upstream".into()]);
    assert_eq!(gateways, refused(Refusal::TokenWrongType));
    world.pass(906 * SECOND);
    world.beat();
    assert_eq!(world.judge(&good), refused(Refusal::TokenExpired));
}

#[test]
fn what_was_revoked_is_refused_from_the_event_on() {
    for (event, data, verdict) in [
        (
            "session",
            json!({"sid": sid(1).to_string(), "reason": "signed_out", "until": at(later())}),
            refused(Refusal::SessionEnded(EndReason::SignedOut)),
        ),
        (
            "session",
            json!({"sid": sid(1).to_string(), "auth_time": at(START.plus(SECOND))}),
            refused(Refusal::TokenInvalid),
        ),
        (
            "token",
            json!({"jti": new_jti(Partition(1), [1; 16]), "until": at(START.plus(900 * SECOND))}),
            refused(Refusal::TokenInvalid),
        ),
        ("subject", json!({"subject": "ada", "epoch": 4}), Verdict::Ask),
        (
            "subject",
            json!({"subject": "ada", "epoch": 4, "except": sid(1).to_string()}),
            refused(Refusal::TokenExpired),
        ),
        ("all", json!({"at": at(START)}), Verdict::Ask),
        (
            "key",
            json!({"kid": signing_key(1).kid().as_str(), "state": "revoked"}),
            refused(Refusal::TokenInvalid),
        ),
    ] {
        let mut world = World::new();
        world.tell(event, data.clone());
        assert_eq!(world.verdict(), verdict, "{event} {data}");
        // And by the snapshot alike, for whoever comes later.
        let mut later = World::new();
        let member = match event {
            "all" => json!({"all": data}),
            _ => json!({format!("{event}s"): [data]}),
        };
        later.snapshot(member);
        later.beat();
        assert_eq!(later.verdict(), verdict, "{event} in the snapshot");
    }
}

#[test]
fn what_was_revoked_for_others_is_no_matter() {
    let mut world = World::new();
    let until = at(later());
    world.tell(
        "session",
        json!({"sid": sid(2).to_string(), "reason": "signed_out", "until": until}),
    );
    world.tell("subject", json!({"subject": "ada", "epoch": 3}));
    world.tell("subject", json!({"subject": "eve", "epoch": 9}));
    world.tell("changed", json!({"sid": sid(1).to_string()}));
    world.tell("something_new", json!({"x": 1}));
    assert!(matches!(world.verdict(), Verdict::Live(_)));
}

#[test]
fn g9_without_a_recent_heartbeat_there_is_no_telling() {
    let mut world = World::new();
    world.pass(Duration::from_millis(1_999));
    assert!(matches!(world.verdict(), Verdict::Live(_)));
    // Other events prove nothing.
    world.tell("changed", json!({"sid": sid(9).to_string()}));
    world.pass(Duration::from_millis(1));
    assert_eq!(world.verdict(), Verdict::Ask);
    // Nor does a heartbeat that speaks of long ago.
    world.tell("heartbeat", json!({"at": at(START)}));
    assert_eq!(world.verdict(), Verdict::Ask);
    world.beat();
    assert!(matches!(world.verdict(), Verdict::Live(_)));
    world.verifier.lose_stream();
    assert_eq!(world.verdict(), Verdict::Ask);
    world.beat();
    for message in [("reset", json!({})), ("heartbeat", json!({})), ("session", json!({"sid": 1}))]
    {
        world.beat();
        assert_eq!(world.tell(message.0, message.1), Told::Reset, "{}", message.0);
        assert_eq!(world.verdict(), Verdict::Ask);
    }
}

#[test]
fn a_clock_that_was_set_makes_nothing_fresh() {
    let mut world = World::new();
    // Set back by an hour, while two seconds really passed.
    world.now.steady += 2 * SECOND;
    world.now.wall = world.now.wall.minus(Duration::from_secs(3600));
    assert_eq!(world.verdict(), Verdict::Ask);
    // Ahead of the authority's by more than may be: ask, for it can tell.
    let mut ahead = World::new();
    ahead.now.wall = ahead.now.wall.plus(3 * SECOND);
    assert_eq!(ahead.verdict(), Verdict::Ask);
}

#[test]
fn a_clock_that_is_apart_from_ours_decides_nothing_and_is_told() {
    let mut world = World::new();
    world.beat();
    assert_eq!(world.verifier.clock_difference(world.now), None);
    for apart in [Duration::from_secs(3), Duration::from_secs(3600)] {
        for wall in [world.now.wall.plus(apart), world.now.wall.minus(apart)] {
            let now = Moment { wall, ..world.now };
            assert!(!world.verifier.is_fresh(now));
            assert_eq!(world.verifier.clock_difference(now), Some(apart));
        }
    }
    // A heartbeat that is merely old is no matter of clocks.
    world.pass(Duration::from_secs(5));
    assert_eq!(world.verifier.clock_difference(world.now), None);
}

#[test]
fn e14_unknown_keys_cost_one_fetch_a_minute() {
    let mut world = World::new();
    let known = world.sign(&world.claims());
    world.key = signing_key(2);
    let unknown = world.sign(&world.claims());
    // The set was fetched a moment ago.
    assert_eq!(world.judge(&unknown), refused(Refusal::TokenInvalid));
    world.pass(60 * SECOND);
    world.beat();
    assert_eq!(world.judge(&unknown), Verdict::FetchKeys);
    world.verifier.keys_failed(world.now);
    for seed in 3..100 {
        world.key = signing_key(seed);
        let random = world.sign(&world.claims());
        assert_eq!(world.judge(&random), refused(Refusal::TokenInvalid));
    }
    assert!(matches!(world.judge(&known), Verdict::Live(_)), "known keys are still served");
    world.pass(60 * SECOND);
    world.beat();
    assert_eq!(world.judge(&unknown), Verdict::FetchKeys);
    let set = key_set(&[&signing_key(2)]);
    world.verifier.take_keys(&set, world.now).expect("a key set");
    assert!(matches!(world.judge(&unknown), Verdict::Live(_)));
    // A key that is published no more verifies no more.
    assert_eq!(world.judge(&known), refused(Refusal::TokenInvalid));
}

#[test]
fn e10_a_key_that_was_revoked_and_removed_in_an_outage_is_not_known_after_it() {
    let mut world = World::new();
    let stolen = world.sign(&world.claims());
    assert!(matches!(world.judge(&stolen), Verdict::Live(_)));
    assert_eq!(world.tell("reset", json!({})), Told::Reset);
    // The snapshot names a removed key no more: only the new key set tells.
    world.snapshot(json!({"keys": []}));
    world.take_keys(&[&signing_key(2)]);
    world.beat();
    assert_eq!(world.judge(&stolen), refused(Refusal::TokenInvalid));
    world.key = signing_key(2);
    assert!(matches!(world.verdict(), Verdict::Live(_)));
}

#[test]
fn e10_after_a_snapshot_nothing_is_verified_by_keys_of_before() {
    let mut world = World::new();
    let token = world.sign(&world.claims());
    assert!(matches!(world.judge(&token), Verdict::Live(_)));
    let snapshot = json!({
        "sessions": [], "subjects": [], "tokens": [], "keys": [], "all": null, "cursor": "c2",
    });
    let taken = world.verifier.take_snapshot(snapshot.as_object().expect("an object"));
    assert_eq!(taken.as_deref(), Some("c2"));
    // Fresh it may be; without a key set it decides nothing.
    world.beat();
    assert_eq!(world.judge(&token), Verdict::FetchKeys);
    world.verifier.keys_failed(world.now);
    assert_eq!(world.judge(&token), Verdict::Ask);
}

#[test]
fn an_authority_that_publishes_no_keys_is_asked() {
    let mut world = World::new();
    let set = json!({"keys": []});
    world.verifier.take_keys(&set, world.now).expect("a key set");
    assert_eq!(world.verdict(), Verdict::Ask);
}

#[test]
fn a_view_that_was_read_before_a_change_counts_no_more() {
    let ada = subject("ada");
    for (event, data) in [
        ("session", json!({"sid": sid(1).to_string(), "reason": "x", "until": at(later())})),
        ("session", json!({"sid": sid(1).to_string(), "auth_time": at(START)})),
        ("subject", json!({"subject": "ada", "epoch": 4})),
        ("changed", json!({"sid": sid(1).to_string()})),
        ("changed", json!({"subject": "ada"})),
        ("all", json!({"at": at(START)})),
    ] {
        let mut world = World::new();
        let before = world.verifier.stamp();
        assert!(world.verifier.still_stands(sid(1), Some(&ada), before));
        world.tell(event, data.clone());
        assert!(!world.verifier.still_stands(sid(1), Some(&ada), before), "{event} {data}");
        let after = world.verifier.stamp();
        let over = data.get("reason").is_some();
        assert_eq!(world.verifier.still_stands(sid(1), Some(&ada), after), !over, "{event}");
        if event != "all" {
            assert!(world.verifier.still_stands(sid(2), Some(&subject("eve")), before));
        }
    }
    let mut world = World::new();
    let before = world.verifier.stamp();
    world.snapshot(json!({}));
    assert!(!world.verifier.still_stands(sid(1), None, before), "what was missed isn't known");
}

#[test]
fn what_this_process_ended_is_over_here_at_once() {
    let mut world = World::new();
    world.verifier.ended_here(sid(1), EndReason::SignedOut, world.now);
    assert_eq!(world.verdict(), refused(Refusal::SessionEnded(EndReason::SignedOut)));
    let mut world = World::new();
    let before = world.verifier.stamp();
    world.verifier.raised_here(&subject("ada"), world.now);
    assert_eq!(world.verdict(), Verdict::Ask);
    assert!(!world.verifier.still_stands(sid(1), Some(&subject("ada")), before));
    world.pass(10 * SECOND);
    world.beat();
    assert!(matches!(world.verdict(), Verdict::Live(_)));
}
