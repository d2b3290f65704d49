//! The document as a page: plain HTML that loads nothing and runs nothing.

use std::sync::Arc;

use askama::Template;
use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use serde_json::{Map, Value};

use super::operation::{Errors, Operation, Proof, Served};
use super::{codes, shape};
use crate::problem::{Code, Problem};
use crate::site::Site;

const STYLE: &str = include_str!("../../templates/reference.css");

/// Answers the page.
pub(crate) async fn read(State(site): State<Arc<Site>>) -> Result<Response, Problem> {
    let text =
        text(&site).map_err(|_| Problem::new(Code::Internal, "the page can't be written down"))?;
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if let Ok(policy) = HeaderValue::try_from(policy()) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    Ok(response)
}

/// Nothing may be loaded or run; the one style is named by its hash (CSP level 3, section 2.3.1).
fn policy() -> String {
    let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; frame-ancestors 'none'; \
         base-uri 'none'; form-action 'none'"
    )
}

fn text(site: &Site) -> askama::Result<String> {
    let schemas = super::schemas::all();
    let operations = super::operations(&site.config);
    let view = |operation: &Operation| OperationView::of(operation, &schemas);
    let group = |(name, about): (&'static str, &'static str)| Group {
        name,
        anchor: name.replace(' ', "-"),
        about,
        operations: operations.iter().filter(|one| one.tag == name).map(view).collect(),
    };
    let page = Page {
        version: env!("CARGO_PKG_VERSION"),
        style: STYLE,
        about: super::ABOUT.split("\n\n").map(spans).collect(),
        groups: super::TAGS.into_iter().map(group).collect(),
        codes: Code::ALL.iter().map(|code| CodeView::of(*code)).collect(),
        schemas: schemas
            .iter()
            .filter(|(name, _)| !name.starts_with("Problem"))
            .map(|(name, schema)| SchemaView::of(name, schema))
            .collect(),
    };
    page.render()
}

#[derive(Template)]
#[template(path = "reference.html")]
struct Page {
    version: &'static str,
    style: &'static str,
    about: Vec<Vec<Span>>,
    groups: Vec<Group>,
    codes: Vec<CodeView>,
    schemas: Vec<SchemaView>,
}

/// A piece of prose, or of code in it.
struct Span {
    text: String,
    code: bool,
}

/// A piece of a type's description: the name of a schema links to it.
struct Piece {
    text: String,
    link: bool,
}

struct Group {
    name: &'static str,
    anchor: String,
    about: &'static str,
    operations: Vec<OperationView>,
}

struct OperationView {
    id: String,
    method: String,
    path: String,
    summary: &'static str,
    about: Vec<Span>,
    served: &'static str,
    needs: Vec<Span>,
    parameters: Vec<Row>,
    body: Option<BodyView>,
    answers: Vec<AnswerView>,
    refusals: Vec<RefusalView>,
}

struct Row {
    name: String,
    place: &'static str,
    kind: Vec<Piece>,
    about: Vec<Span>,
}

struct BodyView {
    kind: &'static str,
    required: bool,
    schema: Vec<Piece>,
    example: String,
}

struct AnswerView {
    status: u16,
    about: Vec<Span>,
    headers: Vec<&'static str>,
    schema: Vec<Piece>,
    example: String,
}

struct RefusalView {
    status: u16,
    codes: Vec<CodeView>,
}

struct CodeView {
    anchor: String,
    status: u16,
    name: &'static str,
    about: Vec<Span>,
}

struct SchemaView {
    name: String,
    kind: Vec<Piece>,
    about: Vec<Span>,
    members: Vec<Row>,
}

impl OperationView {
    fn of(operation: &Operation, schemas: &Map<String, Value>) -> Self {
        let parameters = operation.parameters.iter().map(|parameter| Row {
            name: parameter.name.to_owned(),
            place: parameter.place.name(),
            kind: pieces(&parameter.schema),
            about: spans(parameter.about),
        });
        let body = operation.body.as_ref().map(|body| BodyView {
            kind: body.kind,
            required: body.required,
            schema: pieces(&body.schema),
            example: example(body.kind, &body.schema, schemas),
        });
        let answers = operation.answers.iter().map(|answer| AnswerView {
            status: answer.status,
            about: spans(answer.about),
            headers: answer.headers.iter().map(|header| header.name).collect(),
            schema: answer.content.as_ref().map_or_else(Vec::new, |(_, schema)| pieces(schema)),
            example: answer
                .content
                .as_ref()
                .map_or_else(String::new, |(kind, schema)| example(kind, schema, schemas)),
        });
        let refusals = operation.refusals().into_iter().map(|(status, codes)| RefusalView {
            status,
            codes: codes.into_iter().map(CodeView::of).collect(),
        });
        Self {
            id: operation.id.clone(),
            method: operation.method.to_ascii_uppercase(),
            path: operation.path.clone(),
            summary: operation.summary,
            about: spans(operation.about),
            served: served(operation.served),
            needs: spans(&needs(operation)),
            parameters: parameters.collect(),
            body,
            answers: answers.collect(),
            refusals: refusals.collect(),
        }
    }
}

