//! One application, and the store chosen when it starts: `SESSIONS=memory`, a directory, or the
//! address of a Cloakroom server with its key in `CLOAKROOM_API_KEY`. The handlers don't change.
//!
//! `RedisStore` and `PostgresStore` go the same way, through `Cloakroom::over`.

use axum::Router;
use axum::routing::get;
use cloakroom::{Cloakroom, Session, StartError, WebError};

const ORIGIN: &str = "http://127.0.0.1:3000";

async fn chosen(sessions: &str) -> Result<Cloakroom, StartError> {
    if sessions == "memory" {
        Cloakroom::memory().await
    } else if sessions.starts_with("http://") || sessions.starts_with("https://") {
        let key = std::env::var("CLOAKROOM_API_KEY").unwrap_or_default();
        Cloakroom::remote(sessions, &key).await
    } else {
        Cloakroom::embedded(sessions).await
    }
}

async fn visits(session: Session) -> Result<String, WebError> {
    let count: u32 = session.get("visits").await?.unwrap_or(0) + 1;
    session.insert("visits", count).await?;
    Ok(format!("this is your visit number {count}\n"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sessions = std::env::var("SESSIONS").unwrap_or_else(|_| "memory".to_owned());
    let cloakroom = chosen(&sessions).await?;
    let app = Router::new().route("/", get(visits)).layer(cloakroom.layer().origin(ORIGIN)?);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on {ORIGIN}; sessions in {sessions}");
    Ok(axum::serve(listener, app).await?)
}
