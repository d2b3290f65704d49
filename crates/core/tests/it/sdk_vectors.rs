//! What the SDKs must judge as this crate does, written down for them: `sdk/vectors`.
//!
//! `UPDATE=1` writes the files anew; each holds cases and the verdict of the code here.

use std::path::Path;

use cloakroom_core::cookie::{
    CookieKind, CookieNames, CookieSettings, Cookies, OwnCookies, SameSite,
};
use cloakroom_core::csrf::{
    CsrfMode, CsrfRefusal, CsrfRules, MethodClass, Origin, RequestOrigin, check_origin,
    check_token, issue_token,
};
use cloakroom_core::given::{Given, Header};
use cloakroom_core::keys::Algorithm;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::EndReason;
use cloakroom_core::token::TokenRefusal;
use cloakroom_core::types::Secret;
use serde_json::{Value, json};

use crate::forge::{Forge, ISSUER, NOW, Payload, encode};

fn golden(name: &str, found: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/vectors").join(name);
    let text = format!("{found:#}\n");
    #[expect(clippy::disallowed_methods, reason = "a test that rewrites its golden files")]
    let wants_update = std::env::var_os("UPDATE");
    if wants_update.is_some() {
        std::fs::write(&path, &text).expect("a writable directory");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, text, "{name} differs; UPDATE=1 writes it anew");
}

#[test]
fn golden_tokens_of_the_sdks() {
    let forge = Forge::new(Algorithm::EdDsa);
    let cases: Vec<Value> = token_cases(&forge)
        .into_iter()
        .map(|(name, token)| {
            let verdict = match forge.verdict(&token) {
                Ok(_) => "valid",
                Err(TokenRefusal::Invalid | TokenRefusal::KeyRevoked) => "token_invalid",
                Err(TokenRefusal::WrongType) => "token_wrong_type",
                Err(TokenRefusal::Expired(_)) => "token_expired",
            };
            json!({"name": name, "token": token, "verdict": verdict})
        })
        .collect();
    let found = json!({
        "about": "access tokens at the instant `now`, for the audience `cloakroom`; \
                  `upstream` is a gateway's",
        "issuer": ISSUER,
        "audience": "cloakroom",
        "now": NOW.as_secs(),
        "jwks": forge.ring.jwks(NOW),
        "claims": {"sub": "usr_1", "role": "user", "epoch": 3},
        "cases": cases,
    });
    golden("tokens.json", &found);
}

