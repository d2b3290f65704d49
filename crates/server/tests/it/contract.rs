//! Every answer that a test sees, judged by the OpenAPI document (its golden file).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, OnceLock};

use cloakroom_server::openapi::header_names;
use serde_json::{Map, Value, json};

/// The document, as `openapi.rs` compares it with what a node answers.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/openapi.json");
        let text = std::fs::read(path).expect("the golden file");
        serde_json::from_slice(&text).unwrap_or_default()
    })
}

/// Which listener an address is.
static LISTENERS: Mutex<BTreeMap<SocketAddr, &'static str>> = Mutex::new(BTreeMap::new());

/// The public listener's mark in the document.
pub const PUBLIC: &str = "The public listener.";
/// The admin listener's.
pub const ADMIN: &str = "The admin listener, never reachable by browsers of the public.";

/// Notes which listener is at an address.
pub fn note(address: SocketAddr, listener: &'static str) {
    LISTENERS.lock().expect("not poisoned").insert(address, listener);
}

/// Which listener is at an address, if that was noted.
pub fn listener_at(address: SocketAddr) -> Option<&'static str> {
    LISTENERS.lock().expect("not poisoned").get(&address).copied()
}

/// An answer, as far as the document speaks of it.
pub struct Seen<'a> {
    /// Which listener it came from, if that is known.
    pub listener: Option<&'static str>,
    pub method: &'a str,
    pub target: &'a str,
    pub status: u16,
    pub headers: Vec<(&'a str, &'a str)>,
    pub body: &'a [u8],
}

impl Seen<'_> {
    /// Panics where the document doesn't have this answer.
    #[track_caller]
    pub fn judge(&self) {
        if let Err(why) = judge(self) {
            let body = String::from_utf8_lossy(self.body);
            panic!(
                "not in the document: {} {} -> {}: {why}\n{body}",
                self.method, self.target, self.status
            );
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, v)| *v)
    }
}

fn judge(seen: &Seen<'_>) -> Result<(), String> {
    let path = seen.target.split(['?', '#']).next().unwrap_or_default();
    if seen.status == 431 && seen.body.is_empty() {
        // By the HTTP library, before anybody here saw the request.
        return Ok(());
    }
    let method = if seen.method == "HEAD" { "get" } else { &seen.method.to_ascii_lowercase() };
    let place = place_of(path).filter(|place| is_served(place, seen.listener));
    let Some(place) = place else {
        return judge_elsewhere(seen, &[400, 401, 403, 404, 429, 503]);
    };
    let operation = match place.get(seen.method.to_ascii_lowercase()).or(place.get(method)) {
        Some(operation) => operation,
        // Any method is taken, those that OpenAPI has no name for too.
        None if takes_any_method(path) && !matches!(seen.method, "TRACE" | "CONNECT") => {
            &place["get"]
        }
        // A preflight, where origins are listed.
        None if seen.method == "OPTIONS" && seen.status == 204 => return Ok(()),
        None => return judge_elsewhere(seen, &[400, 401, 403, 404, 405, 429, 503]),
    };
    let response = &operation["responses"][seen.status.to_string()];
    if response.is_null() {
        return Err("no such status".to_owned());
    }
    let response = resolve(response);
    judge_headers(seen, response)?;
    if seen.method == "HEAD" {
        return if seen.body.is_empty() { Ok(()) } else { Err("HEAD with a body".to_owned()) };
    }
    judge_body(seen, &response["content"])
}

/// Forward authentication, by the default policy or a named one.
fn takes_any_method(path: &str) -> bool {
    path.contains("/verify") && !path.starts_with("/admin/")
}

fn is_served(place: &Value, listener: Option<&str>) -> bool {
    let mut servers = elements(&place["servers"]).iter();
    listener.is_none_or(|listener| servers.any(|server| server["description"] == listener))
}

/// The entry of a path: the one that says most of it literally.
fn place_of(path: &str) -> Option<&'static Value> {
    let paths = document()["paths"].as_object()?;
    let fits = |template: &&String| {
        let (theirs, ours): (Vec<_>, Vec<_>) =
            (path.split('/').collect(), template.split('/').collect());
        theirs.len() == ours.len()
            && ours.iter().zip(theirs).all(|(our, their)| {
                if our.starts_with('{') { !their.is_empty() } else { *our == their }
            })
    };
    let best = paths.keys().filter(fits).min_by_key(|template| template.matches('{').count())?;
    paths.get(best)
}

