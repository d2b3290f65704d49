//! Attacks on what a token claims (section Q6 of the security tests): each token is signed with the
//! authority's own key, so each refusal is due to the claims alone.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::json::{Map, parse_object};
use cloakroom_core::keys::Algorithm;
use cloakroom_core::limits::TOKEN_LEEWAY;
use cloakroom_core::token::TokenRefusal;
use cloakroom_core::token::access::{
    AccessClaims, Expectation, ExtraClaims, IssueFault, REGISTERED, check_claims, issue,
    jti_partition, new_jti, verify,
};
use cloakroom_core::types::{Partition, Subject, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::forge::{Forge, ISSUER, NOW, Payload, good_claims};

fn hs256() -> Forge {
    Forge::new(Algorithm::Hs256)
}

fn signed(forge: &Forge, payload: &Payload) -> String {
    forge.token(forge.good_header(), payload.text())
}

fn object(value: Value) -> Map {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

fn payload_of(token: &str) -> Map {
    let payload = token.split('.').nth(1).expect("three parts");
    parse_object(&URL_SAFE_NO_PAD.decode(payload).expect("base64url")).expect("strict JSON")
}

#[test]
fn an_issued_token_says_what_it_was_told() {
    for forge in Forge::all() {
        let claims = AccessClaims {
            actor: Some(Subject::parse("usr_helper").expect("sound")),
            audience: vec!["cloakroom".into(), "shop".into()],
            ..good_claims()
        };
        let token = forge.issue(&claims, &ExtraClaims::default());
        assert_eq!(forge.verdict(&token), Ok(claims));
        let payload = payload_of(&token);
        assert_eq!(payload["act"], json!({"sub": "usr_helper"}));
        assert_eq!(payload["aud"], json!(["cloakroom", "shop"]));
        let plain = forge.issue(&good_claims(), &ExtraClaims::default());
        assert_eq!(forge.verdict(&plain), Ok(good_claims()));
        assert_eq!(payload_of(&plain)["aud"], "cloakroom");
        let header = URL_SAFE_NO_PAD.decode(plain.split('.').next().expect("a part"));
        let header = parse_object(&header.expect("base64url")).expect("strict JSON");
        let members: Vec<_> = header.keys().map(String::as_str).collect();
        assert_eq!(members, ["alg", "kid", "typ"]);
    }
}

#[test]
fn e4_every_registered_claim_is_required() {
    let forge = hs256();
    for name in Payload::good().names() {
        let token = signed(&forge, &Payload::good().without(&name));
        if name == "role" {
            assert!(forge.verdict(&token).is_ok());
        } else {
            forge.assert_invalid(&token, &name);
        }
    }
}

/// What is no instant of ours, parted by spaces.
const NO_INSTANTS: &str = r#""9999999999" 9999999999.9 1800000900.0 1e10 1.8e9 1e400 -1 -0
    9007199254740993 9223372036854775808 18446744073709551616 253402300800
    null true [] [1800000900] {} """#;

#[test]
fn e4_q6_an_ill_typed_instant_is_not_an_absent_one() {
    let forge = hs256();
    for name in ["exp", "nbf", "iat", "auth_time"] {
        for raw in NO_INSTANTS.split_whitespace() {
            let token = signed(&forge, &Payload::good().with(name, raw));
            forge.assert_invalid(&token, &format!("{name}: {raw}"));
        }
    }
}

#[test]
fn e4_q6_an_ill_typed_claim_is_not_an_absent_one() {
    let forge = hs256();
    for (name, raws) in [
        ("sub", r#"1 null [] ["usr_1"] "" "a\u0000b" {}"#),
        ("sid", r#"1 null "" "01J" "01jabcdefghjkmnpqrstvwxyz0""#),
        ("jti", r#"1 null "" "abc" "AAcJCQkJCQkJCQkJCQkJCQkJCQ" []"#),
        ("amr", r#""pwd" null [1] ["pwd",null] {}"#),
        ("acr", r#"1 null ["aal1"]"#),
        ("epoch", r#"-1 1.5 1e2 "3" null 18446744073709551616"#),
        ("act", r#"null "usr_2" {} {"sub":1} {"sub":"a","iss":"b"}"#),
    ] {
        for raw in raws.split_whitespace() {
            let token = signed(&forge, &Payload::good().with(name, raw));
            forge.assert_invalid(&token, &format!("{name}: {raw}"));
        }
    }
    let too_long = Payload::good().with("sub", &format!("{:?}", "x".repeat(256)));
    forge.assert_invalid(&signed(&forge, &too_long), "a long sub");
}

#[test]
fn e4_the_issuer_is_exact() {
    let forge = hs256();
    for raw in [
        r#""https://auth.example/""#,
        r#""https://AUTH.example""#,
        r#""http://auth.example""#,
        r#""https://auth.example ""#,
        r#""https://other.example""#,
        r#""""#,
        "null",
        "1",
        r#"["https://auth.example"]"#,
    ] {
        forge.assert_invalid(&signed(&forge, &Payload::good().with("iss", raw)), raw);
    }
}