fn token_cases(forge: &Forge) -> Vec<(&'static str, String)> {
    let now = NOW.as_secs();
    let good = forge.good();
    let with = |name: &str, raw: &str| {
        forge.token(forge.good_header(), Payload::good().with(name, raw).text())
    };
    let headed = |members: &str| forge.token(forge.header(members), Payload::good().text());
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let (header, _) = head.split_once('.').expect("three parts");
    let root = encode(Payload::good().with("sub", r#""root""#).text());
    let none = encode(r#"{"alg":"none","typ":"at+jwt"}"#);
    let payload = encode(Payload::good().text());
    vec![
        ("as issued", good.clone()),
        ("within the leeway after its time", with("exp", &(now - 4).to_string())),
        ("after its time and the leeway", with("exp", &(now - 5).to_string())),
        ("long after its time", with("exp", &(now - 900).to_string())),
        ("not yet, within the leeway", with("nbf", &(now + 5).to_string())),
        ("not yet", with("nbf", &(now + 60).to_string())),
        ("issued in the future", with("iat", &(now + 60).to_string())),
        ("by another authority", with("iss", r#""https://other.example""#)),
        ("expired, by another authority", {
            let payload = Payload::good().with("exp", &(now - 900).to_string());
            forge.token(forge.good_header(), payload.with("iss", r#""https://x.example""#).text())
        }),
        ("for somebody else", with("aud", r#""other""#)),
        ("for us and somebody else", with("aud", r#"["other","cloakroom"]"#)),
        ("a gateway's assertion", with("aud", r#""upstream""#)),
        ("a gateway's assertion that names us too", with("aud", r#"["cloakroom","upstream"]"#)),
        ("no subject", forge.token(forge.good_header(), Payload::good().without("sub").text())),
        ("no session", forge.token(forge.good_header(), Payload::good().without("sid").text())),
        ("no end", forge.token(forge.good_header(), Payload::good().without("exp").text())),
        ("the end as text", with("exp", r#""tomorrow""#)),
        ("another payload under its signature", format!("{header}.{root}.{signature}")),
        ("no signature", format!("{head}.")),
        ("alg none", format!("{none}.{payload}.")),
        ("typ JWT", headed(r#""alg":"EdDSA","kid":"{kid}","typ":"JWT""#)),
        ("no typ", headed(r#""alg":"EdDSA","kid":"{kid}""#)),
        ("another kid", headed(r#""alg":"EdDSA","kid":"another","typ":"at+jwt""#)),
        ("no kid", headed(r#""alg":"EdDSA","typ":"at+jwt""#)),
        ("another algorithm", headed(r#""alg":"ES256","kid":"{kid}","typ":"at+jwt""#)),
        ("its key named as a secret", headed(r#""alg":"HS256","kid":"{kid}","typ":"at+jwt""#)),
        ("a refresh token", "ckr_AQGiDRFlMwAIEjP3IyoP".to_owned()),
        ("a session token", "cks_AQGiDRFlMwAIEjP3IyoP".to_owned()),
        ("an API key", "cka_AQGiDRFlMwAIEjP3IyoP".to_owned()),
        ("two parts", head.to_owned()),
        ("four parts", format!("{good}.x")),
        ("padded", format!("{good}=")),
        ("not a token", "garbage".to_owned()),
        ("nothing", String::new()),
    ]
}

#[test]
fn golden_csrf_of_the_sdks() {
    let key = Secret::new([3; 32]);
    let good = issue_token(&key, [9; 16]);
    let other = issue_token(&Secret::new([4; 32]), [9; 16]);
    let tokens = [
        ("of this session", good.clone()),
        ("of this session, another", issue_token(&key, [0; 16])),
        ("of another session", other),
        ("cut", good[..63].to_owned()),
        ("lengthened", format!("{good}A")),
        ("padded", format!("{}=", &good[..63])),
        ("not base64url", format!("{}+", &good[..63])),
        ("zeros", "A".repeat(64)),
        ("empty", String::new()),
    ];
    let tokens = tokens.map(|(name, token)| {
        let passes = check_token(&key, Header::One(token.as_bytes())).is_ok();
        json!({"name": name, "token": token, "passes": passes})
    });
    let found = json!({
        "about": "`key` is a session's csrf_key; `made` is base64url(r ‖ HMAC-SHA-256(key, r)). \
                  `origins` are steps 1 to 3: `refused` is the step, or null",
        "key": encode(key.expose()),
        "random": encode([9; 16]),
        "made": good,
        "tokens": tokens,
        "own_origin": "https://app.example",
        "allowed_origins": ["https://other.example"],
        "origins": origin_cases(),
    });
    golden("csrf.json", &found);
}

fn origin_cases() -> Vec<Value> {
    let (own, site, listed, evil) =
        ("https://app.example", "Sec-Fetch-Site", "https://other.example", "https://evil.example");
    let cases: [(&str, &[(&str, &str)]); 19] = [
        ("GET", &[(site, "cross-site"), ("Origin", evil)]),
        ("HEAD", &[("Origin", evil)]),
        ("OPTIONS", &[("Origin", evil)]),
        ("POST", &[]),
        ("POST", &[(site, "same-origin")]),
        ("POST", &[(site, "none")]),
        ("POST", &[(site, "same-site")]),
        ("POST", &[(site, "cross-site")]),
        ("POST", &[(site, "cross-site"), ("Origin", own)]),
        ("POST", &[(site, "cross-site"), ("Origin", listed)]),
        ("POST", &[(site, "cross-site"), ("Origin", evil)]),
        ("POST", &[("Origin", own)]),
        ("POST", &[("Origin", listed)]),
        ("POST", &[("Origin", evil)]),
        ("POST", &[("Origin", "null")]),
        ("DELETE", &[("Origin", "http://app.example")]),
        ("POST", &[("Referer", "https://app.example/page?x=1")]),
        ("PUT", &[("Referer", "https://evil.example/https://app.example/")]),
        ("get", &[("Origin", evil)]),
    ];
    cases.into_iter().map(|(method, headers)| origin_case(method, headers)).collect()
}

fn origin_case(method: &str, headers: &[(&str, &str)]) -> Value {
    let own_origin = Origin::parse("https://app.example").expect("an origin");
    let allowed_origins = [Origin::parse("https://other.example").expect("an origin")];
    let rules = CsrfRules {
        own_origin: &own_origin,
        allowed_origins: &allowed_origins,
        mode: CsrfMode::Token,
    };
    let header = |name: &str| {
        headers
            .iter()
            .find(|(one, _)| *one == name)
            .map_or(Header::Absent, |(_, value)| Header::One(value.as_bytes()))
    };
    let request = RequestOrigin {
        method: MethodClass::of(method),
        sec_fetch_site: header("Sec-Fetch-Site"),
        origin: header("Origin"),
        referer: header("Referer"),
    };
    let refused = check_origin(request, rules).err().map(CsrfRefusal::step);
    let headers: serde_json::Map<String, Value> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({"method": method, "headers": headers, "refused": refused})
}

#[test]
fn golden_cookies_of_the_sdks() {
    let cookies = |secure| {
        let settings = CookieSettings {
            secure,
            same_site: SameSite::Lax,
            domain: None,
            partitioned: false,
            base_path: "/auth".to_owned(),
        };
        Cookies::new(settings).expect("they go together").names()
    };
    let lines = [
        "{name}=cks_a",
        "a=b; {name}=cks_a; c=d",
        "a=b;{name}=cks_a",
        "{name}=cks_a; {name}=cks_b",
        "{name}=cks_a; {name}=cks_a",
        "a=b",
        "",
        "{name}",
        ";;=;",
        "x{name}=cks_a",
        "{name}x=cks_a",
        "{NAME}=cks_a",
        "$Version=1; {name}=cks_a",
        "$version=1; {name}=cks_a",
        "a=b; \t{name}=cks_a",
        // What a reader strips off a name would be a way around the prefixes that browsers guard.
        "\u{a0}{name}=cks_a",
        "a=b; \u{a0}{name}=cks_a",
        "\u{b}{name}=cks_a",
        "\u{c}{name}=cks_a",
        "\u{feff}{name}=cks_a",
        "{name} =cks_a",
        "{name}\u{a0}=cks_a",
        "{name}=cks_\u{e9}",
        "{name}=cks_a; \u{a0}{name}=cks_b",
    ];
    let cases: Vec<Value> = [cookies(false), cookies(true)]
        .into_iter()
        .flat_map(|names| lines.map(|line| cookie_case(names, line)))
        .collect();
    golden(
        "cookies.json",
        &json!({
            "about": "the session cookie that a `Cookie` header has under the name `name`: \
                      `session` is its value, null, or \"several\", which counts as none",
            "cases": cases,
        }),
    );
}

fn cookie_case(names: CookieNames, line: &str) -> Value {
    let name = names.of(CookieKind::Session);
    let line = line.replace("{name}", name).replace("{NAME}", &name.to_uppercase());
    let session = match OwnCookies::parse([line.as_bytes()], names).session {
        Given::Absent => Value::Null,
        Given::One(value) => value.into(),
        Given::Several => "several".into(),
    };
    json!({"name": name, "cookie": line, "session": session})
}

#[test]
fn golden_refusals_of_the_sdks() {
    let refusals = [
        Refusal::CredentialsRequired,
        Refusal::CredentialsInvalid,
        Refusal::TokenExpired,
        Refusal::TokenInvalid,
        Refusal::TokenWrongType,
        Refusal::RefreshTokenReused,
        Refusal::RefreshTokenRequired,
        Refusal::ReauthenticationRequired,
        Refusal::SessionEnded(EndReason::SignedOut),
        Refusal::InsufficientClaims,
    ];
    let refusals =
        refusals.map(|refusal| json!({"code": refusal.code(), "detail": refusal.to_string()}));
    golden(
        "refusals.json",
        &json!({
            "about": "each `code` with its words: the `detail` of a problem, and the \
                      `error_description` of an `invalid_grant`, by which a refresh at \
                      /oauth2/token tells them apart",
            "refusals": refusals,
            "reasons": EndReason::ALL.map(EndReason::as_str),
        }),
    );
}
