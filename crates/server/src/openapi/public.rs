//! The operations of the public listener, and the standard ones, which both have.

use serde_json::{Value, json};

use super::codes::{FORM, SESSION};
use super::operation::{Errors, Operation, Proof, Served};
use super::shape::{either, named, shown_as, text, text_like, text_of};
use crate::problem::Code;

/// Methods of forward authentication: whatever the visitor asked with.
const VERIFY_METHODS: [&str; 7] = ["get", "head", "post", "put", "patch", "delete", "options"];
const CSRF_ABOUT: &str = "A CSRF token, for requests that a cookie authenticates.";
const RETRY_ABOUT: &str = "Makes a repetition of this very refresh safe.";

/// The operations below the base path.
pub(super) fn operations(base: &str) -> Vec<Operation> {
    let at = |path: &str| format!("{base}{path}");
    let mut all = vec![login(&at("/login")), refresh(&at("/refresh")), logout(&at("/logout"))];
    all.extend([logout_all(&at("/logout/all")), current(&at("/session")), list(&at("/sessions"))]);
    all.extend([end(&at("/sessions/{sid}")), reauthenticate(&at("/reauthenticate"))]);
    all.extend([password(&at("/password")), register(&at("/register"))]);
    all.push(csrf_token(&at("/csrf-token")));
    for operation in &mut all {
        operation.tag = "session";
    }
    all.extend(VERIFY_METHODS.map(|method| verify(method, &at("/verify"), "")));
    all.extend(VERIFY_METHODS.map(|method| verify(method, &at("/verify/{policy}"), "As")));
    all
}

fn post(path: &str, id: &str, summary: &'static str) -> Operation {
    Operation::new("post", path, id, summary)
}

fn get(path: &str, id: &str, summary: &'static str) -> Operation {
    Operation::new("get", path, id, summary)
}

/// An operation of somebody's session.
fn of_session(operation: Operation) -> Operation {
    let safe = operation.method == "get";
    let operation = operation.proof(Proof::Session).refuses(SESSION);
    if safe { operation } else { with_csrf(operation) }
}

fn with_csrf(operation: Operation) -> Operation {
    let token = text("AbCd");
    operation.in_header("X-CSRF-Token", CSRF_ABOUT, token).refuses(&[Code::CsrfFailed])
}

/// The answer with a session's credentials, in body and cookies.
fn credentials(operation: Operation) -> Operation {
    operation
        .answers(
            200,
            "The session and its credentials, as its delivery has them.",
            named("Credentials"),
        )
        .maybe_with("Set-Cookie")
        .maybe_with("Cloakroom-Durability")
        .maybe_with("RateLimit")
        .maybe_with("RateLimit-Policy")
}

fn limited(operation: Operation) -> Operation {
    operation.maybe_with("RateLimit").maybe_with("RateLimit-Policy")
}

fn login(path: &str) -> Operation {
    let operation = post(path, "login", "Sign in by identifier and password")
        .about(
            "Any session that the request already carried is ended. 401 `session_ended`: the \
             password was right, but the user was signed out everywhere, disabled or given another \
             password while it was checked; sign in again.",
        )
        .proof(Proof::MaybeSession)
        .takes(named("Login"))
        .refuses(&[Code::CredentialsInvalid, Code::SessionEnded])
        .refuses(&[Code::RateLimited, Code::LoginThrottled])
        .refuses(&[Code::TooManySessions, Code::Conflict, Code::StoreUnavailable]);
    credentials(with_csrf(operation))
}

fn refresh(path: &str) -> Operation {
    let operation = post(path, "refresh", "Rotate a refresh token, or slide a session")
        .about(
            "With a refresh token in the body, or the refresh cookie. With a session cookie and \
             neither, the session slides and a fresh CSRF token is answered.",
        )
        .proof(Proof::Refresh)
        .in_header("Idempotency-Key", RETRY_ABOUT, text_like("^[!-~]{16,128}$", IDEMPOTENCY_KEY))
        .may_take(named("RefreshToken"))
        .refuses(SESSION)
        .refuses(&[Code::RefreshTokenRequired, Code::RefreshTokenReused]);
    credentials(with_csrf(operation))
}

const IDEMPOTENCY_KEY: &str = "7f3c1e9a-1c1f-4b60";

