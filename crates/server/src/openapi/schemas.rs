//! The schemas that have a name: what is answered and what is taken.

use std::collections::BTreeSet;

use cloakroom::Stat;
use cloakroom_core::event::EventKind;
use cloakroom_core::keys::{Algorithm, KeyState};
use cloakroom_core::limits::{
    AMR_VALUES_MAX, LABEL_CHARS_MAX, LIFETIME_MAX, METHOD_BYTES_MAX, USER_AGENT_CHARS_MAX,
};
use cloakroom_core::session::EndReason;
use cloakroom_core::token::access::REGISTERED;
use serde_json::{Map, Value, json};

use super::shape::{
    Member, boolean, count, count_of, described, either, has, instant, list, list_of, may, named,
    nullable, object, one_of_texts, open_object, shown_as, text, text_like, text_of,
};
use crate::admin::Scope;
use crate::problem::Code;

/// A session's id, for examples.
const SID: &str = "01JH6Z3V4Q8R5T7W9XBDFGHJKM";
const SUBJECT: &str = "usr_01JH6Z3V4Q8R5T7W9XBDFGHJKN";
const SID_PATTERN: &str = "^[0-7][0-9A-HJKMNP-TV-Z]{25}$";
const PASSWORD: &str = "seven quiet lamps at noon";
/// Where a log goes on: the tick, partition and index of an entry, and the store's id.
const LOG_CURSOR: &str = "019f1af9b4000003000700009f86d081884c7d659a2feaa0c55ad015";

/// All of them.
pub(super) fn all() -> Map<String, Value> {
    let mut all = super::codes::schemas();
    for part in
        [basics(), sessions(), requests(), admin_requests(), directory(), upkeep(), standard()]
    {
        all.extend(part.into_iter().map(|(name, schema)| (name.to_owned(), schema)));
    }
    all
}