/// An answer at a place, or to a method, that the document doesn't have: a refusal, and nothing
/// else.
fn judge_elsewhere(seen: &Seen<'_>, statuses: &[u16]) -> Result<(), String> {
    if !statuses.contains(&seen.status) {
        return Err("a place or method that isn't there".to_owned());
    }
    if seen.method == "HEAD" || seen.body.is_empty() {
        return Ok(());
    }
    let all = document()["components"]["schemas"].as_object().into_iter().flatten();
    let problems = all.filter(|(name, _)| name.starts_with("Problem"));
    let any: Vec<Value> = problems.map(|(_, schema)| schema.clone()).collect();
    judge_body(
        seen,
        &json!({
            "application/problem+json": {"schema": {"oneOf": any}},
            "application/json": {"schema": {"$ref": "#/components/schemas/OAuthError"}},
        }),
    )
}

fn judge_headers(seen: &Seen<'_>, response: &Value) -> Result<(), String> {
    let empty = Map::new();
    let documented = response["headers"].as_object().unwrap_or(&empty);
    for (name, header) in documented {
        let header = resolve(header);
        match seen.header(name) {
            Some(value) => check(&header["schema"], &value.into(), name)?,
            None if header["required"] == true => return Err(format!("without {name}")),
            None => {}
        }
    }
    let known: BTreeSet<String> = header_names().map(str::to_ascii_lowercase).collect();
    let told: BTreeSet<String> = documented.keys().map(|name| name.to_ascii_lowercase()).collect();
    for (name, _) in &seen.headers {
        let name = name.to_ascii_lowercase();
        if known.contains(&name) && !told.contains(&name) {
            return Err(format!("with the header {name}"));
        }
    }
    Ok(())
}

fn judge_body(seen: &Seen<'_>, content: &Value) -> Result<(), String> {
    let Some(content) = content.as_object() else {
        return if seen.body.is_empty() { Ok(()) } else { Err("with a body".to_owned()) };
    };
    let kind = seen.header("content-type").ok_or("without a content type")?;
    let media = content.get(kind).ok_or_else(|| format!("of the content type {kind}"))?;
    let body = if kind.ends_with("json") {
        serde_json::from_slice(seen.body).map_err(|why| why.to_string())?
    } else {
        Value::from(String::from_utf8_lossy(seen.body))
    };
    check(&media["schema"], &body, "body")
}

fn resolve(value: &Value) -> &Value {
    match value["$ref"].as_str() {
        Some(target) => target_of(target),
        None => value,
    }
}

fn target_of(target: &str) -> &'static Value {
    let pointer = target.strip_prefix('#').unwrap_or_else(|| panic!("{target} is elsewhere"));
    document().pointer(pointer).unwrap_or_else(|| panic!("{target} leads nowhere"))
}

/// Checks a value by a schema of JSON Schema's draft 2020-12, as far as the document uses it: a
/// keyword that isn't known here is an error, so that nothing is taken for checked that isn't.
pub fn check(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let keywords = schema.as_object().ok_or_else(|| format!("{at}: {schema} is no schema"))?;
    let refused = |why: &str| Err(format!("{at}: {why}"));
    for (keyword, wanted) in keywords {
        match keyword.as_str() {
            "description" | "examples" | "required" | "additionalProperties" => {}
            "$ref" => check(target_of(wanted.as_str().unwrap_or_default()), value, at)?,
            "const" if wanted != value => return refused(&format!("{value} isn't {wanted}")),
            "enum" if !elements(wanted).contains(value) => return refused("none of the enum"),
            "const" | "enum" => {}
            "type" if !is_of(wanted, value) => return refused(&format!("{value} isn't {wanted}")),
            "type" => {}
            "oneOf" => {
                let tried: Vec<_> =
                    elements(wanted).iter().map(|schema| check(schema, value, at)).collect();
                if tried.iter().filter(|one| one.is_ok()).count() != 1 {
                    return refused(&format!("fits not exactly one: {tried:?}"));
                }
            }
            "allOf" => elements(wanted).iter().try_for_each(|all| check(all, value, at))?,
            "not" if check(wanted, value, at).is_ok() => return refused("fits what it must not"),
            "not" => {}
            "items" => {
                for (index, element) in elements(value).iter().enumerate() {
                    check(wanted, element, &format!("{at}[{index}]"))?;
                }
            }
            "properties" => check_members(keywords, value, at)?,
            "propertyNames" => {
                for name in members(value).keys() {
                    check(wanted, &name.as_str().into(), &format!("{at}.{name}"))?;
                }
            }
            "minimum" if value.as_f64() < wanted.as_f64() => return refused("too small"),
            "maximum" if value.is_number() && value.as_f64() > wanted.as_f64() => {
                return refused("too large");
            }
            "minItems" | "maxItems" | "minimum" | "maximum" => {}
            "minLength" | "maxLength" => {
                let chars = value.as_str().map_or(0, |text| text.chars().count()) as u64;
                let bound = wanted.as_u64().unwrap_or_default();
                if if keyword == "minLength" { chars < bound } else { chars > bound } {
                    return refused("of the wrong length");
                }
            }
            "format" => {
                let text = value.as_str().unwrap_or_default();
                let is_instant =
                    text.len() == 24 && text.ends_with('Z') && text.get(10..11) == Some("T");
                if wanted != "date-time" || (value.is_string() && !is_instant) {
                    return refused(&format!("{text:?} is no {wanted}"));
                }
            }
            "pattern" => check_pattern(wanted, value).map_err(|why| format!("{at}: {why}"))?,
            other => return refused(&format!("the keyword {other} isn't known to this test")),
        }
    }
    Ok(())
}

