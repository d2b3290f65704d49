//! A small shop: users in SQLite, their sessions and tokens in Cloakroom.

mod pages;
mod users;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{FromRequest as _, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use cloakroom::core::rate::Quota;
use cloakroom::{
    Cloakroom, CsrfToken, CurrentUser, Session, SignIn, WebError, local_path, rate_limit,
    require_auth, require_claim,
};
use serde::Deserialize;
use serde_json::{Value, json};
use users::{User, Users};

type Cart = BTreeMap<String, u32>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Credentials {
    email: String,
    password: String,
    return_to: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refresh {
    refresh_token: String,
}

#[derive(Deserialize)]
struct Item {
    item: String,
    quantity: u32,
}

fn error(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({"error": text}))).into_response()
}

async fn sign_up(State(users): State<Users>, Json(new): Json<Credentials>) -> Response {
    if new.email.is_empty() || new.password.is_empty() {
        return error(StatusCode::BAD_REQUEST, "Email and password required");
    }
    match users.add(new.email, new.password, "user").await {
        Some(user) => (StatusCode::CREATED, Json(user)).into_response(),
        None => error(StatusCode::CONFLICT, "Email already registered"),
    }
}

async fn login_page(CsrfToken(token): CsrfToken, Query(asked): Query<Credentials>) -> Html<String> {
    pages::login(&token, asked.return_to.as_deref(), None)
}

fn granted(user: &User) -> SignIn {
    SignIn::new(&user.id).claim("email", user.email.as_str()).claim("role", user.role.as_str())
}

/// A form signs a browser in, by cookie; JSON a program, by tokens.
async fn login(
    State(users): State<Users>,
    session: Session,
    request: Request,
) -> Result<Response, WebError> {
    let kind = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    if kind.starts_with(b"application/json") {
        let Ok(Json(given)) = Json::<Credentials>::from_request(request, &()).await else {
            return Ok(error(StatusCode::BAD_REQUEST, "Malformed request"));
        };
        return Ok(match users.check(given.email, given.password).await {
            Some(user) => Json(session.issue_tokens(granted(&user)).await?).into_response(),
            None => error(StatusCode::UNAUTHORIZED, "Invalid credentials"),
        });
    }
    let Ok(Form(given)) = Form::<Credentials>::from_request(request, &()).await else {
        return Ok(error(StatusCode::BAD_REQUEST, "Malformed request"));
    };
    let return_to = given.return_to.as_deref();
    match users.check(given.email, given.password).await {
        Some(user) => {
            session.sign_in(granted(&user)).await?;
            Ok(Redirect::to(return_to.and_then(local_path).unwrap_or("/account")).into_response())
        }
        None => {
            let token = session.csrf_token().await?;
            let page = pages::login(&token, return_to, Some("Invalid credentials"));
            Ok((StatusCode::UNAUTHORIZED, page).into_response())
        }
    }
}

async fn refresh(session: Session, Json(body): Json<Refresh>) -> Result<Response, WebError> {
    if body.refresh_token.is_empty() {
        return Ok(error(StatusCode::BAD_REQUEST, "Refresh token required"));
    }
    Ok(Json(session.refresh(&body.refresh_token).await?).into_response())
}

async fn logout(session: Session) -> Result<StatusCode, WebError> {
    session.sign_out().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn logout_form(session: Session) -> Result<Redirect, WebError> {
    session.sign_out().await?;
    Ok(Redirect::to("/"))
}

async fn logout_everywhere(session: Session) -> Result<Json<Value>, WebError> {
    Ok(Json(json!({"revoked": session.sign_out_everywhere().await?})))
}

async fn csrf_token(CsrfToken(token): CsrfToken) -> Json<Value> {
    Json(json!({"csrf_token": token}))
}

async fn account(user: CurrentUser, CsrfToken(token): CsrfToken) -> Html<String> {
    pages::account(&token, user.claim("email").unwrap_or_default())
}

async fn me(user: CurrentUser) -> Json<Value> {
    let (email, role) = (user.claim("email"), user.claim("role"));
    Json(json!({"id": user.id(), "email": email, "role": role}))
}

async fn ok() -> Json<Value> {
    Json(json!({"ok": true}))
}

async fn cart(session: Session) -> Result<Json<Value>, WebError> {
    let cart: Cart = session.get("cart").await?.unwrap_or_default();
    Ok(Json(json!({"cart": cart})))
}

async fn put_in_cart(session: Session, Json(put): Json<Item>) -> Result<Json<Value>, WebError> {
    let mut cart: Cart = session.get("cart").await?.unwrap_or_default();
    match put.quantity {
        0 => cart.remove(&put.item),
        quantity => cart.insert(put.item, quantity),
    };
    session.insert("cart", &cart).await?;
    Ok(Json(json!({"cart": cart})))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let port: u16 = variable("PORT")?.parse()?;
    let users = Users::open(&variable("DATABASE")?)?;
    // Who runs the shop says who its administrator is, and no address that somebody signs up with.
    if let (Ok(email), Ok(password)) = (variable("ADMIN_EMAIL"), variable("ADMIN_PASSWORD")) {
        users.add(email, password, "admin").await;
    }
    let (url, key) = (variable("CLOAKROOM_URL")?, variable("CLOAKROOM_API_KEY")?);
    let cloakroom = Cloakroom::remote(&url, &key).await?;
    let layer = cloakroom.layer().origin(&format!("http://127.0.0.1:{port}"))?;
    let five_a_minute = rate_limit("limited", Quota::new(5, Duration::from_secs(60))?);
    let app = Router::new()
        .route("/", get(|| async { pages::home() }))
        .route("/sign-up", post(sign_up))
        .route("/login", get(login_page).post(login))
        .route("/refresh", post(refresh))
        .route("/api/auth/refresh", post(refresh))
        .route("/logout", post(logout_form))
        .route("/api/auth/logout", post(logout).layer(require_auth()))
        .route("/api/auth/logout-everywhere", post(logout_everywhere))
        .route("/csrf-token", get(csrf_token))
        .route("/account", get(account))
        .route("/api/me", get(me))
        .route("/api/admin", get(ok).layer(require_claim("role", "admin")))
        .route("/api/limited", get(ok).layer((require_auth(), five_a_minute)))
        .route("/api/cart", get(cart).post(put_in_cart))
        .with_state(users)
        .layer(layer.sign_in_page("/login"));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    Ok(axum::serve(listener, app).await?)
}