const fn served(served: Served) -> &'static str {
    match served {
        Served::Public => "Public listener",
        Served::Admin => "Admin listener",
        Served::Both => "Both listeners",
    }
}

fn needs(operation: &Operation) -> String {
    let proof = match operation.proof {
        Proof::Nothing => "Needs nothing.".to_owned(),
        Proof::Session => "Needs a session: its cookie, or its access token.".to_owned(),
        Proof::MaybeSession => "Takes a session where there is one.".to_owned(),
        Proof::Refresh => "Needs a refresh token, or a session's cookie.".to_owned(),
        Proof::ApiKey(_) | Proof::Introspection => match operation.scope() {
            Some(scope) => format!("Needs an API key with the scope `{scope}`."),
            None => "Needs any API key.".to_owned(),
        },
    };
    match operation.errors {
        Errors::Problems => proof,
        Errors::OAuth(_) => format!("{proof} Errors are as RFC 6749 section 5.2 has them."),
    }
}

impl CodeView {
    fn of(code: Code) -> Self {
        Self {
            anchor: codes::schema_name(code),
            status: code.status().as_u16(),
            name: code.as_str(),
            about: spans(codes::about(code)),
        }
    }
}

impl SchemaView {
    fn of(name: &str, schema: &Value) -> Self {
        let required: Vec<&str> = schema["required"]
            .as_array()
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let members = schema["properties"].as_object().into_iter().flatten();
        let members = members.map(|(name, schema)| Row {
            name: name.clone(),
            place: if required.contains(&name.as_str()) { "" } else { " (optional)" },
            kind: pieces(schema),
            about: spans(schema["description"].as_str().unwrap_or_default()),
        });
        Self {
            name: name.to_owned(),
            kind: pieces(schema),
            about: spans(schema["description"].as_str().unwrap_or_default()),
            members: members.collect(),
        }
    }
}

/// Prose with code between backquotes.
fn spans(text: &str) -> Vec<Span> {
    let pieces = text.split('`').enumerate();
    let piece = |(at, text): (usize, &str)| Span { text: text.to_owned(), code: at % 2 == 1 };
    pieces.map(piece).filter(|span| !span.text.is_empty()).collect()
}

/// What a schema describes, in a few words.
fn pieces(schema: &Value) -> Vec<Piece> {
    let word = |text: &str| vec![Piece { text: text.to_owned(), link: false }];
    if let Some(target) = schema["$ref"].as_str() {
        let text = target.rsplit('/').next().unwrap_or_default().to_owned();
        return vec![Piece { text, link: true }];
    }
    if let Some(value) = schema.get("const") {
        return word(&value.to_string());
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().map(Value::to_string).collect();
        return word(&values.join(" | "));
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let mut all = Vec::new();
        for choice in choices {
            if !all.is_empty() {
                all.extend(word(" or "));
            }
            all.extend(pieces(choice));
        }
        return all;
    }
    if schema.get("items").is_some() {
        let mut all = word("list of ");
        all.extend(pieces(&schema["items"]));
        return all;
    }
    match &schema["type"] {
        Value::String(kind) => word(kind),
        Value::Array(kinds) => {
            let kinds: Vec<&str> = kinds.iter().filter_map(Value::as_str).collect();
            word(&kinds.join(" or "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

/// An example as it would be sent.
fn example(kind: &str, schema: &Value, schemas: &Map<String, Value>) -> String {
    let example = shape::example_of(schema, schemas);
    if kind.ends_with("urlencoded") {
        let members = example.as_object().into_iter().flatten();
        let pair =
            |(name, value): (&String, &Value)| format!("{name}={}", value.as_str().unwrap_or("…"));
        return members.map(pair).collect::<Vec<_>>().join("&");
    }
    match &example {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}