fn check_members(schema: &Map<String, Value>, value: &Value, at: &str) -> Result<(), String> {
    let Value::Object(found) = value else { return Ok(()) };
    let properties = schema.get("properties").map(members).unwrap_or_default();
    for name in schema.get("required").map(elements).unwrap_or_default() {
        let name = name.as_str().unwrap_or_default();
        if !found.contains_key(name) {
            return Err(format!("{at}: without {name}"));
        }
    }
    for (name, value) in found {
        match properties.get(name) {
            Some(schema) => check(schema, value, &format!("{at}.{name}"))?,
            None if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
                return Err(format!("{at}: the member {name} isn't documented"));
            }
            None => {}
        }
    }
    Ok(())
}

/// The patterns that the document has, each spelled out: no engine for regular expressions.
fn check_pattern(pattern: &Value, value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else { return Ok(()) };
    let all = |is: fn(&u8) -> bool| text.bytes().all(|byte| is(&byte));
    let fits = match pattern.as_str().unwrap_or_default() {
        "^[0-7][0-9A-HJKMNP-TV-Z]{25}$" => {
            text.len() == 26 && all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
        }
        "^[A-Za-z0-9_-]{43}$" => {
            text.len() == 43 && all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte))
        }
        "^[0-9]+$" => !text.is_empty() && all(u8::is_ascii_digit),
        "^[!-~]{16,128}$" => (16..=128).contains(&text.len()) && all(u8::is_ascii_graphic),
        "^[!-~]{1,64}$" => (1..=64).contains(&text.len()) && all(u8::is_ascii_graphic),
        other => return Err(format!("the pattern {other} isn't known to this test")),
    };
    if fits { Ok(()) } else { Err(format!("{text:?} isn't like {pattern}")) }
}

fn is_of(wanted: &Value, value: &Value) -> bool {
    let is = |kind: &str| match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    match wanted {
        Value::String(kind) => is(kind),
        kinds => elements(kinds).iter().filter_map(Value::as_str).any(is),
    }
}

fn elements(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn members(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[test]
fn what_is_not_documented_is_noticed() {
    let seen = |method, target, status, body: &'static str| Seen {
        listener: None,
        method,
        target,
        status,
        headers: vec![("x-request-id", "x"), ("content-type", "application/json")],
        body: body.as_bytes(),
    };
    assert_eq!(judge(&seen("GET", "/healthz", 200, "{\"status\":\"ok\"}")), Ok(()));
    for (method, target, status, body) in [
        ("GET", "/healthz", 201, "{\"status\":\"ok\"}"),
        ("GET", "/healthz", 200, "{\"status\":\"ok\",\"more\":1}"),
        ("GET", "/healthz", 200, "{}"),
        ("POST", "/healthz", 200, "{\"status\":\"ok\"}"),
        ("GET", "/elsewhere", 200, "{\"status\":\"ok\"}"),
    ] {
        assert!(judge(&seen(method, target, status, body)).is_err(), "{method} {target} {body}");
    }
    let mut more = seen("GET", "/healthz", 200, "{\"status\":\"ok\"}");
    more.headers.push(("Set-Cookie", "a=b"));
    assert!(judge(&more).is_err());
    more.headers = vec![("content-type", "application/json")];
    assert!(judge(&more).is_err());
    more.headers = vec![("x-request-id", "x"), ("content-type", "text/plain")];
    assert!(judge(&more).is_err());
    let mut elsewhere = seen("GET", "/metrics", 200, "# EOF");
    elsewhere.headers[1] = ("content-type", OPENMETRICS);
    for (listener, fits) in [(None, true), (Some(ADMIN), true), (Some(PUBLIC), false)] {
        elsewhere.listener = listener;
        assert_eq!(judge(&elsewhere).is_ok(), fits, "{listener:?}");
    }
}