fn logout(path: &str) -> Operation {
    let operation = post(path, "logout", "Sign out")
        .about(
            "Ends the session of the request's credential, and clears its cookies. A dead or \
             forged credential ends nothing and is cleared all the same.",
        )
        .proof(Proof::MaybeSession)
        .may_take(named("RefreshToken"))
        .refuses(&[Code::RateLimited, Code::StoreUnavailable]);
    let operation = with_csrf(operation).answers_empty(204, "Signed out.");
    let operation = operation.with("Clear-Site-Data").maybe_with("Set-Cookie");
    limited(operation.maybe_with("Cloakroom-Durability"))
}

fn logout_all(path: &str) -> Operation {
    let operation = of_session(post(path, "logoutAll", "Sign out everywhere"))
        .may_take(named("LogoutAll"))
        .refuses(&[Code::Forbidden])
        .answers(200, "How many sessions ended.", named("Revoked"))
        .with("Cloakroom-Durability")
        .maybe_with("Clear-Site-Data")
        .maybe_with("Set-Cookie");
    limited(operation)
}

fn current(path: &str) -> Operation {
    let operation = of_session(get(path, "getSession", "The current session and its user"));
    limited(operation.answers(200, "The session.", named("Current")))
}

fn list(path: &str) -> Operation {
    let operation = of_session(get(path, "listOwnSessions", "The user's live sessions"));
    limited(operation.answers(200, "The sessions, newest activity first.", named("Sessions")))
}

fn end(path: &str) -> Operation {
    let operation = Operation::new("delete", path, "endOwnSession", "End one's own session");
    let operation = of_session(operation)
        .in_path("sid", "Its id.", named("Sid"))
        .refuses(&[Code::NotFound, Code::Forbidden])
        .answers_empty(204, "It is over.")
        .with("Cloakroom-Durability")
        .maybe_with("Clear-Site-Data")
        .maybe_with("Set-Cookie");
    limited(operation)
}

fn reauthenticate(path: &str) -> Operation {
    let operation = of_session(post(path, "reauthenticate", "Prove again who one is"))
        .about("Sets `auth_time` to now, restarts the session's times and rotates its credential.")
        .takes(named("Password"))
        .refuses(&[Code::CredentialsInvalid, Code::LoginThrottled, Code::Forbidden])
        .refuses(&[Code::Conflict]);
    credentials(operation)
}

fn password(path: &str) -> Operation {
    let operation = of_session(post(path, "changePassword", "Change the password"))
        .about(
            "Ends the user's other sessions and rotates the current one. A reset token in place \
             of the current password needs no session, and ends all of the user's.",
        )
        .takes(named("PasswordChange"))
        .refuses(&[Code::CredentialsInvalid, Code::LoginThrottled, Code::Forbidden])
        .refuses(&[Code::PasswordRejected, Code::Conflict]);
    let either_answer = either([named("Credentials"), named("Registered")]);
    let operation = operation
        .answers(200, "The session's new credentials; the user, after a reset.", either_answer)
        .maybe_with("Set-Cookie")
        .maybe_with("Cloakroom-Durability");
    limited(operation)
}

fn register(path: &str) -> Operation {
    let operation = post(path, "register", "Become a user")
        .about("Served only where `registration.enabled` is set. Opens no session.")
        .takes(named("Registration"))
        .refuses(&[Code::NotFound, Code::Conflict, Code::PasswordRejected])
        .refuses(&[Code::RateLimited, Code::StoreUnavailable]);
    limited(with_csrf(operation).answers(201, "The user.", named("Registered")))
}

fn csrf_token(path: &str) -> Operation {
    let operation = get(path, "getCsrfToken", "A token for `X-CSRF-Token`")
        .about("For the current session, or, before sign-in, for the cookie that comes with it.")
        .proof(Proof::MaybeSession)
        .refuses(SESSION)
        .answers(200, "The token.", named("CsrfToken"))
        .maybe_with("Set-Cookie");
    limited(operation)
}

