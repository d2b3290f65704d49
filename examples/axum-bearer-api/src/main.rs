//! An API for programs: sign in for an access and a refresh token, no cookies.

use axum::routing::{get, post};
use axum::{Json, Router};
use cloakroom::{Claims, Cloakroom, CurrentUser, Session, SignIn, Tokens, WebError, require_claim};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Refresh {
    #[serde(default)]
    refresh_token: String,
}

#[derive(Deserialize, Serialize)]
struct Profile {
    role: String,
}

async fn sign_in(session: Session) -> Result<Json<Tokens>, WebError> {
    // Check a password here.
    session.issue_tokens(SignIn::new("ada").claim("role", "editor")).await.map(Json)
}

async fn refresh(session: Session, Json(body): Json<Refresh>) -> Result<Json<Tokens>, WebError> {
    session.refresh(&body.refresh_token).await.map(Json)
}

async fn sign_out(_: CurrentUser, session: Session) -> Result<(), WebError> {
    session.sign_out().await
}

async fn profile(Claims(profile): Claims<Profile>) -> Json<Profile> {
    Json(profile)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cloakroom = Cloakroom::memory().await?;
    let editors = get(|| async { "only for editors\n" }).layer(require_claim("role", "editor"));
    let app = Router::new()
        .route("/sign-in", post(sign_in))
        .route("/refresh", post(refresh))
        .route("/sign-out", post(sign_out))
        .route("/profile", get(profile))
        .route("/drafts", editors)
        .layer(cloakroom.layer());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    Ok(axum::serve(listener, app).await?)
}
