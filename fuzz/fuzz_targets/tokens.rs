//! No text is a credential but the one that was given out, and none is read in two ways.
#![no_main]

use std::sync::LazyLock;

use cloakroom_core::keys::{Algorithm, FreshKey, KeyEntropy, KeyRecord, KeyRing};
use cloakroom_core::store_key::{DerivedKeys, StoreKey};
use cloakroom_core::token::access::{Expectation, verify};
use cloakroom_core::token::opaque::{OpaqueKind, OpaqueToken};
use cloakroom_core::types::{Secret, Timestamp};
use libfuzzer_sys::fuzz_target;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

static AUTHORITY: LazyLock<(DerivedKeys, KeyRing)> = LazyLock::new(|| {
    let keys = DerivedKeys::derive(&StoreKey::from_bytes([7; 32]));
    let entropy = KeyEntropy { seed: Secret::new([1; 32]), nonce: [1; 12] };
    let key = KeyRecord::generate(Algorithm::EdDsa, FreshKey::Active, &entropy, &keys, NOW);
    let ring = KeyRing::new(vec![key.expect("makes")], &keys, None).expect("prepares");
    (keys, ring)
});

fuzz_target!(|text: &str| {
    let (keys, ring) = &*AUTHORITY;
    for kind in [OpaqueKind::Session, OpaqueKind::Refresh, OpaqueKind::ApiKey] {
        if let Ok(token) = OpaqueToken::parse(kind, text, keys) {
            assert_eq!(token.encode(keys).expose(), text);
        }
    }
    let audiences = ["cloakroom".to_owned()];
    let expected = Expectation {
        issuer: "https://auth.example",
        audiences: &audiences,
        foreign_audiences: &[],
        now: NOW,
    };
    assert!(verify(text, ring, &expected).is_err());
});