type Named = Vec<(&'static str, Value)>;

fn basics() -> Named {
    let claims = json!({
        "type": "object",
        "description": "A subject's or a session's claims. Names that tokens use themselves can't \
                        be set.",
        "propertyNames": {"not": {"enum": REGISTERED}},
        "examples": [{"email": "ada@example.com", "role": "user"}],
    });
    let data = json!({
        "type": "object",
        "description": "A session's data: any JSON object of up to `session.max_data`.",
        "examples": [{"cart": [7, 12]}],
    });
    vec![
        (
            "Sid",
            described(text_like(SID_PATTERN, SID), "A session's id: no secret, grants nothing."),
        ),
        ("Subject", described(text_of(1..=255, SUBJECT), "Whose a session is.")),
        ("Claims", claims),
        ("Data", data),
        ("EndReason", one_of_texts(EndReason::ALL.map(EndReason::as_str))),
        ("Delivery", one_of_texts(["cookie", "bearer", "split"])),
        ("Scope", one_of_texts(Scope::ALL.into_iter().filter_map(Scope::name))),
        (
            "Cursor",
            described(
                json!({"type": "string", "examples": [SID, LOG_CURSOR]}),
                "Where a listing goes on: from an earlier answer, as it was. Of things that have \
                 ids it is one of them; of logs it is 56 hexadecimal digits.",
            ),
        ),
        ("EventType", one_of_texts(EventKind::NAMES.map(|(_, name)| name))),
    ]
}

fn session_members() -> Vec<Member> {
    let client = object([
        has("ip", "", nullable(text("203.0.113.9"))),
        has("user_agent", "", nullable(text("Mozilla/5.0 … Firefox/141.0"))),
        has("browser", "", nullable(text("Firefox 141"))),
        has("os", "", nullable(text("Linux"))),
        has("device", "", nullable(one_of_texts(["desktop", "mobile", "tablet", "bot"]))),
        has("label", "", nullable(text("kitchen tablet"))),
    ]);
    vec![
        has("id", "", named("Sid")),
        has("subject", "null: nobody has signed in", nullable(named("Subject"))),
        has("created_at", "", instant()),
        has("last_seen_at", "", instant()),
        has("auth_time", "when the user last proved who they are", instant()),
        has("idle_expires_at", "its end if nothing is heard of it", instant()),
        has("expires_at", "its end in any case", instant()),
        has("amr", "methods of the sign-in (RFC 8176)", list(text("pwd"))),
        has("acr", "strength of the sign-in", text("aal1")),
        may("actor", "who acts on behalf of the subject", text("usr_support")),
        has("delivery", "", named("Delivery")),
        has("claims", "", named("Claims")),
        has("client", "", client),
        has("current", "whether it is the one that asks", boolean(true)),
    ]
}

fn bearer_members() -> Vec<Member> {
    vec![
        has("access_token", "", text("eyJhbGciOiJFZERTQSJ9.e30.c2ln")),
        has("token_type", "", json!({"const": "Bearer"})),
        has("expires_in", "seconds", count(900)),
    ]
}

fn sessions() -> Named {
    let refresh = || {
        [
            has("refresh_token", "", text("ckr_AbCd…")),
            may("refresh_expires_in", "seconds", count(604_800)),
        ]
    };
    let csrf = || has("csrf_token", "for `X-CSRF-Token`", text("AbCd…"));
    let split = || [csrf(), may("refresh_expires_in", "seconds", count(604_800))];
    let session = || has("session", "", named("Session"));
    let for_backends = || has("session", "", named("AdminSession"));
    let lines = || {
        has(
            "set_cookie",
            "lines for `Set-Cookie`, ready",
            list(text("__Host-session=cks_…; Path=/")),
        )
    };
    let user_name =
        object([has("id", "", named("Subject")), has("identifier", "", text("ada@example.com"))]);
    let ended = object([has("at", "", instant()), has("reason", "", named("EndReason"))]);
    let admin_session = object(session_members().into_iter().chain([
        has("csrf_key", "the key of its CSRF tokens, in base64url", text("q83v…")),
        has("ended", "null: it lives", nullable(ended)),
    ]));
    vec![
        ("Session", object(session_members())),
        ("AdminSession", admin_session),
        ("UserName", user_name),
        ("CookieCredentials", object([session(), csrf()])),
        (
            "BearerCredentials",
            object(bearer_members().into_iter().chain(refresh()).chain([session()])),
        ),
        (
            "SplitCredentials",
            object(bearer_members().into_iter().chain(split()).chain([session()])),
        ),
        (
            "OpenedCookie",
            object([for_backends(), has("session_token", "", text("cks_AbCd…")), csrf(), lines()]),
        ),
        (
            "OpenedBearer",
            object(bearer_members().into_iter().chain(refresh()).chain([for_backends()])),
        ),
        (
            "OpenedSplit",
            object(bearer_members().into_iter().chain(split()).chain([for_backends(), lines()])),
        ),
        (
            "Credentials",
            either(["CookieCredentials", "BearerCredentials", "SplitCredentials"].map(named)),
        ),
        ("Opened", either(["OpenedCookie", "OpenedBearer", "OpenedSplit"].map(named))),
        (
            "Current",
            object([
                session(),
                has("user", "null: not in the directory", nullable(named("UserName"))),
            ]),
        ),
        ("Sessions", object([has("sessions", "", list(named("Session")))])),
        ("Revoked", object([has("revoked", "how many ended", count(2))])),
        ("CsrfToken", object([csrf()])),
    ]
}

fn requests() -> Named {
    let identifier = || has("identifier", "", text_of(1..=320, "ada@example.com"));
    let password = |name| has(name, "", text(PASSWORD));
    let label = text_of(0..=LABEL_CHARS_MAX, "kitchen tablet");
    vec![
        (
            "Login",
            object([
                identifier(),
                password("password"),
                may("delivery", "`cookie` if nothing is said", named("Delivery")),
                may("remember", "keep the cookie when the browser closes", boolean(false)),
                may("label", "a name for the device", nullable(label)),
            ]),
        ),
        ("Registration", object([identifier(), password("password")])),
        ("RefreshToken", object([may("refresh_token", "", text("ckr_AbCd…"))])),
        (
            "LogoutAll",
            object([may("keep_current", "the session that asks goes on", boolean(true))]),
        ),
        ("Password", object([password("password")])),
        (
            "PasswordChange",
            object([
                has("current_password", "or a reset token (`ckp_…`)", text(PASSWORD)),
                has("new_password", "", text("nine loud lamps at dusk")),
            ]),
        ),
        ("Registered", object([has("user", "", named("UserName"))])),
    ]
}

/// A time in whole seconds, as long as anything lives here.
fn seconds() -> Value {
    count_of(1..=LIFETIME_MAX.as_secs(), 3600)
}

fn admin_requests() -> Named {
    let method = || text_like(&format!("^[!-~]{{1,{METHOD_BYTES_MAX}}}$"), "pwd");
    let client = object([
        may("ip", "", nullable(text("203.0.113.9"))),
        may("user_agent", "cut to 512 characters", nullable(text("Mozilla/5.0"))),
        may("label", "", nullable(text_of(0..=LABEL_CHARS_MAX, "kitchen tablet"))),
    ]);
    let open = object([
        has("subject", "null: nobody has signed in yet", nullable(named("Subject"))),
        may("epoch", "the subject's before the credentials were checked; moved: 409", count(0)),
        may("replaces", "a session or refresh token that this one succeeds", text("cks_AbCd…")),
        may("carry_data", "take the data of the replaced session along", boolean(false)),
        may("claims", "", named("Claims")),
        may("data", "", named("Data")),
        may("amr", "", list_of(0..=AMR_VALUES_MAX, method())),
        may("acr", "`aal1` if nothing is said", method()),
        may("delivery", "`cookie` if nothing is said", named("Delivery")),
        may("idle_timeout", "seconds", seconds()),
        may("lifetime", "seconds", seconds()),
        may("client", "who signed in, from where", client),
        may("actor", "who impersonates the subject", text("agent@example.com")),
    ]);
    let open = shown_as(
        open,
        json!({"subject": "usr_42", "claims": {"role": "user"}, "amr": ["pwd"],
            "delivery": "bearer",
            "client": {"ip": "203.0.113.9", "user_agent": "Mozilla/5.0"}}),
    );
    let handle = || text_like("^[A-Za-z0-9_-]{43}$", &"A".repeat(43));
    let named_token =
        object([has("jti", "", text("AAEC…")), has("expires_at", "the token's `exp`", instant())]);
    let held = object([has("token", "an access token", text("eyJhbGciOiJFZERTQSJ9.e30.c2ln"))]);
    vec![
        ("Handle", described(handle(), "The base64url SHA-256 of a framework's own session id.")),
        ("OpenSession", open),
        ("Token", object([has("token", "an access or session token", text("cks_AbCd…"))])),
        (
            "Touch",
            object([
                may("sids", "", list(named("Sid"))),
                may("handles", "", list(named("Handle"))),
            ]),
        ),
        ("ClaimsPatch", object([has("claims", "a merge patch (RFC 7396)", named("Claims"))])),
        (
            "PutHandle",
            object([
                may("subject", "null or missing: stays whose it is", nullable(named("Subject"))),
                has("data", "", named("Data")),
                may("idle_timeout", "seconds", seconds()),
                may("lifetime", "seconds", seconds()),
            ]),
        ),
        ("DenyToken", either([held, named_token])),
        (
            "NewApiKey",
            object([
                has("name", "", text_of(1..=64, "shop")),
                has("scopes", "", list_of(1..=16, named("Scope"))),
                may("expires_in", "seconds; never if nothing is said", seconds()),
            ]),
        ),
    ]
}

fn listing(name: &'static str, of: &str) -> Value {
    object([
        has(name, "", list(named(of))),
        has("next", "null: that was all", nullable(named("Cursor"))),
    ])
}

fn one(name: &'static str, of: &str) -> Value {
    object([has(name, "", named(of))])
}

fn directory() -> Named {
    let user = object([
        has("id", "", named("Subject")),
        has("identifier", "", text("ada@example.com")),
        has("disabled", "", boolean(false)),
        has("claims", "", named("Claims")),
        has("created_at", "", instant()),
        has("password_changed_at", "null: has none", nullable(instant())),
    ]);
    let identifier = || text_of(1..=320, "ada@example.com");
    let new_user = object([
        has("identifier", "", identifier()),
        may("password", "", text(PASSWORD)),
        may("password_hash", "in place of a password: from another directory", text("$2b$10$…")),
        may("claims", "", named("Claims")),
        may("disabled", "", boolean(false)),
        may("dry_run", "check it all and make nothing", boolean(false)),
        may("allow_same", "answer a user who is there just like this, with 200", boolean(false)),
    ]);
    let example = json!({"identifier": "ada@example.com", "password": PASSWORD,
        "claims": {"email": "ada@example.com", "role": "user"}});
    let subject = object([
        has("id", "", named("Subject")),
        has("epoch", "how often it was signed out everywhere", count(0)),
        has("claims", "", named("Claims")),
        has("disabled", "no session can be opened", boolean(false)),
        has("live_sessions", "", count(2)),
    ]);
    vec![
        ("User", user),
        ("UserAnswer", one("user", "User")),
        ("Users", listing("users", "User")),
        ("NewUser", shown_as(new_user, example)),
        (
            "UserPatch",
            object([
                may("identifier", "", identifier()),
                may("password", "ends the user's sessions", text("nine loud lamps at dusk")),
                may("claims", "a merge patch", named("Claims")),
                may("disabled", "true ends the user's sessions", boolean(true)),
            ]),
        ),
        ("Reset", object([has("token", "", text("ckp_AbCd…")), has("expires_at", "", instant())])),
        ("SubjectState", subject),
        ("SubjectAnswer", one("subject", "SubjectState")),
        (
            "SubjectPatch",
            object([
                may("claims", "a merge patch", named("Claims")),
                may("disabled", "true ends the subject's sessions", boolean(true)),
            ]),
        ),
        ("AdminSessions", listing("sessions", "AdminSession")),
        ("AdminSessionAnswer", one("session", "AdminSession")),
        (
            "HandleAnswer",
            object([has("session", "", named("AdminSession")), has("data", "", named("Data"))]),
        ),
    ]
}

fn upkeep() -> Named {
    let key = object([
        has("kid", "", text("Yx8K…")),
        has("alg", "", one_of_texts(Algorithm::ALL.map(Algorithm::name))),
        has("state", "", named("KeyState")),
        has("created_at", "", instant()),
        has("activates_at", "", instant()),
        has("retires_at", "", nullable(instant())),
        has("removed_at", "", nullable(instant())),
    ]);
    let api_key = object([
        has("id", "", named("Sid")),
        has("name", "", text("shop")),
        has("scopes", "", list(named("Scope"))),
        has("created_at", "", instant()),
        has("expires_at", "null: never", nullable(instant())),
        has("last_used_at", "to about a minute", nullable(instant())),
    ]);
    let actor = object([
        has("type", "", one_of_texts(["user", "api_key", "operator", "system"])),
        has("id", "", nullable(text(SUBJECT))),
    ]);
    let client = object([
        has("ip", "", nullable(text("203.0.113.9"))),
        has("user_agent", "", nullable(text_of(0..=USER_AGENT_CHARS_MAX, "Mozilla/5.0"))),
    ]);
    let event = object([
        has("id", "the same in every answer: drop repetitions by it", text("evt_0007-01JH6Z3V4Q")),
        has("cursor", "for `after` and `Last-Event-ID`", named("Cursor")),
        has("time", "", instant()),
        has("type", "", named("EventType")),
        has("sid", "", nullable(named("Sid"))),
        has("subject", "", nullable(named("Subject"))),
        has("actor", "who did it", actor),
        has("client", "from where", client),
        has("request_id", "", nullable(text(super::codes::REQUEST_ID))),
        has("reason", "", nullable(text("signed_out"))),
        has("count", "how many of its like it stands for", count(1)),
    ]);
    vec![
        ("KeyState", one_of_texts(KeyState::ALL.map(KeyState::name))),
        ("Key", key),
        ("Keys", listing("keys", "Key")),
        ("Rewrapped", object([has("rewrapped", "false: it was already", boolean(true))])),
        ("ApiKey", api_key),
        ("ApiKeys", listing("api_keys", "ApiKey")),
        (
            "MadeApiKey",
            object([
                has("api_key", "", named("ApiKey")),
                has("secret", "told this once", text("cka_AbCd…")),
            ]),
        ),
        ("Event", event),
        ("Events", listing("events", "Event")),
        ("Revocations", revocations()),
        ("Stats", stats()),
        ("EndedBefore", object([has("ended_before", "for information", instant())])),
        ("Removed", object([has("removed", "records", count(120))])),
    ]
}

fn revocations() -> Value {
    let until = || has("until", "kept until then", instant());
    let sid = || has("sid", "", named("Sid"));
    let over = object([sid(), has("reason", "", named("EndReason")), until()]);
    let stepped_up = object([sid(), has("auth_time", "earlier access tokens are over", instant())]);
    let subject = object([
        has("subject", "", named("Subject")),
        has("epoch", "sessions of a lower one are over", count(1)),
        may("except", "the session that goes on", named("Sid")),
    ]);
    let key = object([has("kid", "", text("Yx8K…")), has("state", "", text("revoked"))]);
    object([
        has("sessions", "", list(either([over, stepped_up]))),
        has("subjects", "", list(subject)),
        has("tokens", "", list(object([has("jti", "", text("AAEC…")), until()]))),
        has("keys", "", list(key)),
        has("all", "everything before is over", nullable(object([has("at", "", instant())]))),
        has("cursor", "where the stream goes on", named("Cursor")),
    ])
}

fn stats() -> Value {
    let counts = || Stat::ALL.map(|stat| has(stat.name(), "", count(12)));
    let point = [has("from", "", instant()), has("to", "", instant())].into_iter().chain(counts());
    let stats = object([
        has("started_at", "", instant()),
        has("at", "", instant()),
        has("totals", "since the start", object(counts())),
        has(
            "streams",
            "who listens",
            object([has("revocations", "", count(2)), has("events", "", count(1))]),
        ),
        has(
            "passwords",
            "password hashes",
            object([has("running", "", count(1)), has("waiting", "", count(0))]),
        ),
        has("series", "what happened in each span", list(object(point))),
    ]);
    object([has("stats", "", stats)])
}

fn standard() -> Named {
    let jwk = open_object([
        has("kty", "", one_of_texts(["OKP", "EC", "RSA"])),
        has("kid", "", text("Yx8K…")),
        has("alg", "", text("EdDSA")),
        has("use", "", json!({"const": "sig"})),
    ]);
    let url = || text("http://localhost:7400/oauth2/token");
    let metadata = object([
        has("issuer", "", text("http://localhost:7400")),
        has("jwks_uri", "", url()),
        has("token_endpoint", "", url()),
        has("introspection_endpoint", "", url()),
        has("revocation_endpoint", "", url()),
        has("grant_types_supported", "", list(text("refresh_token"))),
        has("response_types_supported", "", shown_as(list(text("code")), json!([]))),
        has("token_endpoint_auth_methods_supported", "", list(text("none"))),
        has("revocation_endpoint_auth_methods_supported", "", list(text("none"))),
        has("introspection_endpoint_auth_methods_supported", "", list(text("Bearer"))),
    ]);
    let ready = object([
        has("status", "", json!({"const": "ready"})),
        has("store", "", text("embedded")),
        has("durability", "", one_of_texts(["durable", "replicated", "local"])),
        may("store_clock_ahead_ms", "of this node's", json!({"type": "integer", "examples": [12]})),
    ]);
    let token_answer = object(bearer_members().into_iter().chain([
        has("refresh_token", "", text("ckr_AbCd…")),
        may("refresh_expires_in", "seconds", count(604_800)),
    ]));
    let codes: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let oauth_error = object([
        has("error", "as RFC 6749 section 5.2 has it", text("invalid_request")),
        has("error_description", "", text("the form is malformed")),
        has("code", "as in problem details", one_of_texts(codes)),
        may("reason", "why a session ended", named("EndReason")),
    ]);
    vec![
        ("Jwks", object([has("keys", "", list(jwk))])),
        ("Metadata", metadata),
        ("Alive", object([has("status", "", json!({"const": "ok"}))])),
        ("Ready", ready),
        ("TokenAnswer", token_answer),
        ("OAuthError", oauth_error),
        ("Introspection", introspection()),
        (
            "IntrospectionForm",
            // RFC 6749 section 3.2: what nobody asks for is ignored.
            open_object([
                may("token", "any token of ours", text("cks_AbCd…")),
                may("token_type_hint", "ignored", text("access_token")),
            ]),
        ),
        (
            "RevocationForm",
            open_object([
                has("token", "any token of a session", text("ckr_AbCd…")),
                may("token_type_hint", "ignored", text("refresh_token")),
            ]),
        ),
        (
            "TokenForm",
            open_object([
                has("grant_type", "", json!({"const": "refresh_token"})),
                has("refresh_token", "", text("ckr_AbCd…")),
            ]),
        ),
    ]
}

fn introspection() -> Value {
    let inactive = object([has("active", "", json!({"const": false}))]);
    let active = open_object([
        has("active", "", json!({"const": true})),
        has("token_use", "", one_of_texts(["access", "refresh", "session"])),
        may("token_type", "", text("Bearer")),
        has("iss", "", text("http://localhost:7400")),
        has("sub", "null: an anonymous session", nullable(named("Subject"))),
        may("aud", "", either([text("cloakroom"), list(text("cloakroom"))])),
        has("exp", "seconds since 1970", count(1_800_000_900)),
        may("nbf", "", count(1_800_000_000)),
        has("iat", "", count(1_800_000_000)),
        may("jti", "", text("AAEC…")),
        has("sid", "", named("Sid")),
        has("auth_time", "", count(1_800_000_000)),
        has("amr", "", list(text("pwd"))),
        has("acr", "", text("aal1")),
        may("epoch", "", count(0)),
        may("act", "who impersonates (RFC 8693)", object([has("sub", "", text("agent"))])),
    ]);
    either([active, inactive])
}