#[test]
fn e4_e12_the_audience_is_ours_and_nobody_elses_gateway() {
    let forge = hs256();
    for raw in [r#""cloakroom""#, r#"["cloakroom"]"#, r#"["shop","cloakroom"]"#] {
        assert!(forge.verdict(&signed(&forge, &Payload::good().with("aud", raw))).is_ok(), "{raw}");
    }
    for raw in [
        "null",
        "1",
        "[]",
        "{}",
        r#""""#,
        r#""other""#,
        r#""cloakroom ""#,
        r#""Cloakroom""#,
        r#"["other"]"#,
        r#"[["cloakroom"]]"#,
        r#"["cloakroom",1]"#,
        r#"{"0":"cloakroom"}"#,
    ] {
        forge.assert_invalid(&signed(&forge, &Payload::good().with("aud", raw)), raw);
    }
    for raw in [r#""upstream""#, r#"["upstream"]"#, r#"["cloakroom","upstream"]"#] {
        let verdict = forge.verdict(&signed(&forge, &Payload::good().with("aud", raw)));
        assert_eq!(verdict, Err(TokenRefusal::WrongType), "{raw}");
    }
}

#[test]
fn e13_two_authorities_with_one_secret_refuse_each_other() {
    let forge = hs256();
    let token = forge.good();
    let (here, there) = (["cloakroom".to_owned()], ["shop".to_owned()]);
    for (issuer, audiences, taken) in
        [(ISSUER, &here, true), ("https://other.example", &here, false), (ISSUER, &there, false)]
    {
        let expected = Expectation { issuer, audiences, foreign_audiences: &[], now: NOW };
        assert_eq!(verify(&token, &forge.ring, &expected).is_ok(), taken);
    }
}

#[test]
fn instants_have_a_leeway_of_five_seconds() {
    let forge = hs256();
    let at = |claim: &str, secs: i64| {
        let instant = (NOW.as_secs() + secs).to_string();
        forge.verdict(&signed(&forge, &Payload::good().with(claim, &instant)))
    };
    for claim in ["nbf", "iat"] {
        assert!(at(claim, 5).is_ok(), "{claim}");
        assert_eq!(at(claim, 6), Err(TokenRefusal::Invalid), "{claim}");
        assert!(at(claim, -100_000).is_ok(), "{claim}");
    }
    assert!(at("exp", 1).is_ok());
    assert!(at("exp", -4).is_ok());
    assert!(matches!(at("exp", -5), Err(TokenRefusal::Expired(_))));
    assert!(matches!(at("exp", -NOW.as_secs()), Err(TokenRefusal::Expired(_))));
}

