//! Bad input at every admin endpoint: made from the table of routes and the OpenAPI document, so
//! that none can be forgotten. Each answer says what was wrong, and nothing has changed.

use std::collections::BTreeSet;

use cloakroom_server::admin::table;
use serde_json::{Map, Value, json};

use crate::admin_world::{AdminWorld, Reply, text};
use crate::contract::document;

/// A member, or part of one, that a request must not have: its name and the body that has it.
type Bad = (String, Value);

/// An endpoint on things that exist.
struct Endpoint {
    method: &'static str,
    template: &'static str,
    path: String,
    operation: &'static Value,
}

impl Endpoint {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.template)
    }

    fn schema(&self) -> Option<&'static Value> {
        let schema = &self.operation["requestBody"]["content"]["application/json"]["schema"];
        (!schema.is_null()).then(|| resolved(schema))
    }

    fn example(&self) -> Option<&'static Value> {
        let example = &self.operation["requestBody"]["content"]["application/json"]["example"];
        (!example.is_null()).then_some(example)
    }

    fn query_parameters(&self) -> impl Iterator<Item = (&'static str, &'static Value)> {
        let parameters = self.operation["parameters"].as_array().into_iter().flatten();
        let in_query = parameters.filter(|parameter| parameter["in"] == "query");
        in_query.map(|one| (one["name"].as_str().unwrap_or_default(), resolved(&one["schema"])))
    }
}

/// A node with one of everything, and all its endpoints.
struct Stage {
    world: AdminWorld,
    endpoints: Vec<Endpoint>,
    before: Value,
}

impl Stage {
    fn new() -> Self {
        let world = AdminWorld::new();
        let sid = text(&world.open("ada", "cookie")["session"]["id"]).to_owned();
        let user = text(&world.add_user("bad@example.com")["id"]).to_owned();
        let kid = text(&world.get("/admin/v1/keys").expect(200).body["keys"][0]["kid"]).to_owned();
        let key = json!({"name": "stays", "scopes": ["events"]});
        let made = world.post("/admin/v1/api-keys", &key).expect(201).body;
        let handle = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";
        let put = json!({"subject": "ada", "data": {"cart": 1}});
        world.put("PUT", &format!("/admin/v1/handles/{handle}"), &put).expect(201);
        let routes = table().filter(|(_, path, _)| !path.contains("{*"));
        let endpoints = routes.map(|(method, template, _)| {
            let id =
                if template.contains("api-keys") { text(&made["api_key"]["id"]) } else { &user };
            let path = [("sid", sid.as_str()), ("subject", "ada"), ("id", id), ("kid", &kid)]
                .into_iter()
                .chain([("handle", handle)])
                .fold(template.to_owned(), |path, (name, value)| {
                    path.replace(&format!("{{{name}}}"), value)
                });
            let operation = &document()["paths"][template][method.as_str().to_ascii_lowercase()];
            assert!(operation.is_object() && !path.contains('{'), "{method} {template}");
            Endpoint { method: method.as_str(), template, path, operation }
        });
        let endpoints: Vec<Endpoint> = endpoints.collect();
        assert!(endpoints.len() > 40);
        let before = state(&world);
        Self { world, endpoints, before }
    }

    /// A request with the root key, a query and perhaps a body of some content type.
    fn send(&self, endpoint: &Endpoint, query: &str, body: Option<(&str, &[u8])>) -> Reply {
        let bearer = format!("Bearer {}", self.world.key);
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(body.filter(|(kind, _)| !kind.is_empty()).map(|(k, _)| ("content-type", k)));
        let url = format!("{}{}{query}", self.world.admin, endpoint.path);
        self.world.send(endpoint.method, &url, &headers, body.map(|(_, bytes)| bytes))
    }

    fn send_json(&self, endpoint: &Endpoint, body: &Value) -> Reply {
        self.send(endpoint, "", Some(("application/json", body.to_string().as_bytes())))
    }