fn verify(method: &'static str, path: &str, with: &str) -> Operation {
    let (first, rest) = method.split_at(1);
    let id = format!("verify{with}{}{rest}", first.to_ascii_uppercase());
    let mut operation = Operation::new(method, path, &id, "May this request pass, and as whom?")
        .about(
            "For gateways. Any method is taken; no body and no query is read. What the visitor \
             asked comes in `X-Forwarded-*` or `X-Original-*`, from `server.trusted_proxies` only.",
        )
        .proof(Proof::Session)
        .refuses(SESSION)
        .refuses(&[Code::CsrfFailed, Code::InsufficientClaims, Code::ReauthenticationRequired]);
    operation.tag = "forward authentication";
    if path.ends_with("{policy}") {
        operation = operation
            .in_path("policy", "A policy of `forward_auth.policies`.", text_of(1..=64, "default"))
            .refuses(&[Code::NotFound]);
    }
    for name in ["X-Forwarded-Method", "X-Forwarded-Host", "X-Forwarded-Uri"] {
        operation = operation.in_header(name, "The visitor's own request.", text(""));
    }
    let mut operation = operation.answers_empty(200, "It may pass.");
    for name in ["X-Auth-Subject", "X-Auth-Session", "X-Auth-Claims", "X-Auth-Cookie"] {
        operation = operation.with(name);
    }
    limited(operation.with("Authorization"))
        .answers_empty(302, "To the sign-in page, where `forward_auth.sign_in_url` is set.")
        .with("Location")
        .maybe_with("RateLimit")
        .maybe_with("RateLimit-Policy")
}

/// The operations that standards define; both listeners have them.
pub(super) fn standard() -> Vec<Operation> {
    let mut all = keys_and_metadata();
    all.extend([introspect(), revoke(), token()]);
    all.extend(health());
    for operation in &mut all {
        operation.tag = "standard";
        operation.served = Served::Both;
    }
    // A foreign `Host` or `Origin`, on the admin listener.
    all.into_iter().map(|operation| operation.refuses(&[Code::Forbidden])).collect()
}

fn keys_and_metadata() -> Vec<Operation> {
    vec![
        get("/.well-known/jwks.json", "getJwks", "The public keys (RFC 7517)").answers(
            200,
            "The keys.",
            named("Jwks"),
        ),
        get(
            "/.well-known/oauth-authorization-server",
            "getMetadata",
            "Where everything is (RFC 8414)",
        )
        .answers(200, "The metadata.", named("Metadata")),
    ]
}

fn oauth(operation: Operation, errors: &'static [&'static str]) -> Operation {
    let operation = Operation { errors: Errors::OAuth(errors), ..operation };
    operation.refuses(FORM).refuses(&[Code::RateLimited, Code::StoreUnavailable])
}

fn introspect() -> Operation {
    let operation = post("/oauth2/introspect", "introspect", "What is this token? (RFC 7662)")
        .about("A token that doesn't count is `{\"active\": false}`, whatever it is otherwise.")
        .proof(Proof::Introspection)
        .takes_form(named("IntrospectionForm"))
        .refuses(&[Code::CredentialsRequired, Code::TokenExpired, Code::TokenInvalid])
        .refuses(&[Code::TokenWrongType, Code::InsufficientScope]);
    limited(oauth(operation, &[]).answers(200, "What it is.", named("Introspection")))
}

fn revoke() -> Operation {
    let operation = post("/oauth2/revoke", "revokeToken", "End a token's session (RFC 7009)")
        .about("Holding the token is enough; an unknown one is as good as revoked.")
        .takes_form(named("RevocationForm"));
    let operation = oauth(operation, &[]).answers_empty(200, "It counts for nothing any more.");
    limited(operation.maybe_with("Cloakroom-Durability"))
}

fn token() -> Operation {
    let key = text_like("^[!-~]{16,128}$", IDEMPOTENCY_KEY);
    let operation = post("/oauth2/token", "token", "Rotate a refresh token (RFC 6749 section 6)")
        .in_header("Idempotency-Key", RETRY_ABOUT, key)
        .takes_form(named("TokenForm"));
    let operation = oauth(operation, &["invalid_grant", "unsupported_grant_type"]);
    limited(operation.answers(200, "The new tokens.", named("TokenAnswer")))
}

fn health() -> Vec<Operation> {
    vec![
        get("/healthz", "getHealth", "Does the process answer at all?").answers(
            200,
            "It does.",
            named("Alive"),
        ),
        get("/readyz", "getReadiness", "Can it do its work, and will it go on?")
            .refuses(&[Code::StoreUnavailable])
            .answers(200, "It can.", named("Ready")),
    ]
}

/// The page that [`super::page`] renders, as an answer.
pub(super) fn html() -> Value {
    shown_as(json!({"type": "string"}), "<!doctype html>…".into())
}
