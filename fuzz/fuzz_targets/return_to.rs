//! Where a visitor is sent back to, as a browser reads it: ours or listed, and no endpoint.
#![no_main]

use cloakroom_core::origin::Origin;
use cloakroom_core::return_to::{ReturnRules, ReturnTo};
use libfuzzer_sys::fuzz_target;
use url::Url;

fuzz_target!(|raw: &str| {
    let own = Origin::parse("https://app.example.com").expect("an origin");
    let listed = [Origin::parse("https://other.example.com:8443").expect("an origin")];
    let rules = ReturnRules { own: &own, allowed: &listed, base_path: "/auth" };
    let Some(place) = ReturnTo::parse(raw, rules) else { return };
    let here = Url::parse("https://app.example.com/auth/sign-in").expect("a URL");
    let there = here.join(place.as_str()).expect("a browser reads it");
    let is_own = there.origin() == here.origin();
    let is_listed = there.origin().ascii_serialization() == "https://other.example.com:8443";
    assert!(is_own || is_listed, "{there}");
    assert!(!is_own || !(there.path() == "/auth" || there.path().starts_with("/auth/")), "{there}");
    assert!(there.username().is_empty() && there.password().is_none());
});
