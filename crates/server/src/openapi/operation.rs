//! One operation: what it takes, what it answers, and with which codes it refuses.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::codes::{EVERY, about, schema_name};
use super::shape::{example_of, named};
use crate::admin::Scope;
use crate::problem::Code;

/// Which listener serves an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// The public one.
    Public,
    /// The admin one.
    Admin,
    /// Both.
    Both,
}

/// What proves the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing is needed.
    Nothing,
    /// A session's cookie or access token.
    Session,
    /// The same, where there is one.
    MaybeSession,
    /// A refresh token in the body or the cookie, or a session's cookie.
    Refresh,
    /// An API key with a scope.
    ApiKey(Scope),
    /// An API key, as a bearer token or in HTTP Basic.
    Introspection,
}

/// How an operation's errors are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errors {
    /// As problem details.
    Problems,
    /// As RFC 6749 section 5.2 has them, with these `error`s beside those of the codes, all 400.
    OAuth(&'static [&'static str]),
}

/// A parameter in the path, the query or a header.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) about: &'static str,
    pub(super) schema: Value,
}

/// Where a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
}

impl Place {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
        }
    }
}

/// A request's body.
pub(super) struct Body {
    pub(super) kind: &'static str,
    pub(super) schema: Value,
    pub(super) required: bool,
}

/// An answer that is no refusal.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) about: &'static str,
    pub(super) content: Option<(&'static str, Value)>,
    pub(super) headers: Vec<Header>,
}

/// A header of an answer, and whether it is always there.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) name: &'static str,
    pub(super) always: bool,
}

/// An operation, made member by member.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) id: String,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) about: &'static str,
    pub(super) served: Served,
    pub(super) proof: Proof,
    pub(super) errors: Errors,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<Body>,
    pub(super) answers: Vec<Answer>,
    pub(super) codes: Vec<Code>,
}

impl Operation {
    /// An operation that nothing is known of yet.
    pub(super) fn new(method: &'static str, path: &str, id: &str, summary: &'static str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            id: id.to_owned(),
            tag: "",
            summary,
            about: "",
            served: Served::Public,
            proof: Proof::Nothing,
            errors: Errors::Problems,
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            codes: EVERY.to_vec(),
        }
    }

    pub(super) fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }

    pub(super) fn proof(self, proof: Proof) -> Self {
        Self { proof, ..self }
    }

    pub(super) fn in_path(self, name: &'static str, about: &'static str, schema: Value) -> Self {
        self.parameter(name, Place::Path, about, schema)
    }

    pub(super) fn in_query(self, name: &'static str, about: &'static str, schema: Value) -> Self {
        self.parameter(name, Place::Query, about, schema)
    }

    pub(super) fn in_header(self, name: &'static str, about: &'static str, schema: Value) -> Self {
        self.parameter(name, Place::Header, about, schema)
    }

    fn parameter(
        mut self,
        name: &'static str,
        place: Place,
        about: &'static str,
        schema: Value,
    ) -> Self {
        self.parameters.push(Parameter { name, place, about, schema });
        self
    }

    /// It takes a JSON body.
    pub(super) fn takes(self, schema: Value) -> Self {
        let body = Some(Body { kind: "application/json", schema, required: true });
        Self { body, ..self }.refuses(super::codes::BODY)
    }

    /// It takes a JSON body, or none.
    pub(super) fn may_take(self, schema: Value) -> Self {
        let body = Some(Body { kind: "application/json", schema, required: false });
        Self { body, ..self }.refuses(super::codes::BODY)
    }

    /// It takes a form.
    pub(super) fn takes_form(self, schema: Value) -> Self {
        let kind = "application/x-www-form-urlencoded";
        let body = Some(Body { kind, schema, required: true });
        Self { body, ..self }.refuses(super::codes::FORM)
    }

    /// It answers JSON.
    pub(super) fn answers(self, status: u16, about: &'static str, schema: Value) -> Self {
        self.answers_as(status, about, "application/json", schema)
    }

    /// It answers a body of some other kind.
    pub(super) fn answers_as(
        mut self,
        status: u16,
        about: &'static str,
        kind: &'static str,
        schema: Value,
    ) -> Self {
        let content = Some((kind, schema));
        self.answers.push(Answer { status, about, content, headers: Vec::new() });
        self
    }

    /// It answers without a body.
    pub(super) fn answers_empty(mut self, status: u16, about: &'static str) -> Self {
        self.answers.push(Answer { status, about, content: None, headers: Vec::new() });
        self
    }

    /// The answer just named always carries this header.
    pub(super) fn with(self, name: &'static str) -> Self {
        self.header(Header { name, always: true })
    }

    /// The answer just named may carry this header.
    pub(super) fn maybe_with(self, name: &'static str) -> Self {
        self.header(Header { name, always: false })
    }

    fn header(mut self, header: Header) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers.push(header);
        }
        self
    }

    /// It refuses with these codes too.
    pub(super) fn refuses(mut self, codes: &[Code]) -> Self {
        for code in codes {
            if !self.codes.contains(code) {
                self.codes.push(*code);
            }
        }
        self
    }

    /// Its codes, by status.
    pub(super) fn refusals(&self) -> BTreeMap<u16, Vec<Code>> {
        let mut refusals: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
        for code in Code::ALL.iter().filter(|code| self.codes.contains(code)) {
            refusals.entry(code.status().as_u16()).or_default().push(*code);
        }
        refusals
    }

    /// The scope that it needs.
    pub(super) fn scope(&self) -> Option<&'static str> {
        match self.proof {
            Proof::ApiKey(scope) => scope.name(),
            Proof::Introspection => Scope::SessionsRead.name(),
            Proof::Nothing | Proof::Session | Proof::MaybeSession | Proof::Refresh => None,
        }
    }

    /// It as the document has it. Refusals go to `responses`, each set of codes once.
    pub(super) fn render(
        &self,
        schemas: &Map<String, Value>,
        responses: &mut Map<String, Value>,
    ) -> Value {
        let mut operation = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
        });
        if !self.about.is_empty() {
            operation["description"] = self.about.into();
        }
        operation["security"] = self.security();
        let parameters: Vec<Value> = self.parameters.iter().map(parameter).collect();
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some(body) = &self.body {
            let content = content(body.kind, &body.schema, schemas);
            operation["requestBody"] = json!({"required": body.required, "content": content});
        }
        let mut answers = Map::new();
        for answer in &self.answers {
            answers.insert(answer.status.to_string(), rendered(answer, schemas));
        }
        for (status, codes) in self.refusals() {
            let (name, response) = refusal(status, &codes, self.errors);
            answers.insert(
                status.to_string(),
                json!({"$ref": format!("#/components/responses/{name}")}),
            );
            responses.entry(name).or_insert(response);
        }
        operation["responses"] = Value::Object(answers);
        operation
    }

    fn security(&self) -> Value {
        match self.proof {
            Proof::Nothing => json!([]),
            Proof::Session => json!([{"sessionCookie": []}, {"accessToken": []}]),
            Proof::MaybeSession => json!([{}, {"sessionCookie": []}, {"accessToken": []}]),
            Proof::Refresh => json!([{}, {"refreshCookie": []}, {"sessionCookie": []}]),
            Proof::ApiKey(scope) => {
                json!([{"apiKey": scope.name().into_iter().collect::<Vec<_>>()}])
            }
            Proof::Introspection => json!([
                {"apiKey": [Scope::SessionsRead.name()]},
                {"apiKeyAsPassword": [Scope::SessionsRead.name()]},
            ]),
        }
    }
}