    #[track_caller]
    fn assert_unchanged(&self, endpoint: &Endpoint) {
        assert_eq!(state(&self.world), self.before, "{} changed something", endpoint.name());
    }
}

/// Everything that an operator can see of what is stored.
fn state(world: &AdminWorld) -> Value {
    let mut all = Map::new();
    for path in ["sessions", "users", "keys", "api-keys", "events", "subjects/ada"] {
        let answer = world.get(&format!("/admin/v1/{path}")).expect(200).body;
        all.insert(path.to_owned(), answer);
    }
    let text = Value::Object(all).to_string();
    // When a key was last used is noted by asking.
    let parts: Vec<&str> = text.split("\"last_used_at\":").collect();
    let rest = parts.iter().map(|part| part.split_once([',', '}']).map_or("", |(_, rest)| rest));
    Value::from(rest.collect::<String>())
}

fn resolved(schema: &'static Value) -> &'static Value {
    match schema["$ref"].as_str() {
        Some(target) => resolved(document().pointer(&target[1..]).expect("a schema")),
        None => schema,
    }
}

/// Checks a refusal: its status, its code, what it names, and that it says why.
#[track_caller]
fn refused(answer: &Reply, status: u16, code: &str, member: &str, of: &str) {
    assert_eq!(answer.status, status, "{of}: {}", answer.text);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{of}");
    assert_eq!((answer.code(), answer.member()), (code, member), "{of}: {}", answer.text);
    assert!(!answer.body["detail"].as_str().unwrap_or_default().is_empty(), "{of}");
}

/// The types that a schema allows, with what `oneOf` allows; empty: any.
fn types_of(schema: &'static Value) -> BTreeSet<&'static str> {
    let schema = resolved(schema);
    let mut types: BTreeSet<&str> = BTreeSet::new();
    match &schema["type"] {
        Value::String(one) => drop(types.insert(one)),
        several => types.extend(several.as_array().into_iter().flatten().filter_map(Value::as_str)),
    }
    types.extend(schema["oneOf"].as_array().into_iter().flatten().flat_map(types_of));
    types
}

/// Values that a schema rules out.
fn values_against(schema: &'static Value) -> Vec<Value> {
    let types = types_of(schema);
    let samples = [
        ("null", Value::Null),
        ("boolean", json!(true)),
        ("integer", json!(7)),
        ("number", json!(1.5)),
        ("string", json!("x")),
        ("array", json!([])),
        ("object", json!({})),
    ];
    let wrong = samples.into_iter().filter(|(kind, _)| !types.contains(kind));
    let mut bad: Vec<Value> = wrong.map(|(_, value)| value).collect();
    // The part of an optional null that is none.
    let schema = resolved(schema);
    let parts = schema["oneOf"].as_array();
    let schema = parts.and_then(|parts| parts.first()).map_or(schema, resolved);
    if let Some(longest) = schema["maxLength"].as_u64() {
        bad.push("x".repeat(usize::try_from(longest).expect("short") + 1).into());
    }
    if schema["minLength"].as_u64() > Some(0) {
        bad.push("".into());
    }
    if let Some(largest) = schema["maximum"].as_u64() {
        bad.extend([json!(largest + 1), json!(u64::MAX)]);
    }
    if let Some(smallest) = schema["minimum"].as_i64() {
        bad.push(json!(smallest - 1));
    }
    if schema["enum"].is_array() || schema["pattern"].is_string() || schema["format"].is_string() {
        bad.extend(["".into(), "what nobody knows".into()]);
    }
    if schema["type"] == "array" {
        let longest = schema["maxItems"].as_u64().and_then(|longest| usize::try_from(longest).ok());
        let item = crate::openapi::example_of(&schema["items"]);
        bad.extend(longest.map(|longest| vec![item; longest + 1].into()));
        bad.extend(values_against(&schema["items"]).into_iter().map(|item| json!([item])));
        if schema["minItems"].as_u64() > Some(0) {
            bad.push(json!([]));
        }
    }
    bad
}

/// Bodies that are good but for one member, which they name.
fn bad_bodies(schema: &'static Value, example: &Value) -> Vec<Bad> {
    let variants: Vec<&Value> = match schema["oneOf"].as_array() {
        Some(variants) => variants.iter().collect(),
        None => vec![schema],
    };
    let mut bad = Vec::new();
    for variant in variants.into_iter().map(resolved) {
        let is_fitting = |name: &String| example.get(name).is_some();
        let required = variant["required"].as_array().into_iter().flatten();
        let required: Vec<String> =
            required.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        let base = if required.iter().all(is_fitting) {
            example.clone()
        } else {
            crate::openapi::example_of(variant)
        };
        for name in &required {
            let mut without = base.clone();
            without.as_object_mut().expect("an object").remove(name);
            bad.push((name.clone(), without));
        }
        for (name, member) in variant["properties"].as_object().into_iter().flatten() {
            for value in values_against(member) {
                bad.push((name.clone(), with(&base, name, value)));
            }
            // Members of members, but for those of free form.
            let inner = resolved(member);
            if inner["properties"].is_object() {
                let example = crate::openapi::example_of(inner);
                for (part, value) in bad_bodies(inner, &example) {
                    bad.push((format!("{name}.{part}"), with(&base, name, value)));
                }
                let unknown = with(&example, "colour", "red".into());
                bad.push((format!("{name}.colour"), with(&base, name, unknown)));
            }
        }
    }
    bad
}

fn with(object: &Value, name: &str, value: Value) -> Value {
    let mut object = object.clone();
    object[name] = value;
    object
}

#[test]
fn k3_k4_every_member_of_every_body_is_checked_and_named() {
    let stage = Stage::new();
    let mut tried = 0;
    for endpoint in &stage.endpoints {
        let (Some(schema), Some(example)) = (endpoint.schema(), endpoint.example()) else {
            continue;
        };
        let of = endpoint.name();
        for (member, body) in bad_bodies(schema, example) {
            let answer = stage.send_json(endpoint, &body);
            let of = format!("{of} with {body:.300}");
            assert_eq!(answer.status, 422, "{of}: {}", answer.text);
            let named = answer.member();
            assert!(!answer.body["detail"].as_str().unwrap_or_default().is_empty(), "{of}");
            // One of two that exclude each other may be named for the other.
            let is_either = schema["oneOf"].is_array() && !named.is_empty();
            assert!(named == member || is_either, "{of}: {}", answer.text);
            tried += 1;
        }
        if schema["additionalProperties"] == false || schema["oneOf"].is_array() {
            let body = with(example, "colour", "red".into());
            refused(&stage.send_json(endpoint, &body), 422, "unknown_member", "colour", &of);
        }
        stage.assert_unchanged(endpoint);
    }
    assert!(tried > 200, "{tried}");
}

#[test]
fn k1_k4_a_body_is_one_json_object_or_nothing_at_every_endpoint() {
    let stage = Stage::new();
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(64 * 1024));
    for endpoint in &stage.endpoints {
        let of = endpoint.name();
        let json = "application/json";
        for body in ["{", "[]", "null", "7", "\"x\"", "{\"a\":1,\"a\":2}", "\u{feff}{}"] {
            let answer = stage.send(endpoint, "", Some((json, body.as_bytes())));
            refused(&answer, 400, "malformed_request", "", &format!("{of} {body}"));
        }
        let good = endpoint.example().map_or("{}".to_owned(), Value::to_string);
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/json-x", ""] {
            let answer = stage.send(endpoint, "", Some((kind, good.as_bytes())));
            refused(&answer, 415, "unsupported_media_type", "", &format!("{of} {kind}"));
        }
        let answer = stage.send(endpoint, "", Some((json, large.as_bytes())));
        refused(&answer, 413, "body_too_large", "", &of);
        if endpoint.example().is_none() {
            let answer = stage.send(endpoint, "", Some((json, b"{\"colour\":\"red\"}")));
            refused(&answer, 422, "unknown_member", "colour", &of);
        }
        stage.assert_unchanged(endpoint);
    }
}

