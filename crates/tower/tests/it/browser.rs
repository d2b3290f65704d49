//! A browser, as far as an application can tell.

use axum::Router;
use axum::body::Body;
use http::header::{COOKIE, ORIGIN, SET_COOKIE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use crate::world;

#[derive(Clone)]
pub struct Browser {
    app: Router,
    pub cookie: Option<String>,
    pub token: Option<String>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    #[track_caller]
    pub fn code(self, status: u16, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.json()["code"], code, "{answer:?}");
        answer
    }

    pub fn set_cookie(&self) -> Option<&str> {
        self.headers.get(SET_COOKIE).and_then(|line| line.to_str().ok())
    }
}

impl Browser {
    pub fn new(app: Router) -> Self {
        Self { app, cookie: None, token: None }
    }

    /// The session's value in the jar, as a thief would have it.
    pub fn with_cookie(&self, cookie: &str) -> Self {
        Self { cookie: Some(cookie.to_owned()), ..self.clone() }
    }

    /// The same browser in front of another application of the same origin.
    pub fn over(self, app: Router) -> Self {
        Self { app, ..self }
    }

    pub async fn send(&mut self, request: http::request::Builder, body: &str) -> Answer {
        let mut request = request;
        if let Some(cookie) = &self.cookie {
            request = request.header(COOKIE, format!("theme=dark; session={cookie}"));
        }
        let answer = raw(&self.app, request, body).await;
        if let Some(line) = answer.set_cookie() {
            let (pair, rest) = line.split_once(';').expect("attributes");
            let value = pair.strip_prefix("session=").expect("our cookie");
            self.cookie = (!rest.contains("Max-Age=0")).then(|| value.to_owned());
        }
        answer
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Request::get(path), "").await
    }

    /// A request of one of our own pages, with its CSRF token.
    pub async fn unsafe_(&mut self, method: Method, path: &str, body: &str) -> Answer {
        self.token = Some(self.get("/csrf").await.expect(200).body);
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(ORIGIN, world::ORIGIN).header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("x-csrf-token", token);
        }
        self.send(request, body).await
    }

    pub async fn post(&mut self, path: &str) -> Answer {
        self.unsafe_(Method::POST, path, "").await
    }

    pub async fn put(&mut self, path: &str, body: &str) -> Answer {
        self.unsafe_(Method::PUT, path, body).await
    }
}

pub async fn raw(app: &Router, request: http::request::Builder, body: &str) -> Answer {
    let request = request.body(Body::from(body.to_owned())).expect("a request");
    let response = app.clone().oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let body = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    Answer { status: parts.status, headers: parts.headers, body }
}

pub fn bearer(path: &str, method: Method, token: &str) -> http::request::Builder {
    let authorization = format!("Bearer {token}");
    Request::builder().method(method).uri(path).header("authorization", authorization)
}
