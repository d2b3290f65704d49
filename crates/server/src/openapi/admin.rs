//! The operations of the admin listener: the operator's and the backends'.

use cloakroom_core::limits::PAGE_MAX;
use serde_json::{Value, json};

use super::codes::{API_KEY, QUERY, UNREAD};
use super::operation::{Operation, Proof, Served};
use super::public::html;
use super::shape::{count_of, named, one_of_texts, shown_as, text, text_of};
use crate::admin::{self, Scope};
use crate::problem::Code;

const SESSIONS: &str = "/admin/v1/sessions";
const SESSION: &str = "/admin/v1/sessions/{sid}";
const DATA: &str = "/admin/v1/sessions/{sid}/data";
const HANDLE: &str = "/admin/v1/handles/{handle}";
const SUBJECT: &str = "/admin/v1/subjects/{subject}";
const SUBJECT_SESSIONS: &str = "/admin/v1/subjects/{subject}/sessions";
const USERS: &str = "/admin/v1/users";
const USER: &str = "/admin/v1/users/{id}";
const API_KEYS: &str = "/admin/v1/api-keys";
const IF_MATCH_ABOUT: &str = "Only if the data is of this version still (RFC 9110).";

/// All of them.
pub(super) fn operations() -> Vec<Operation> {
    let groups = [
        ("sessions", sessions()),
        ("sessions", session()),
        ("data", data()),
        ("handles", handles()),
        ("subjects", subjects()),
        ("users", users()),
        ("keys", keys()),
        ("API keys", api_keys()),
        ("events", events()),
        ("upkeep", upkeep()),
    ];
    let tagged = groups.into_iter().flat_map(|(tag, operations)| {
        operations.into_iter().map(move |operation| Operation { tag, ..operation })
    });
    tagged.collect()
}

/// An endpoint of the table of routes: its scope is the one that is asked for.
fn at(method: &'static str, path: &str, id: &str, summary: &'static str) -> Operation {
    let listed = |(m, p, _): &(&hyper::Method, &str, Scope)| {
        m.as_str().eq_ignore_ascii_case(method) && *p == path
    };
    let scope = admin::table().find(listed).map_or(Scope::Any, |(.., scope)| scope);
    let operation = Operation::new(method, path, id, summary);
    let operation = Operation { served: Served::Admin, ..operation };
    let operation = operation.proof(Proof::ApiKey(scope)).refuses(API_KEY).refuses(UNREAD);
    if scope == Scope::Any { operation } else { operation.refuses(&[Code::InsufficientScope]) }
}

fn of_sid(operation: Operation) -> Operation {
    operation.in_path("sid", "The session's id.", named("Sid")).refuses(&[Code::NotFound])
}

fn of_subject(operation: Operation) -> Operation {
    operation.in_path("subject", "The subject.", named("Subject")).refuses(&[Code::NotFound])
}

fn of_user(operation: Operation) -> Operation {
    operation.in_path("id", "The user's id.", named("Subject")).refuses(&[Code::NotFound])
}

fn paged(operation: Operation) -> Operation {
    let limit = count_of(1..=PAGE_MAX as u64, 50);
    operation
        .in_query("after", "Where to go on: an earlier answer's `next`.", text(""))
        .in_query("limit", "How many at most.", limit)
        .refuses(QUERY)
}

