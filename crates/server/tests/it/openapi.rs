//! The OpenAPI document: whole, true to the routes, and shown without loading anything.

use std::collections::{BTreeMap, BTreeSet};

use cloakroom_server::admin;
use cloakroom_server::openapi;
use cloakroom_server::problem::Code;
use serde_json::Value;

use crate::contract::{check, document};
use crate::http::Ask;
use crate::world::{World, golden};

const METHODS: [&str; 7] = ["get", "head", "post", "put", "patch", "delete", "options"];

async fn start() -> World {
    World::start(&[("store.url", "memory:"), ("registration.enabled", "true")]).await
}

/// Every operation: method, path and what it is.
fn operations() -> Vec<(&'static str, &'static str, &'static Value)> {
    let mut found = Vec::new();
    for (path, place) in document()["paths"].as_object().expect("paths") {
        for method in METHODS {
            if let Some(operation) = place.get(method) {
                found.push((method, path.as_str(), operation));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_openapi_document() {
    let world = World::start(&[("store.url", "memory:")]).await;
    let made = openapi::document(world.running().site());
    golden("openapi.json", &format!("{}\n", serde_json::to_string_pretty(&made).expect("JSON")));
    let served = world.admin(Ask::get("/openapi.json")).await;
    assert_eq!(served.json(), made);
    world.send_admin(Ask::get("/openapi.json")).await.refused(401, "credentials_required");
    world.send(Ask::get("/openapi.json").bearer(&world.root_key)).await.refused(404, "not_found");
    world.stop().await;
}

#[test]
fn every_endpoint_of_the_admin_table_is_in_the_document_with_its_scope() {
    for (method, path, scope) in admin::table().filter(|(_, path, _)| !path.contains('*')) {
        let method = method.as_str().to_ascii_lowercase();
        let operation = &document()["paths"][path][&method];
        assert!(operation.is_object(), "{method} {path}");
        let scopes: Vec<&str> = scope.name().into_iter().collect();
        assert_eq!(operation["security"][0]["apiKey"], serde_json::json!(scopes), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_place_takes_the_methods_that_the_document_says() {
    let world = start().await;
    for (path, place) in document()["paths"].as_object().expect("paths") {
        let mut documented: BTreeSet<String> = BTreeSet::new();
        for method in METHODS.iter().filter(|method| place.get(**method).is_some()) {
            documented.insert(method.to_ascii_uppercase());
            if *method == "get" {
                documented.insert("HEAD".to_owned());
            }
        }
        let target = path.replace("{policy}", "default").replace(['{', '}'], "");
        for server in place["servers"].as_array().expect("servers") {
            let is_public = server["description"] == "The public listener.";
            let ask = Ask::new("TRACE", &target);
            let answer = if is_public { world.send(ask).await } else { world.admin(ask).await };
            assert_eq!(answer.status, 405, "{path}");
            let allowed = answer.header("allow").expect("Allow").split(',');
            let allowed: BTreeSet<String> = allowed.map(|m| m.trim().to_owned()).collect();
            assert_eq!(allowed, documented, "{path}");
        }
    }
    world.stop().await;
}

#[test]
fn every_code_is_in_the_document_and_can_be_answered_somewhere() {
    let text = document()["paths"].to_string() + &document()["components"]["responses"].to_string();
    for code in Code::ALL.iter().filter(|code| **code != Code::MethodNotAllowed) {
        let name = format!("/Problem{}", code.status().as_u16());
        let camel: String = code.as_str().split('_').map(capital).collect();
        assert!(text.contains(&format!("{name}{camel}\"")), "{}", code.as_str());
    }
    let schemas = document()["components"]["schemas"].as_object().expect("schemas");
    let problems = schemas.keys().filter(|name| name.starts_with("Problem"));
    assert_eq!(problems.count(), Code::ALL.len());
}

fn capital(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_ascii_uppercase() + rest
}

#[test]
fn every_operation_has_examples_that_fit_their_schemas() {
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations() {
        let id = operation["operationId"].as_str().expect("an id");
        assert!(ids.insert(id), "{id} is there twice");
        assert!(!operation["summary"].as_str().unwrap_or_default().is_empty(), "{id}");
        let mut contents = vec![&operation["requestBody"]["content"]];
        let responses = operation["responses"].as_object().expect("responses");
        contents.extend(responses.values().map(|response| &response["content"]));
        for content in contents.into_iter().filter_map(Value::as_object).flatten() {
            let (_, media) = content;
            let fits = check(&media["schema"], &media["example"], "example");
            assert_eq!(fits, Ok(()), "{method} {path}");
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(!parameter["description"].as_str().unwrap_or_default().is_empty(), "{path}");
        }
        let named = path.split('/').filter(|part| part.starts_with('{')).count();
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        assert_eq!(parameters.filter(|one| one["in"] == "path").count(), named, "{path}");
    }
    let schemas = document()["components"]["schemas"].as_object().expect("schemas");
    for (name, schema) in schemas {
        let example = example_of(schema);
        assert_eq!(check(schema, &example, name), Ok(()), "{example}");
    }
}

/// An example by the schema's own members.
pub fn example_of(schema: &Value) -> Value {
    if let Some(example) = schema.pointer("/examples/0") {
        return example.clone();
    }
    if let Some(target) = schema["$ref"].as_str() {
        return example_of(document().pointer(&target[1..]).expect("a schema"));
    }
    if let Some(value) = schema.get("const").or_else(|| schema.pointer("/enum/0")) {
        return value.clone();
    }
    if let Some(first) = schema.pointer("/oneOf/0") {
        return example_of(first);
    }
    if let Some(items) = schema.get("items") {
        return Value::Array(vec![example_of(items)]);
    }
    let members = schema["properties"].as_object().into_iter().flatten();
    Value::Object(members.map(|(name, schema)| (name.clone(), example_of(schema))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_every_operation_and_loads_nothing() {
    let world = World::start(&[("store.url", "memory:")]).await;
    let answer = world.send_admin(Ask::get("/openapi")).await;
    assert_eq!(answer.ok().header("content-type"), Some("text/html; charset=utf-8"));
    let policy = answer.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
    let page = String::from_utf8(answer.body).expect("UTF-8");
    for (_, path, operation) in operations() {
        let id = operation["operationId"].as_str().expect("an id");
        assert!(page.contains(&format!("<section id=\"{id}\">")), "{id}");
        assert!(page.contains(path), "{path}");
    }
    for code in Code::ALL {
        assert!(page.contains(&format!("<code>{}</code>", code.as_str())), "{}", code.as_str());
    }
    for loads in ["<script", "src=", "<link", "url(", "@import", "<img", "<iframe", "http-equiv"] {
        assert!(!page.contains(loads), "{loads}");
    }
    let links = page.match_indices("href=\"").map(|(at, found)| &page[at + found.len()..]);
    for link in links {
        let target = link.strip_prefix('#').expect("a link within the page");
        let target = target.split('"').next().unwrap_or_default();
        assert!(page.contains(&format!("id=\"{target}\"")), "{target} is nowhere");
    }
    world.send(Ask::get("/openapi")).await.refused(404, "not_found");
    let foreign = Ask::get("/openapi").header("host", "evil.example");
    world.send_admin(foreign).await.refused(403, "forbidden");
    world.stop().await;
}

/// The reference in words names the same places, methods and codes.
#[test]
fn the_reference_page_and_the_document_name_the_same() {
    let page = include_str!("../../../../docs/reference/http-api.md");
    let mut in_page: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cell = line.trim_start_matches("| ").split(" | ").next().unwrap_or_default();
        places_of(cell, &mut in_page);
    }
    let mut in_document: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (method, path, _) in operations() {
        in_document.entry(path.to_owned()).or_default().insert(method.to_ascii_uppercase());
    }
    for path in ["/auth/verify", "/auth/verify/{policy}"] {
        let any = in_document.get_mut(path).expect("forward authentication");
        any.clear();
        any.insert("ANY".to_owned());
    }
    assert_eq!(in_page, in_document);
    let codes = page.split("**Error codes.**").nth(1).expect("codes").split("\n\n").next();
    let mut by_status: BTreeSet<(u16, String)> = BTreeSet::new();
    let mut status = 0;
    for word in codes.expect("a paragraph").split(' ') {
        let number = word.trim_end_matches(':').parse::<u16>();
        if let Some(number) = number.ok().filter(|n| word.ends_with(':') && *n >= 400) {
            status = number;
        } else if let Some((code, _)) = word.strip_prefix('`').and_then(|w| w.split_once('`')) {
            by_status.insert((status, code.to_owned()));
        }
    }
    for code in Code::ALL {
        let listed = by_status.contains(&(code.status().as_u16(), code.as_str().to_owned()));
        assert!(listed, "{} {}", code.status(), code.as_str());
    }
}

/// Reads `GET, PATCH `/a`; POST `/b`` and the like: methods count until the next path's own.
fn places_of(cell: &str, places: &mut BTreeMap<String, BTreeSet<String>>) {
    let mut methods: Vec<String> = Vec::new();
    let mut after_path = false;
    for (at, part) in cell.split('`').enumerate() {
        if at % 2 == 0 {
            let words = part.split([',', ';', ' ', '(', ')']).filter(|word| !word.is_empty());
            let named: Vec<String> = words
                .filter(|word| *word == "any" || word.chars().all(|c| c.is_ascii_uppercase()))
                .map(str::to_ascii_uppercase)
                .collect();
            if !named.is_empty() {
                if after_path {
                    methods.clear();
                }
                methods.extend(named);
                after_path = false;
            }
        } else if let Some(path) = part.strip_prefix('/') {
            let path = format!("/{}", path.split('?').next().unwrap_or_default());
            places.entry(path).or_default().extend(methods.iter().cloned());
            after_path = true;
        }
    }
}