fn parameter(parameter: &Parameter) -> Value {
    json!({
        "name": parameter.name,
        "in": parameter.place.name(),
        "required": parameter.place == Place::Path,
        "description": parameter.about,
        "schema": parameter.schema,
    })
}

fn content(kind: &str, schema: &Value, schemas: &Map<String, Value>) -> Value {
    json!({kind: {"schema": schema, "example": example_of(schema, schemas)}})
}

fn rendered(answer: &Answer, schemas: &Map<String, Value>) -> Value {
    let mut response = json!({"description": answer.about, "headers": headers(&answer.headers)});
    if let Some((kind, schema)) = &answer.content {
        response["content"] = content(kind, schema, schemas);
    }
    response
}

/// References to headers, which `headers.rs` describes; every answer has the request's id.
fn headers(named: &[Header]) -> Value {
    let mut headers = Map::new();
    let id = Header { name: "X-Request-Id", always: true };
    for header in [id].iter().chain(named) {
        let suffix = if header.always { "" } else { ".maybe" };
        let target = format!("#/components/headers/{}{suffix}", header.name);
        headers.insert(header.name.to_owned(), json!({"$ref": target}));
    }
    Value::Object(headers)
}

/// A refusal with one of these codes: its name, and what it is.
fn refusal(status: u16, codes: &[Code], errors: Errors) -> (String, Value) {
    let mut extra = vec![Header { name: "RateLimit", always: false }];
    extra.push(Header { name: "RateLimit-Policy", always: false });
    match status {
        401 => extra.push(Header { name: "WWW-Authenticate", always: true }),
        429 | 503 => extra.push(Header { name: "Retry-After", always: true }),
        _ => {}
    }
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let lines: Vec<String> =
        codes.iter().map(|code| format!("`{}`: {}", code.as_str(), about(*code))).collect();
    let (name, content) = match errors {
        Errors::Problems => {
            let schemas = codes.iter().map(|code| named(&schema_name(*code)));
            let content = json!({"application/problem+json": {
                "schema": super::shape::either(schemas),
            }});
            (format!("{status}.{}", names.join(".")), content)
        }
        Errors::OAuth(more) => oauth_refusal(status, codes, more),
    };
    let response = json!({
        "description": lines.join("\n\n"),
        "headers": headers(&extra),
        "content": content,
    });
    (name, response)
}

fn oauth_refusal(status: u16, codes: &[Code], more: &[&str]) -> (String, Value) {
    let mut errors: Vec<&str> = codes.iter().map(|code| code.oauth()).collect();
    if status == 400 {
        errors.extend(more);
    }
    errors.dedup();
    let code = codes.first().map_or("", |code| code.as_str());
    let example = json!({
        "error": errors[0], "error_description": "the form is malformed", "code": code,
    });
    let schema = json!({
        "allOf": [named("OAuthError"), {"properties": {"error": {"enum": errors}}}],
    });
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let name = format!("oauth.{status}.{}.{}", names.join("."), errors.join("."));
    (name, json!({"application/json": {"schema": schema, "example": example}}))
}