fn sessions() -> Vec<Operation> {
    let open = at("post", SESSIONS, "openSession", "Open a session: bring your own sign-in")
        .takes(named("OpenSession"))
        .refuses(&[Code::Conflict, Code::TooManySessions])
        .answers(201, "The session and its credentials, told this once.", named("Opened"))
        .with("Location")
        .maybe_with("Cloakroom-Durability");
    let list = paged(at("get", SESSIONS, "listSessions", "Page through sessions"))
        .in_query("subject", "Only this subject's.", text_of(1..=255, "usr_42"))
        .answers(200, "Some sessions.", named("AdminSessions"));
    let verify = at("post", "/admin/v1/sessions/verify", "verifyToken", "Is this token good?")
        .takes(named("Token"))
        .refuses(&[Code::SessionEnded])
        .answers(200, "Its session.", named("AdminSessionAnswer"));
    let touch = at("post", "/admin/v1/sessions/touch", "touch", "Tell of activity seen elsewhere")
        .takes(named("Touch"))
        .answers_empty(204, "Noted.");
    let end_all = at("post", "/admin/v1/sessions/end-all", "endAll", "End every session there is")
        .about("For an incident. A 503 may have ended a part; repeat it.")
        .answers(200, "Done.", named("EndedBefore"))
        .with("Cloakroom-Durability");
    vec![open, list, verify, touch, end_all]
}

fn session() -> Vec<Operation> {
    let read = of_sid(at("get", SESSION, "getSessionById", "Read a session, ended ones too"))
        .answers(200, "The session.", named("AdminSessionAnswer"));
    let change = of_sid(at("patch", SESSION, "changeClaims", "Change a session's claims"))
        .takes(named("ClaimsPatch"))
        .refuses(&[Code::SessionEnded])
        .answers(200, "The session.", named("AdminSessionAnswer"));
    let end = of_sid(at("delete", SESSION, "endSession", "End a session"))
        .in_query("reason", "Words for the audit log.", text("lost laptop"))
        .refuses(QUERY)
        .answers_empty(204, "It is over.")
        .with("Cloakroom-Durability");
    vec![read, change, end]
}

fn data() -> Vec<Operation> {
    let answered = |operation: Operation| {
        of_sid(operation)
            .refuses(&[Code::SessionEnded])
            .answers(200, "The data.", named("Data"))
            .with("ETag")
    };
    let written = |operation: Operation| {
        answered(operation)
            .in_header("If-Match", IF_MATCH_ABOUT, text("\"7\""))
            .takes(named("Data"))
            .refuses(&[Code::PreconditionFailed])
    };
    let merge = at("patch", DATA, "changeData", "Merge into a session's data (RFC 7396)");
    vec![
        answered(at("get", DATA, "getData", "Read a session's data")),
        written(at("put", DATA, "replaceData", "Replace a session's data")),
        written(merge),
    ]
}

fn handles() -> Vec<Operation> {
    let of_handle = |operation: Operation| {
        operation
            .in_path("handle", "The base64url SHA-256 of the framework's id.", named("Handle"))
            .refuses(&[Code::NotFound, Code::HandleEnded])
    };
    let read = of_handle(at("get", HANDLE, "getHandle", "Read the session of a handle"))
        .answers(200, "The session and its data.", named("HandleAnswer"))
        .with("ETag");
    let put = of_handle(at("put", HANDLE, "putHandle", "Make or replace the session of a handle"))
        .in_header("If-Match", IF_MATCH_ABOUT, text("\"7\""))
        .takes(named("PutHandle"))
        .refuses(&[Code::PreconditionFailed, Code::Conflict, Code::TooManySessions])
        .answers(200, "It was replaced.", named("HandleAnswer"))
        .with("ETag")
        .maybe_with("Cloakroom-Durability")
        .answers(201, "It is new.", named("HandleAnswer"))
        .with("ETag")
        .with("Location")
        .maybe_with("Cloakroom-Durability");
    let end = of_handle(at("delete", HANDLE, "endHandle", "End the session of a handle"))
        .answers_empty(204, "It is over.")
        .with("Cloakroom-Durability");
    vec![read, put, end]
}

