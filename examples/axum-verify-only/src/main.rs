//! A service that opens no sessions and only verifies the access tokens of those who do.
//!
//! It needs a Cloakroom server: `CLOAKROOM_URL` (its admin listener) and `CLOAKROOM_API_KEY`.
//! Tokens are verified here; a session that ends anywhere is refused here a moment later.

use axum::routing::get;
use axum::{Json, Router};
use cloakroom::{Cloakroom, CurrentUser};
use serde_json::{Value, json};

async fn report(user: CurrentUser) -> Json<Value> {
    Json(json!({"for": user.id(), "claims": user.claims}))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (url, key) = (std::env::var("CLOAKROOM_URL")?, std::env::var("CLOAKROOM_API_KEY")?);
    let cloakroom = Cloakroom::remote(&url, &key).await?;
    let app = Router::new().route("/report", get(report)).layer(cloakroom.layer());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3001").await?;
    Ok(axum::serve(listener, app).await?)
}
