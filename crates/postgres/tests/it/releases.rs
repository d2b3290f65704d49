//! The promises of every store, on each major release of PostgreSQL that we work on; 15 is the one
//! that all other tests run on, where the system has it.

use std::time::Duration;

use cloakroom_postgres::{PostgresSettings, PostgresStore};
use cloakroom_store::conformance::{Harness, Task};

use crate::server::{Server, programs_of};
use crate::skips;
use crate::world::connect;

/// A server of one release.
struct Release {
    server: Server,
}

impl Release {
    /// Started; none where the gate could not install it.
    async fn start(major: u32) -> Option<Self> {
        let Some(programs) = programs_of(major) else {
            skips::tell(&format!("there is no PostgreSQL {major} on this machine"));
            return None;
        };
        let server = Server::start_of(&programs, &[], |_| {}).await;
        let version = server.client().await.query_one("SHOW server_version_num", &[]).await;
        let version: String = version.expect("a version").get(0);
        assert!(version.starts_with(&major.to_string()), "{version}");
        Some(Self { server })
    }
}

/// Several releases are tried at once.
fn patient(settings: PostgresSettings) -> PostgresSettings {
    PostgresSettings { timeout: Duration::from_secs(60), ..settings }
}

impl Harness for Release {
    type Store = PostgresStore;

    async fn fresh(&self) -> PostgresStore {
        connect(&patient(self.server.settings())).await
    }

    async fn reopen(&self, store: PostgresStore) -> PostgresStore {
        let settings = patient(self.server.settings_of(store.schema()));
        drop(store);
        connect(&settings).await
    }

    async fn pass(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    async fn together(&self, tasks: Vec<Task>) {
        let running: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
        for task in running {
            task.await.expect("a task that doesn't panic");
        }
    }
}

mod release_13 {
    use super::Release;

    cloakroom_store::conformance!(one: Release::start(13).await);
}

mod release_14 {
    use super::Release;

    cloakroom_store::conformance!(one: Release::start(14).await);
}

mod release_16 {
    use super::Release;

    cloakroom_store::conformance!(one: Release::start(16).await);
}

mod release_17 {
    use super::Release;

    cloakroom_store::conformance!(one: Release::start(17).await);
}