fn subjects() -> Vec<Operation> {
    let list = at("get", SUBJECT_SESSIONS, "listSubjectSessions", "A subject's live sessions");
    let sign_out =
        at("delete", SUBJECT_SESSIONS, "signOutSubject", "Sign a subject out everywhere");
    let read = at("get", SUBJECT, "getSubject", "A subject's epoch and claims");
    let change = at("patch", SUBJECT, "changeSubject", "Change claims, disable, enable");
    let erase = at("delete", SUBJECT, "eraseSubject", "Erase sessions, claims, user and names");
    vec![
        of_subject(list).answers(200, "All of them.", named("AdminSessions")),
        of_subject(sign_out)
            .answers(200, "How many ended.", named("Revoked"))
            .with("Cloakroom-Durability"),
        of_subject(read).answers(200, "The subject.", named("SubjectAnswer")),
        of_subject(change)
            .takes(named("SubjectPatch"))
            .answers(200, "The subject.", named("SubjectAnswer"))
            .maybe_with("Cloakroom-Durability"),
        of_subject(erase).answers_empty(204, "Erased.").with("Cloakroom-Durability"),
    ]
}

fn users() -> Vec<Operation> {
    let list = paged(at("get", USERS, "listUsers", "Page through users, or find one"))
        .in_query("identifier", "Only this identifier's.", text_of(1..=320, "ada@example.com"))
        .answers(200, "Some users.", named("Users"));
    let create = at("post", USERS, "createUser", "Add a user")
        .takes(named("NewUser"))
        .refuses(&[Code::Conflict, Code::PasswordRejected])
        .answers(200, "There was such a user (`allow_same`).", named("UserAnswer"))
        .answers(201, "The user.", named("UserAnswer"))
        .with("Location")
        .answers_empty(204, "It could be made (`dry_run`).");
    let read = of_user(at("get", USER, "getUser", "Read a user")).answers(
        200,
        "The user.",
        named("UserAnswer"),
    );
    let change = of_user(at("patch", USER, "changeUser", "Change a user"))
        .takes(named("UserPatch"))
        .refuses(&[Code::Conflict, Code::PasswordRejected])
        .answers(200, "The user.", named("UserAnswer"))
        .maybe_with("Cloakroom-Durability");
    let delete = of_user(at("delete", USER, "deleteUser", "Delete a user"))
        .answers_empty(204, "Deleted; its sessions are over.")
        .with("Cloakroom-Durability");
    let reset = at("post", "/admin/v1/users/{id}/reset", "resetPassword", "Make a reset token")
        .about("Good for an hour and once, in place of the current password.");
    let reset = of_user(reset).refuses(&[Code::Conflict]).answers(201, "It.", named("Reset"));
    vec![list, create, read, change, delete, reset]
}

fn keys() -> Vec<Operation> {
    let list = at("get", "/admin/v1/keys", "listKeys", "The signing keys").answers(
        200,
        "All of them.",
        named("Keys"),
    );
    let rotate = at("post", "/admin/v1/keys/rotate", "rotateKeys", "Bring the next key into use")
        .refuses(&[Code::Conflict])
        .answers(200, "All keys.", named("Keys"));
    let rewrap = at("post", "/admin/v1/keys/rewrap", "rewrapKey", "Wrap by the new master key")
        .answers(200, "Whether there was anything to do.", named("Rewrapped"));
    let revoke = at("post", "/admin/v1/keys/{kid}/revoke", "revokeKey", "Revoke a key at once")
        .in_path("kid", "The key's id.", text("Yx8K"))
        .refuses(&[Code::NotFound, Code::Conflict])
        .answers(200, "All keys.", named("Keys"))
        .with("Cloakroom-Durability");
    let deny = at("post", "/admin/v1/tokens/revoke", "denyToken", "Deny one access token")
        .takes(named("DenyToken"))
        .answers_empty(204, "It counts for nothing any more.")
        .with("Cloakroom-Durability");
    vec![list, rotate, rewrap, revoke, deny]
}

