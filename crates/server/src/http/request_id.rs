//! The id by which a request is found again in logs and events.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::clean::holds_credential;
use cloakroom_core::given::Given;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

/// The longest id that a client may choose, in characters.
const CHARS_MAX: usize = 128;
/// The header that carries it, in requests and answers.
pub(crate) const X_REQUEST_ID: &str = "x-request-id";
const REQUEST_ID: HeaderName = HeaderName::from_static(X_REQUEST_ID);

/// A request's id: the client's own, if it is 1 to 128 visible ASCII characters and no credential
/// of ours, else a fresh one.
///
/// Not a secret. A fresh one tells no two requests of any process alike.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id of the request with these headers.
    pub fn of(headers: &HeaderMap) -> Self {
        let given: Given<&HeaderValue> = headers.get_all(REQUEST_ID).iter().collect();
        match given {
            Given::One(value) if is_acceptable(value.as_bytes()) => Self(value.clone()),
            Given::One(_) | Given::Several | Given::Absent => Self::fresh(),
        }
    }

    /// An id that wasn't there before.
    pub fn fresh() -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut bytes = [0; PROCESS_BYTES + 6];
        bytes[..PROCESS_BYTES].copy_from_slice(&*PROCESS);
        bytes[PROCESS_BYTES..].copy_from_slice(&count.to_be_bytes()[2..]);
        let text = URL_SAFE_NO_PAD.encode(bytes);
        Self(HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("-")))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or("-")
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

fn is_acceptable(value: &[u8]) -> bool {
    let visible = (1..=CHARS_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    // An id is written into the log and into events, where no credential may stand.
    visible && !str::from_utf8(value).is_ok_and(holds_credential)
}

/// Bytes that tell this process from others; 12 with the count make 16 characters.
const PROCESS_BYTES: usize = 6;

static COUNT: AtomicU64 = AtomicU64::new(0);

static PROCESS: LazyLock<[u8; PROCESS_BYTES]> = LazyLock::new(|| {
    let mut bytes = [0; PROCESS_BYTES];
    // Without randomness the ids are less telling, and nothing else: they protect nothing.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes
});

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value).expect("a header value");
            headers.append(X_REQUEST_ID, value);
        }
        RequestId::of(&headers).as_str().to_owned()
    }

    #[test]
    fn m3_a_clients_id_is_kept_only_in_one_piece_of_visible_ascii() {
        let longest = "x".repeat(CHARS_MAX);
        let digest = "0f".repeat(32);
        for kept in ["a", "\"<>", &longest, &digest] {
            assert_eq!(of(&[kept.as_bytes()]), kept);
        }
        let long = "x".repeat(CHARS_MAX + 1);
        for refused in [
            &[long.as_bytes()][..],
            &[b"a b"],
            &[b"a\tb"],
            &[b""],
            &["é".as_bytes()],
            &[format!("cks_{}", "x".repeat(87)).as_bytes()],
            // A CSRF token, alone and behind something else.
            &["Ab1-".repeat(16).as_bytes()],
            &[format!("r:{}", "Ab1-".repeat(16)).as_bytes()],
            &[b"a", b"a"],
            &[],
        ] {
            let fresh = of(refused);
            assert_eq!(fresh.len(), 16);
            assert!(refused.iter().all(|value| *value != fresh.as_bytes()));
        }
        assert_ne!(of(&[]), of(&[]));
    }
}
