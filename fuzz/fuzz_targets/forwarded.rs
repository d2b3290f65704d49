//! What a gateway says of the visitor's request is taken only where it means one thing.
#![no_main]

use cloakroom_core::forwarded::{ForwardedHeaders, OriginalRequest};
use cloakroom_core::given::Given;
use cloakroom_core::origin::Origin;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|given: [Option<&[u8]>; 6]| {
    let [method, host, uri, proto, original_method, original_url] =
        given.map(|value| value.map_or(Given::Absent, Given::One));
    let headers = ForwardedHeaders { method, host, uri, proto, original_method, original_url };
    let Ok(original) = OriginalRequest::parse(&headers) else { return };
    if let Some(url) = original.url() {
        assert_eq!(Origin::of_url(url.as_bytes()).ok(), original.origin());
        let read = url::Url::parse(&url).expect("a browser reads it too");
        assert!(matches!(read.scheme(), "http" | "https"));
    }
});