fn api_keys() -> Vec<Operation> {
    let list = paged(at("get", API_KEYS, "listApiKeys", "Page through API keys")).answers(
        200,
        "Some keys.",
        named("ApiKeys"),
    );
    let create = at("post", API_KEYS, "createApiKey", "Make an API key")
        .takes(named("NewApiKey"))
        .answers(201, "The key and its secret.", named("MadeApiKey"))
        .with("Location");
    let delete = at("delete", "/admin/v1/api-keys/{id}", "deleteApiKey", "Delete an API key")
        .in_path("id", "The key's id.", named("Sid"))
        .refuses(&[Code::NotFound])
        .answers_empty(204, "Deleted; its streams end.");
    vec![list, create, delete]
}

fn streamed(operation: Operation) -> Operation {
    let example =
        "retry: 1000\n\nevent: heartbeat\ndata: {\"at\":\"2027-01-15T08:00:00.120Z\"}\n\n";
    operation
        .in_header("Last-Event-ID", "Where to go on: the last message's `id`.", text(""))
        .answers_as(200, "Server-sent events without end.", "text/event-stream", text(example))
}

fn events() -> Vec<Operation> {
    let list = paged(at("get", "/admin/v1/events", "listEvents", "The audit log"))
        .in_query("order", "`asc` if nothing is said.", one_of_texts(["asc", "desc"]))
        .in_query("type", "Only this type.", named("EventType"))
        .in_query("subject", "Only this subject's.", text_of(1..=255, "usr_42"))
        .in_query("sid", "Only this session's.", named("Sid"))
        .answers(200, "Some events.", named("Events"));
    let snapshot = at("get", "/admin/v1/revocations", "getRevocations", "What verifiers must know")
        .answers(200, "All that still matters.", named("Revocations"));
    let stream = "/admin/v1/events/stream";
    let revocation_stream = "/admin/v1/revocations/stream";
    vec![
        list,
        streamed(at("get", stream, "streamEvents", "The audit log as it grows")),
        snapshot,
        streamed(at("get", revocation_stream, "streamRevocations", "Revocations as they happen")),
    ]
}

fn upkeep() -> Vec<Operation> {
    let stats = at("get", "/admin/v1/stats", "getStats", "What this node has done").answers(
        200,
        "The figures.",
        named("Stats"),
    );
    let sweep = at("post", "/admin/v1/sweep", "sweep", "Remove what has expired").answers(
        200,
        "How much was removed.",
        named("Removed"),
    );
    let metrics = at("get", "/metrics", "getMetrics", "Metrics in the OpenMetrics format")
        .answers_as(200, "The metrics.", crate::metrics::OPENMETRICS, plain("# EOF\n"));
    let document = json!({
        "type": "object",
        "required": ["openapi", "info", "paths"],
        "properties": {
            "openapi": {"type": "string"},
            "info": {"type": "object"},
            "paths": {"type": "object"},
        },
        "examples": [{"openapi": "3.1.0", "info": {}, "paths": {}}],
    });
    let document = at("get", "/openapi.json", "getOpenapi", "This document").answers(
        200,
        "OpenAPI 3.1.",
        document,
    );
    let page = Operation::new("get", "/openapi", "getReference", "This document as a page")
        .about("Needs no key: it tells nothing of this node.")
        .refuses(&[Code::Forbidden])
        .answers_as(200, "HTML that loads nothing.", "text/html; charset=utf-8", html());
    vec![stats, sweep, metrics, document, Operation { served: Served::Admin, ..page }]
}

fn plain(example: &str) -> Value {
    shown_as(json!({"type": "string"}), example.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l1_no_operation_is_described_that_is_not_in_the_table_of_routes() {
        let with_key = operations().into_iter().filter(|one| matches!(one.proof, Proof::ApiKey(_)));
        for operation in with_key.filter(|one| one.served == Served::Admin) {
            let (method, path) = (operation.method.to_ascii_uppercase(), &operation.path);
            let listed = admin::table().any(|(m, p, _)| m.as_str() == method && p == path);
            assert!(listed, "{method} {path}");
        }
    }
}