#[test]
fn k3_k4_every_query_parameter_is_known_once_and_in_its_range() {
    let stage = Stage::new();
    for endpoint in &stage.endpoints {
        let of = endpoint.name();
        let example = endpoint.example().map(Value::to_string);
        let body = example.as_ref().map(|body| ("application/json", body.as_bytes()));
        let answer = stage.send(endpoint, "?colour=red", body);
        refused(&answer, 422, "unknown_member", "colour", &of);
        for malformed in ["?a=1&a=1", "?a=%zz", "?%ff=1"] {
            let answer = stage.send(endpoint, malformed, body);
            refused(&answer, 400, "malformed_request", "", &format!("{of} {malformed}"));
        }
        for (name, schema) in endpoint.query_parameters() {
            let texts = values_against(schema).into_iter().filter(|value| match name {
                // Text of any kind, and numbers by their digits.
                "limit" => true,
                _ => value.is_string(),
            });
            let texts = texts.map(|value| value.as_str().map_or(value.to_string(), str::to_owned));
            let cursor = (name == "after").then(|| "what nobody knows".to_owned());
            for value in texts.filter(|value| name == "limit" || !value.is_empty()).chain(cursor) {
                let query = format!("?{name}={}", value.replace(['"', ' ', '[', '{'], "_"));
                let answer = stage.send(endpoint, &query, None);
                refused(&answer, 422, "invalid_member", name, &format!("{of} {query:.80}"));
            }
        }
        stage.assert_unchanged(endpoint);
    }
}

