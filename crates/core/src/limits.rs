//! Every number that bounds something, with its unit.

use std::time::Duration;

/// The last instant in use: the end of the year 9999, in milliseconds since the epoch.
pub const TIMESTAMP_MS_MAX: i64 = 253_402_300_799_999;
/// A subject's name, in bytes.
pub const SUBJECT_BYTES_MAX: usize = 255;
/// A compact JWS as presented, in bytes: a session's claims and its subject's, both as many as may
/// be configured, must fit.
pub const JWT_BYTES_MAX: usize = 16 * 1024;
/// Leeway for `exp`, `nbf` and `iat`, and how far `nbf` is set back at issue.
pub const TOKEN_LEEWAY: Duration = Duration::from_secs(5);
/// How long a public key set may be cached (`max-age` of the JWKS).
pub const JWKS_CACHE: Duration = Duration::from_secs(300);
/// How long a node that has not heard yet may go on signing with a retired key.
pub const KEY_SIGNING_LAG: Duration = Duration::from_secs(10);
/// The shortest secret for HS256, in bytes (RFC 7518 section 3.2).
pub const HS256_SECRET_BYTES_MIN: usize = 32;
/// An `Idempotency-Key`, in visible ASCII characters.
pub const IDEMPOTENCY_KEY_CHARS: std::ops::RangeInclusive<usize> = 16..=128;
/// A request body, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// A device's label, in characters.
pub const LABEL_CHARS_MAX: usize = 128;
/// A user agent as kept, in characters; a longer one is cut.
pub const USER_AGENT_CHARS_MAX: usize = 512;
/// An identifier (the name a user signs in with), in bytes, before and after normalising.
pub const IDENTIFIER_BYTES_MAX: usize = 320;
/// Ends of a subject's sessions whose reason is remembered one by one.
pub const SUBJECT_BUMPS_KEPT: usize = 8;
/// `amr` values of a session.
pub const AMR_VALUES_MAX: usize = 16;
/// An `acr` or `amr` value, in bytes.
pub const METHOD_BYTES_MAX: usize = 64;
/// A session that somebody opened on behalf of another lives this long at most.
pub const IMPERSONATION_LIFETIME_MAX: Duration = Duration::from_secs(3600);
/// The longest lifetime or timeout that may be asked for.
pub const LIFETIME_MAX: Duration = Duration::from_secs(400 * 24 * 3600);
/// "Last seen" is written when the stored instant is older than this, or than a twentieth of the
/// idle timeout.
pub const TOUCH_SLACK_MAX: Duration = Duration::from_secs(60);
/// A page of a listing.
pub const PAGE_MAX: usize = 200;
/// How long feed entries outlive the longest access token.
pub const FEED_MARGIN: Duration = Duration::from_secs(600);
/// A stored identifier pointer without its user counts this long.
pub const IDENTIFIER_INTENT: Duration = Duration::from_secs(60);
/// What the feed ended is remembered this long, so that no slower read can undo it.
pub const ENDED_SET_KEEP: Duration = Duration::from_secs(60);
/// A reason that an operator gives for an end, in characters.
pub const REASON_CHARS_MAX: usize = 128;
/// Claims or data nest this deep at most.
pub const JSON_DEPTH_MAX: usize = 64;
/// A host name, in bytes (RFC 1035 section 2.3.4).
pub const HOST_BYTES_MAX: usize = 253;
/// A label of a host name, in bytes (RFC 1035 section 2.3.4).
pub const HOST_LABEL_BYTES_MAX: usize = 63;
/// The URI of the original request of forward authentication, in bytes.
pub const FORWARDED_URI_BYTES_MAX: usize = 8 * 1024 - 1;
/// Entries of `X-Forwarded-For` that are looked at.
pub const FORWARDED_HOPS_MAX: usize = 32;
/// A `return_to`, in bytes.
pub const RETURN_TO_BYTES_MAX: usize = 4 * 1024;
/// A claim's header for an upstream, in bytes after encoding; a longer one is left empty.
pub const CLAIM_HEADER_BYTES_MAX: usize = 1024;
/// A claim's name in a header, in bytes.
pub const CLAIM_NAME_BYTES_MAX: usize = 64;
/// The count of a quota.
pub const QUOTA_COUNT_MAX: u32 = 1_000_000;
/// The window of a quota.
pub const QUOTA_WINDOW_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// A password as presented, in bytes, whatever the settings say in characters.
pub const PASSWORD_BYTES_MAX: usize = 4 * 1024;
/// The lowest that `password.max_length` may be set to, in characters (NIST SP 800-63B-4).
pub const PASSWORD_CHARS_MAX_LEAST: usize = 64;
/// The lowest that `password.min_length` may be set to, in characters (OWASP ASVS 6.2.1).
pub const PASSWORD_CHARS_MIN_LEAST: usize = 8;

const _: () = assert!(TOKEN_LEEWAY.as_secs() < JWKS_CACHE.as_secs());
const _: () = assert!(PASSWORD_CHARS_MIN_LEAST < PASSWORD_CHARS_MAX_LEAST);
// Not even the longest characters (four bytes) make the shortest allowed maximum too long.
const _: () = assert!(PASSWORD_CHARS_MAX_LEAST * 4 <= PASSWORD_BYTES_MAX);
