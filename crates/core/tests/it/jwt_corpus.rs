//! Attacks on the form of a token: section Q1 to Q5 of the security tests. The claims are always
//! good, so each refusal is due to the form alone.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use cloakroom_core::keys::Algorithm;
use cloakroom_core::token::TokenRefusal;
use proptest::prelude::*;

use crate::forge::{Forge, NOW, Payload, encode};

#[test]
fn e1_q1_an_algorithm_of_none_is_refused() {
    for forge in Forge::all() {
        let algs = [
            r#""alg":"none","#,
            r#""alg":"None","#,
            r#""alg":"NONE","#,
            r#""alg":"nOnE","#,
            r#""alg":"none ","#,
            r#""alg":"\u006eone","#,
            r#""alg":"","#,
            r#""alg":null,"#,
            r#""alg":[],"#,
            r#""alg":{},"#,
            r#""alg":0,"#,
            "",
        ];
        for alg in algs {
            let header = forge.header(&format!(r#"{alg}"kid":"{{kid}}","typ":"at+jwt""#));
            let kept = forge.token(&header, Payload::good().text());
            let (unsigned, _) = kept.rsplit_once('.').expect("three parts");
            for token in [
                kept.clone(),
                unsigned.to_owned(),
                format!("{unsigned}."),
                format!("{unsigned}.{}", encode([0; 64])),
                format!("{unsigned}.{}", encode([0xA5; 32])),
            ] {
                forge.assert_invalid(&token, alg);
            }
        }
    }
}

#[test]
fn e1_q2_an_empty_or_null_signature_is_refused() {
    for forge in Forge::all() {
        let good = forge.good();
        let (unsigned, signature) = good.rsplit_once('.').expect("three parts");
        let length = URL_SAFE_NO_PAD.decode(signature).expect("base64url").len();
        for bytes in [vec![], vec![0], vec![0; 32], vec![0; 64], vec![0; length], vec![1; length]] {
            let token = format!("{unsigned}.{}", encode(&bytes));
            forge.assert_invalid(&token, &format!("{} bytes", bytes.len()));
        }
        forge.assert_invalid(unsigned, "no third part");
    }
}

/// Every form in which a public key might be taken for an HMAC secret.
fn public_forms(forge: &Forge) -> Vec<Vec<u8>> {
    let parsed = match forge.algorithm {
        Algorithm::EdDsa => ParsedPublicKey::new(&ED25519, &forge.public),
        Algorithm::Es256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &forge.public),
        Algorithm::Rs256 => ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &forge.public),
        Algorithm::Hs256 => unreachable!("has no public key"),
    };
    let spki: PublicKeyX509Der<'_> = parsed.expect("parses").as_der().expect("writes");
    let lines: Vec<String> = STANDARD
        .encode(spki.as_ref())
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    let pem = |eol: &str| {
        let body = lines.join(eol);
        format!("-----BEGIN PUBLIC KEY-----{eol}{body}{eol}-----END PUBLIC KEY-----")
    };
    let jwks = forge.ring.jwks(NOW);
    let jwk = &jwks["keys"][0];
    let member = |name: &str| jwk[name].as_str().unwrap_or_default().to_owned();
    vec![
        forge.public.clone(),
        forge.public[1..].to_vec(),
        spki.as_ref().to_vec(),
        encode(&forge.public).into_bytes(),
        member("x").into_bytes(),
        member("n").into_bytes(),
        pem("\n").into_bytes(),
        format!("{}\n", pem("\n")).into_bytes(),
        format!("{}\r\n", pem("\r\n")).into_bytes(),
        jwk.to_string().into_bytes(),
        jwks.to_string().into_bytes(),
        forge.kid.as_str().as_bytes().to_vec(),
        Vec::new(),
    ]
}

