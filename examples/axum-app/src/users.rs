//! The application's own users: SQLite, passwords hashed by argon2id.

use std::sync::{Arc, Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;

#[derive(Serialize)]
pub struct User {
    pub id: String,
    pub email: String,
    pub role: String,
}

#[derive(Clone)]
pub struct Users(Arc<Inside>);

struct Inside {
    database: Mutex<Connection>,
    /// A password is checked whether or not there is such a user: the time tells nothing.
    nobody: String,
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY, email TEXT UNIQUE, \
                     role TEXT NOT NULL, password TEXT NOT NULL)";
const INSERT: &str = "INSERT INTO users VALUES (lower(hex(randomblob(16))), ?, ?, ?) \
                      ON CONFLICT DO NOTHING RETURNING id";

impl Users {
    pub fn open(path: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let database = Connection::open(path)?;
        database.execute(TABLE, [])?;
        let nobody = hash("nobody's password").ok_or("argon2 can't be set up")?;
        Ok(Self(Arc::new(Inside { database: Mutex::new(database), nobody })))
    }

    /// A new user; none where the address is taken.
    pub async fn add(&self, email: String, password: String, role: &'static str) -> Option<User> {
        self.work(move |inside| {
            let password = hash(&password)?;
            let row = params![email, role, password];
            let id = inside.with(|database| database.query_row(INSERT, row, |row| row.get(0)))?;
            Some(User { id, email, role: role.to_owned() })
        })
        .await
    }

    /// The user of this address and password.
    pub async fn check(&self, email: String, password: String) -> Option<User> {
        self.work(move |inside| {
            let query = "SELECT id, role, password FROM users WHERE email = ?";
            let found: Option<(String, String, String)> = inside.with(|database| {
                database
                    .query_row(query, [&email], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            });
            let stored = found.as_ref().map_or(&inside.nobody, |(.., password)| password);
            let parsed = PasswordHash::new(stored).ok()?;
            let good = Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok();
            let (id, role, _) = found.filter(|_| good)?;
            Some(User { id, email, role })
        })
        .await
    }

    /// Hashing takes long, and so may a disk: not on the threads that answer.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inside) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let inside = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&inside)).await.ok()?
    }
}

impl Inside {
    fn with<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        match ask(&database).optional() {
            Ok(found) => found,
            Err(error) => {
                eprintln!("users: {error}");
                None
            }
        }
    }
}

fn hash(password: &str) -> Option<String> {
    Argon2::default().hash_password(password.as_bytes()).ok().map(|hash| hash.to_string())
}
