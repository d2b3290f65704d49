//! The least that signs somebody in: `cargo run -p example-axum-minimal`.

use axum::Router;
use axum::routing::{get, post};
use cloakroom::{Cloakroom, CurrentUser, Session, WebError};

const ORIGIN: &str = "http://127.0.0.1:3000";

async fn sign_in(session: Session) -> Result<&'static str, WebError> {
    // Check a password here. Nobody knows better than your application how.
    session.sign_in("ada").await?;
    Ok("signed in\n")
}

async fn sign_out(session: Session) -> Result<&'static str, WebError> {
    session.sign_out().await?;
    Ok("signed out\n")
}

async fn me(user: CurrentUser) -> String {
    format!("you are {}\n", user.id())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cloakroom = Cloakroom::embedded("./.cloakroom").await?;
    let app = Router::new()
        .route("/sign-in", post(sign_in))
        .route("/sign-out", post(sign_out))
        .route("/me", get(me))
        .layer(cloakroom.layer().origin(ORIGIN)?);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on {ORIGIN}");
    Ok(axum::serve(listener, app).await?)
}