#[test]
fn an_expired_token_comes_back_with_its_claims_if_all_else_is_right() {
    let forge = hs256();
    let good = good_claims();
    let token = forge.issue(&good, &ExtraClaims::default());
    let end = good.expires_at.plus(TOKEN_LEEWAY);
    assert!(forge.verdict_at(&token, end.minus(Duration::from_millis(1))).is_ok());
    assert_eq!(forge.verdict_at(&token, end), Err(TokenRefusal::Expired(Box::new(good))));
    for (name, raw) in [("iss", r#""https://other.example""#), ("aud", r#""other""#)] {
        let token = signed(&forge, &Payload::good().with(name, raw));
        assert_eq!(forge.verdict_at(&token, end), Err(TokenRefusal::Invalid), "{name}");
    }
    let gateways = signed(&forge, &Payload::good().with("aud", r#""upstream""#));
    assert_eq!(forge.verdict_at(&gateways, end), Err(TokenRefusal::WrongType));
    let (unsigned, _) = token.rsplit_once('.').expect("three parts");
    let forged = format!("{unsigned}.{}", "A".repeat(43));
    assert_eq!(forge.verdict_at(&forged, end), Err(TokenRefusal::Invalid));
}

#[test]
fn e8_session_claims_can_not_override_registered_ones() {
    let required = [
        "iss",
        "sub",
        "aud",
        "exp",
        "nbf",
        "iat",
        "jti",
        "sid",
        "auth_time",
        "amr",
        "acr",
        "epoch",
        "cnf",
        "act",
        "scope",
        "client_id",
        "__proto__",
    ];
    for name in required {
        assert!(REGISTERED.contains(&name), "{name}");
    }
    let forge = hs256();
    let plain = payload_of(&forge.issue(&good_claims(), &ExtraClaims::default()));
    for name in REGISTERED {
        let evil = object(json!({name: "evil", "role": "user"}));
        assert_eq!(check_claims(&evil).expect_err(name).member, name);
        assert_eq!(ExtraClaims::parse(&evil).expect_err(name).member, name);
        // Even if it got past every entry.
        let claims = AccessClaims { claims: evil, ..good_claims() };
        let token = forge.issue(&claims, &ExtraClaims::default());
        assert_eq!(payload_of(&token), plain, "{name}");
        assert_eq!(forge.verdict(&token), Ok(good_claims()), "{name}");
    }
    for fine in ["email", "role", "name", "Sub", "groups", "user_id", "type", "https://a.b/c"] {
        assert_eq!(check_claims(&object(json!({fine: 1}))), Ok(()), "{fine}");
    }
    assert!(check_claims(&object(json!({"": 1}))).is_err());
}

#[test]
fn extra_claims_are_constants_and_renamings() {
    let extra = ExtraClaims::parse(&object(json!({
        "user_id": "$subject", "session": "$sid", "mail": "$claims.email", "none": "$claims.none",
        "generation": "$epoch", "type": "access", "price": "$$5", "nested": {"a": "$subject"},
        "role": "fixed",
    })))
    .expect("sound");
    let forge = hs256();
    let claims = AccessClaims {
        claims: object(json!({"email": "ada@example.com", "role": "user", "type": "mine"})),
        ..good_claims()
    };
    let payload = payload_of(&forge.issue(&claims, &extra));
    for (name, value) in [
        ("user_id", json!("usr_1")),
        ("session", json!(claims.sid.to_string())),
        ("mail", json!("ada@example.com")),
        ("email", json!("ada@example.com")),
        ("generation", json!(3)),
        ("type", json!("access")),
        ("price", json!("$5")),
        ("nested", json!({"a": "$subject"})),
        ("role", json!("fixed")),
    ] {
        assert_eq!(payload.get(name), Some(&value), "{name}");
    }
    assert!(!payload.contains_key("none"));
    for bad in ["$", "$subjects", "$claims", "$claims.", "$claims.sub", "$Subject"] {
        let refused = ExtraClaims::parse(&object(json!({"x": bad}))).expect_err(bad);
        assert_eq!(refused.member, "x");
    }
}

#[test]
fn a_token_that_nobody_would_read_is_not_issued() {
    let forge = hs256();
    let large = object(json!({"note": "x".repeat(16 * 1024)}));
    let claims = AccessClaims { claims: large, ..good_claims() };
    let issued = issue(forge.ring.signer().expect("signs"), &claims, &ExtraClaims::default());
    assert_eq!(issued, Err(IssueFault::TooLarge));
    // The largest claims that a session may have do fit, under the longest signature.
    let largest = object(json!({"note": "x".repeat(4 * 1024)}));
    let claims = AccessClaims { claims: largest, ..good_claims() };
    let forge = Forge::new(Algorithm::Rs256);
    let token = forge.issue(&claims, &ExtraClaims::default());
    assert_eq!(forge.verdict(&token), Ok(claims));
}

#[test]
fn a_token_id_names_its_partition() {
    let jti = new_jti(Partition(0xABCD), [1; 16]);
    assert_eq!(jti.len(), 24);
    assert_eq!(jti_partition(&jti), Some(Partition(0xABCD)));
    for other in ["", "AAAA", &jti[1..], &format!("{jti}="), &format!("{jti}A"), &"*".repeat(24)] {
        assert_eq!(jti_partition(other), None, "{other}");
    }
}

proptest! {
    #[test]
    fn what_is_issued_is_verified(
        subject in "[a-zé_0-9 ]{1,40}",
        acr in "[a-z0-9]{0,8}",
        amr in prop::collection::vec("[a-z]{1,4}", 0..4),
        epoch: u64,
        partition: u16,
        entropy: [u8; 16],
        own in prop::collection::btree_map("[a-z]{4,8}x", any::<i64>(), 0..5),
    ) {
        let forge = hs256();
        let claims = AccessClaims {
            subject: Subject::parse(&subject).expect("sound"),
            acr,
            amr,
            epoch,
            jti: new_jti(Partition(partition), entropy),
            claims: own.into_iter().map(|(name, value)| (name, value.into())).collect(),
            ..good_claims()
        };
        let token = forge.issue(&claims, &ExtraClaims::default());
        prop_assert_eq!(forge.verdict(&token), Ok(claims));
    }

    #[test]
    fn e4_no_payload_panics(name in 0..13usize, raw in "[-0-9eE.\"\\[\\]{}a-z]{0,12}") {
        let forge = hs256();
        let name = Payload::good().names()[name].clone();
        let _verdict = forge.verdict(&signed(&forge, &Payload::good().with(&name, &raw)));
    }

    #[test]
    fn an_instant_is_taken_in_whole_seconds(ms in 0..1000i64) {
        let forge = hs256();
        let claims = AccessClaims {
            issued_at: Timestamp::from_millis(NOW.as_millis() + ms),
            ..good_claims()
        };
        let token = forge.issue(&claims, &ExtraClaims::default());
        prop_assert_eq!(forge.verdict(&token), Ok(good_claims()));
    }
}