#[test]
fn k10_l1_l6_no_other_method_key_or_name_gets_through_with_a_good_request() {
    let stage = Stage::new();
    let world = &stage.world;
    let none = json!({"name": "other", "scopes": ["keys"]});
    let some = json!({"name": "other", "scopes": ["events"]});
    let keys = [none, some].map(|body| {
        let made = world.post("/admin/v1/api-keys", &body).expect(201).body;
        (text(&body["scopes"][0]).to_owned(), format!("Bearer {}", text(&made["secret"])))
    });
    let stage = Stage { before: state(world), ..stage };
    let root = format!("Bearer {}", stage.world.key);
    let wrong = format!("{}x", root);
    for endpoint in &stage.endpoints {
        let of = endpoint.name();
        let url = format!("{}{}", stage.world.admin, endpoint.path);
        let example = endpoint.example().map(Value::to_string);
        let send = |method: &str, headers: &[(&str, &str)]| {
            let mut headers = headers.to_vec();
            headers.extend(example.as_ref().map(|_| ("content-type", "application/json")));
            stage.world.send(method, &url, &headers, example.as_ref().map(String::as_bytes))
        };
        refused(&send(endpoint.method, &[]), 401, "credentials_required", "", &of);
        let guess = send(endpoint.method, &[("authorization", &wrong)]);
        refused(&guess, 401, "token_invalid", "", &of);
        let needed = &endpoint.operation["security"][0]["apiKey"];
        for (scope, key) in &keys {
            if needed.as_array().is_some_and(|needed| !needed.is_empty()) && needed[0] != **scope {
                let short = send(endpoint.method, &[("authorization", key)]);
                refused(&short, 403, "insufficient_scope", "", &of);
            }
        }
        for (name, value) in [("host", "evil.example"), ("origin", "http://evil.example")] {
            let foreign = send(endpoint.method, &[("authorization", &root), (name, value)]);
            refused(&foreign, 403, "forbidden", "", &format!("{of} {name}"));
        }
        let place = &document()["paths"][endpoint.template];
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            if place.get(method.to_ascii_lowercase()).is_none() {
                let answer = send(method, &[("authorization", &root)]);
                refused(&answer, 405, "method_not_allowed", "", &format!("{of} by {method}"));
                let allow = answer.header("allow").unwrap_or_default();
                assert!(allow.split(',').any(|one| one.trim() == endpoint.method), "{of}: {allow}");
            }
        }
        stage.assert_unchanged(endpoint);
    }
}
