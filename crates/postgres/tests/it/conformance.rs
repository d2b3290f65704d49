//! The conformance suite, on a schema for each test.

use std::time::Duration;

use cloakroom_postgres::PostgresStore;
use cloakroom_store::conformance::{Harness, Task};

use crate::server::shared;

struct Postgres;

impl Harness for Postgres {
    type Store = PostgresStore;

    async fn fresh(&self) -> PostgresStore {
        let settings = shared().await.settings();
        PostgresStore::connect(&settings).await.expect("the store opens")
    }

    async fn reopen(&self, store: PostgresStore) -> PostgresStore {
        let settings = shared().await.settings_of(store.schema());
        drop(store);
        PostgresStore::connect(&settings).await.expect("the store opens again")
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

cloakroom_store::conformance!(Postgres);
