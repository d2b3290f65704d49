//! Whatever a request's `Cookie` lines hold, what is passed on has none of our own cookies.
#![no_main]

use cloakroom_core::cookie::{CookieSettings, Cookies, OwnCookies, SameSite, without_own};
use cloakroom_core::given::Given;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|lines: Vec<&[u8]>| {
    let settings = CookieSettings {
        secure: true,
        same_site: SameSite::Lax,
        domain: None,
        partitioned: false,
        base_path: "/auth".to_owned(),
    };
    let names = Cookies::new(settings).expect("sound settings").names();
    let found = OwnCookies::parse(lines.iter().copied(), names);
    for value in [found.session, found.refresh, found.csrf] {
        if let Given::One(text) = value {
            assert!(text.is_ascii());
        }
    }
    let rest = without_own(lines.iter().copied(), names);
    let again = OwnCookies::parse([rest.as_slice()], names);
    for value in [again.session, again.refresh, again.csrf] {
        assert!(matches!(value, Given::Absent));
    }
});