#[test]
fn e1_q3_a_public_key_is_no_hmac_secret() {
    let macs =
        [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)];
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256] {
        let forge = Forge::new(algorithm);
        for (i, form) in public_forms(&forge).iter().enumerate() {
            for (alg, mac) in macs {
                for claimed in [alg, algorithm.name()] {
                    let header = forge
                        .header(&format!(r#""alg":"{claimed}","kid":"{{kid}}","typ":"at+jwt""#));
                    let message = format!("{}.{}", encode(header), encode(Payload::good().text()));
                    let tag = hmac::sign(&hmac::Key::new(mac, form), message.as_bytes());
                    let token = format!("{message}.{}", encode(tag));
                    forge.assert_invalid(&token, &format!("{claimed} with form {i}"));
                }
            }
        }
    }
}

#[test]
fn e1_q3_the_key_fixes_the_algorithm_and_its_name() {
    for forge in Forge::all() {
        for alg in [
            "EdDSA", "ES256", "RS256", "HS256", "HS384", "HS512", "ES384", "ES512", "ES256K",
            "PS256", "RS384", "RS512", "Ed448", "Ed25519", "eddsa", "es256", " ES256",
        ] {
            if alg == forge.algorithm.name() {
                continue;
            }
            let header = forge.header(&format!(r#""alg":"{alg}","kid":"{{kid}}","typ":"at+jwt""#));
            forge.assert_invalid(&forge.token(header, Payload::good().text()), alg);
        }
        // Another authority's key under this one's kid.
        let other = Forge::new(match forge.algorithm {
            Algorithm::EdDsa => Algorithm::Es256,
            Algorithm::Es256 | Algorithm::Rs256 | Algorithm::Hs256 => Algorithm::EdDsa,
        });
        let token = other.token(forge.good_header(), Payload::good().text());
        forge.assert_invalid(&token, "another's key");
        forge.assert_invalid(&other.good(), "another's token");
    }
}

#[test]
fn e2_q4_a_header_has_nothing_but_alg_kid_and_typ() {
    for forge in Forge::all() {
        let alg = forge.algorithm.name();
        let jwk = forge.ring.jwks(NOW)["keys"][0].to_string();
        for member in [
            format!(r#""jwk":{jwk}"#),
            r#""jwk":{"kty":"oct","k":"AAAA"}"#.to_owned(),
            r#""jku":"https://evil.example/jwks.json""#.to_owned(),
            r#""jku":"https://auth.example/.well-known/jwks.json""#.to_owned(),
            r#""x5u":"file:///dev/null""#.to_owned(),
            r#""x5u":"http://169.254.169.254/""#.to_owned(),
            r#""x5c":["MIIB"]"#.to_owned(),
            r#""x5t":"AAAA""#.to_owned(),
            r#""crit":["exp"]"#.to_owned(),
            r#""crit":[]"#.to_owned(),
            r#""crit":["b64"],"b64":false"#.to_owned(),
            r#""b64":true"#.to_owned(),
            r#""zip":"DEF""#.to_owned(),
            r#""cty":"JWT""#.to_owned(),
            r#""enc":"A128GCM""#.to_owned(),
            r#""iss":"https://auth.example""#.to_owned(),
            r#""Alg":"none""#.to_owned(),
            r#""":"""#.to_owned(),
        ] {
            let all = format!(r#""alg":"{alg}","kid":"{{kid}}","typ":"at+jwt",{member}"#);
            let token = forge.token(forge.header(&all), Payload::good().text());
            forge.assert_invalid(&token, &member);
        }
    }
}

#[test]
fn e2_q4_a_kid_is_looked_up_and_nothing_else() {
    for forge in Forge::all() {
        let alg = forge.algorithm.name();
        let long = format!("{:?}", "k".repeat(4096));
        for kid in [
            r#""""#,
            "null",
            "0",
            "[]",
            r#"["{kid}"]"#,
            "{}",
            r#"" {kid}""#,
            r#""{kid} ""#,
            r#""{kid}\u0000""#,
            r#""../../dev/null""#,
            r#""/dev/null""#,
            r#""x' UNION SELECT '1'--""#,
            r#""|sleep 10""#,
            r#""\u0000""#,
            &long,
        ] {
            let header = forge.header(&format!(r#""alg":"{alg}","kid":{kid},"typ":"at+jwt""#));
            forge.assert_invalid(&forge.token(header, Payload::good().text()), kid);
        }
        let header = forge.header(&format!(r#""alg":"{alg}","typ":"at+jwt""#));
        forge.assert_invalid(&forge.token(header, Payload::good().text()), "no kid");
        for header in ["", "[]", "null", "{", "{}", r#""x""#, "\u{feff}{}"] {
            forge.assert_invalid(&forge.token(header, Payload::good().text()), header);
        }
    }
}

#[test]
fn e3_only_an_access_token_is_an_access_token() {
    for forge in Forge::all() {
        let alg = forge.algorithm.name();
        let with = |typ: &str| {
            let header = forge.header(&format!(r#""alg":"{alg}","kid":"{{kid}}"{typ}"#));
            forge.token(header, Payload::good().text())
        };
        for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
            assert!(forge.verdict(&with(&format!(r#","typ":"{typ}""#))).is_ok(), "{typ}");
        }
        for typ in [
            "JWT",
            "jwt",
            "",
            "dpop+jwt",
            "dbsc+jwt",
            "at+jwt2",
            "text/at+jwt",
            "at+jwt ",
            "application/application/at+jwt",
            "at jwt",
            "\\u0000at+jwt",
            "logout+jwt",
        ] {
            let verdict = forge.verdict(&with(&format!(r#","typ":"{typ}""#)));
            assert_eq!(verdict, Err(TokenRefusal::WrongType), "{typ}");
        }
        for typ in ["", r#","typ":null"#, r#","typ":["at+jwt"]"#, r#","typ":1"#] {
            forge.assert_invalid(&with(typ), typ);
        }
    }
}

#[test]
fn e5_q5_a_token_has_one_spelling() {
    for forge in Forge::all() {
        let good = forge.good();
        let parts: Vec<&str> = good.split('.').collect();
        let [header, payload, signature] = parts[..] else { panic!("three parts") };
        let standard =
            |part: &str| STANDARD.encode(URL_SAFE_NO_PAD.decode(part).expect("base64url"));
        let cases = [
            format!("{good}="),
            format!("{good}=="),
            format!("{header}=.{payload}.{signature}"),
            format!("{header}.{payload}.{}", standard(signature)),
            format!("{}.{payload}.{signature}", standard(header)),
            format!(" {good}"),
            format!("{good} "),
            format!("{good}\n"),
            format!("{good}\r\n"),
            format!("{good}\0"),
            format!("{good}."),
            format!(".{good}"),
            format!("{header}..{payload}.{signature}"),
            format!("{header}.{payload}%2E{signature}"),
            format!("{header}.{payload}\r\n.{signature}"),
            format!("{header}.{} {}.{signature}", &payload[..9], &payload[9..]),
            format!("{header}.{payload}"),
            header.to_owned(),
            format!("{header}.{payload}.{signature}.AAAA.AAAA"),
            format!("{good},{good}"),
            format!("Bearer {good}"),
            format!("{header}\u{ff0e}{payload}.{signature}"),
            format!("{header}.{payload}.{}", signature.to_lowercase()),
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            "...".to_owned(),
            format!(
                r#"{{"payload":"{payload}","protected":"{header}","signature":"{signature}"}}"#
            ),
            format!(
                r#"{{"payload":"{payload}","signatures":[{{"protected":"{header}",
                "signature":"{signature}"}}]}}"#
            ),
        ];
        for case in &cases {
            forge.assert_invalid(case, case);
        }
        assert_eq!(
            forge.verdict(&format!("{good}{}", "A".repeat(64 * 1024))),
            Err(TokenRefusal::Invalid)
        );
        assert_eq!(
            forge.verdict(&format!("{header}.{}.{signature}", "A".repeat(1024 * 1024))),
            Err(TokenRefusal::Invalid)
        );
    }
}

#[test]
fn e5_q5_encodings_are_canonical_even_when_validly_signed() {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for forge in Forge::all() {
        // What is signed is the text, so only the decoder stands against another spelling of it.
        let (header, payload) = (forge.good_header(), Payload::good().text());
        let padded = |part: &str| URL_SAFE.encode(format!("{part} "));
        if padded(&header).contains('=') {
            forge.assert_invalid(&forge.signed(&padded(&header), &encode(&payload)), "padding");
        }
        for spaces in 0..3 {
            let payload = format!("{payload}{}", " ".repeat(spaces));
            let text = encode(&payload);
            assert!(forge.verdict(&forge.signed(&encode(&header), &text)).is_ok());
            let (body, last) = text.split_at(text.len() - 1);
            let mut others = 0;
            for sibling in alphabet.chars().filter(|c| !last.starts_with(*c)) {
                let other = format!("{body}{sibling}");
                if URL_SAFE_NO_PAD.decode(&other).is_err() {
                    others += 1;
                    forge.assert_invalid(&forge.signed(&encode(&header), &other), "sibling");
                }
            }
            assert!(text.len() % 4 == 0 || others > 0);
        }
        let good = forge.good();
        let (body, last) = good.split_at(good.len() - 1);
        for sibling in alphabet.chars().filter(|c| !last.starts_with(*c)) {
            assert_eq!(forge.verdict(&format!("{body}{sibling}")), Err(TokenRefusal::Invalid));
        }
    }
}

#[test]
fn e5_q5_doubled_members_are_refused() {
    for forge in Forge::all() {
        let alg = forge.algorithm.name();
        for doubled in [
            format!(r#""alg":"{alg}","alg":"{alg}","kid":"{{kid}}","typ":"at+jwt""#),
            format!(r#""alg":"none","\u0061lg":"{alg}","kid":"{{kid}}","typ":"at+jwt""#),
            format!(r#""alg":"{alg}","kid":"x","kid":"{{kid}}","typ":"at+jwt""#),
            format!(r#""alg":"{alg}","kid":"{{kid}}","typ":"JWT","t\u0079p":"at+jwt""#),
        ] {
            let token = forge.token(forge.header(&doubled), Payload::good().text());
            forge.assert_invalid(&token, &doubled);
        }
        for (name, raw) in [
            ("sub", r#""usr_2""#),
            ("exp", "9999999999"),
            (r"e\u0078p", "9999999999"),
            (r"\u0073ub", r#""usr_2""#),
            ("role", r#""user""#),
        ] {
            let payload = Payload::good().and(name, raw).text();
            forge.assert_invalid(&forge.token(forge.good_header(), payload), name);
        }
        let nested = Payload::good().with("role", r#"{"a":1,"b":[{"c":1,"c":1}]}"#).text();
        forge.assert_invalid(&forge.token(forge.good_header(), nested), "nested");
    }
}

#[test]
fn e5_q5_a_payload_is_one_json_object_in_utf8() {
    for forge in Forge::all() {
        let good = Payload::good().text();
        let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let utf16_bom: Vec<u8> = [&[0xFF, 0xFE][..], &utf16].concat();
        for payload in [
            utf16,
            utf16_bom,
            format!("\u{feff}{good}").into_bytes(),
            format!("{good}{good}").into_bytes(),
            format!("{good}x").into_bytes(),
            format!("[{good}]").into_bytes(),
            Payload::good().with("role", "\"\u{1}\"").text().into_bytes(),
            good.replace("usr_1", "usr_\u{fffd}").replace('\u{fffd}', "\\ud800").into_bytes(),
            [good.replace('}', "").as_bytes(), b",\"x\":\"\xFF\"}"].concat(),
            b"null".to_vec(),
            b"{}".to_vec(),
            Vec::new(),
        ] {
            let token = forge.token(forge.good_header(), &payload);
            forge.assert_invalid(&token, &String::from_utf8_lossy(&payload));
        }
    }
}

/// The order of P-256, big-endian.
const P256_N: [u8; 32] = [
    0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    0xBC, 0xE6, 0xFA, 0xAD, 0xA7, 0x17, 0x9E, 0x84, 0xF3, 0xB9, 0xCA, 0xC2, 0xFC, 0x63, 0x25, 0x51,
];

fn minus(left: &[u8; 32], right: &[u8]) -> [u8; 32] {
    let (mut out, mut borrow) = ([0; 32], false);
    for i in (0..32).rev() {
        let (difference, under) = left[i].overflowing_sub(right[i]);
        let (difference, under_again) = difference.overflowing_sub(u8::from(borrow));
        (out[i], borrow) = (difference, under || under_again);
    }
    out
}

#[test]
fn e5_q5_an_ecdsa_signature_is_two_scalars_in_range() {
    let mut forge = Forge::new(Algorithm::Es256);
    let good = forge.good();
    let (unsigned, signature) = good.rsplit_once('.').expect("three parts");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let mut one = [0; 32];
    one[31] = 1;
    let values = [[0; 32], one, minus(&P256_N, &one), P256_N, [0xFF; 32]];
    let with = |bytes: &[u8]| format!("{unsigned}.{}", encode(bytes));
    for r in &values {
        for s in &values {
            forge.assert_invalid(&with(&[*r, *s].concat()), "r and s of the table");
        }
        forge.assert_invalid(&with(&[&signature[..32], r].concat()), "own r");
        forge.assert_invalid(&with(&[r, &signature[32..]].concat()), "own s");
    }
    let integer = |bytes: &[u8]| {
        let sign: &[u8] = if bytes[0] >= 0x80 { &[0] } else { &[] };
        let length = u8::try_from(bytes.len() + sign.len()).expect("short");
        [&[2, length], sign, bytes].concat()
    };
    let body = [integer(&signature[..32]), integer(&signature[32..])].concat();
    let der = [&[0x30, u8::try_from(body.len()).expect("short")], &body[..]].concat();
    for bytes in [
        der,
        signature[..63].to_vec(),
        [&signature[..], &[0]].concat(),
        [&[0], &signature[..]].concat(),
        [&signature[..], &signature[..32]].concat(),
    ] {
        forge.assert_invalid(&with(&bytes), &format!("{} bytes", bytes.len()));
    }
    // (r, n - s) verifies wherever (r, s) does: a token is never told by its signature.
    let twin = with(&[&signature[..32], &minus(&P256_N, &signature[32..])].concat());
    assert!(forge.verdict(&twin).is_ok());
    forge.revoke();
    for token in [&good, &twin] {
        assert_eq!(forge.verdict(token), Err(TokenRefusal::KeyRevoked));
    }
}

#[test]
fn e5_q5_an_eddsa_signature_is_reduced_and_of_no_small_order() {
    const L: [u8; 32] = [
        0xED, 0xD3, 0xF5, 0x5C, 0x1A, 0x63, 0x12, 0x58, 0xD6, 0x9C, 0xF7, 0xA2, 0xDE, 0xF9, 0xDE,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let forge = Forge::new(Algorithm::EdDsa);
    let good = forge.good();
    let (unsigned, signature) = good.rsplit_once('.').expect("three parts");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let with = |bytes: &[u8]| format!("{unsigned}.{}", encode(bytes));
    let (mut raised, mut carry) = (signature.clone(), 0);
    for i in 0..32 {
        let sum = u16::from(raised[32 + i]) + u16::from(L[i]) + carry;
        (raised[32 + i], carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    forge.assert_invalid(&with(&raised), "S + L");
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut of_order_two = [0xFF; 32];
    (of_order_two[0], of_order_two[31]) = (0xEC, 0x7F);
    for small in [[0; 32], identity, of_order_two] {
        for s in [&[0; 32][..], &L, &signature[32..]] {
            forge.assert_invalid(&with(&[&small, s].concat()), "small-order R");
        }
    }
    for bytes in [&signature[..63], &[&signature[..], &[0]].concat(), &[0; 64], &[0; 114]] {
        forge.assert_invalid(&with(bytes), &format!("{} bytes", bytes.len()));
    }
}

#[test]
fn e10_a_revoked_key_is_named_to_holders_of_its_tokens_only() {
    let mut forge = Forge::new(Algorithm::EdDsa);
    let good = forge.good();
    forge.revoke();
    assert_eq!(forge.verdict(&good), Err(TokenRefusal::KeyRevoked));
    let (unsigned, _) = good.rsplit_once('.').expect("three parts");
    let forged = format!("{unsigned}.{}", encode([7; 64]));
    assert_eq!(forge.verdict(&forged), Err(TokenRefusal::Invalid));
}

#[test]
fn a10_another_kind_of_credential_is_no_access_token() {
    let forge = Forge::new(Algorithm::EdDsa);
    for (text, refusal) in [
        (format!("cks_{}", "A".repeat(87)), TokenRefusal::WrongType),
        (format!("ckr_{}", "A".repeat(87)), TokenRefusal::WrongType),
        ("cka_".to_owned(), TokenRefusal::WrongType),
        ("A".repeat(64), TokenRefusal::WrongType),
        ("A".repeat(63), TokenRefusal::Invalid),
        ("01JABCDEFGHJKMNPQRSTVWXYZ0".to_owned(), TokenRefusal::Invalid),
    ] {
        assert_eq!(forge.verdict(&text), Err(refusal), "{text}");
    }
}

proptest! {
    #[test]
    fn e5_no_changed_byte_passes(at in 0..2000usize, to in 0u8..128, which in 0..3usize) {
        let algorithm = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Hs256][which];
        let forge = Forge::new(algorithm);
        let good = forge.good();
        let mut bytes = good.clone().into_bytes();
        let at = at % bytes.len();
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        let changed = String::from_utf8(bytes).expect("ASCII");
        prop_assert_eq!(forge.verdict(&changed), Err(TokenRefusal::Invalid));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,80}|ey[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_.=-]{0,60}") {
        let forge = Forge::new(Algorithm::Hs256);
        prop_assert!(forge.verdict(&text).is_err());
    }
}
