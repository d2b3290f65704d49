//! What the client libraries do without us.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use redis::aio::MultiplexedConnection;
use tokio_postgres::NoTls;

use crate::Outcome;

/// Bare reads and bare commits.
pub(super) trait Bare: Send + Sync + 'static {
    /// Stores values of this size under the numbers from 0 on.
    fn put(&self, count: usize, bytes: usize) -> impl Future<Output = Outcome<()>> + Send;
    /// Reads one of them.
    fn read(&self, number: usize) -> impl Future<Output = Outcome<()>> + Send;
    /// Writes a new one of this size.
    fn write(&self, number: usize, bytes: usize) -> impl Future<Output = Outcome<()>> + Send;
}

/// `GET` and `SET` over connections that all callers share.
pub(super) struct Redis {
    links: Vec<MultiplexedConnection>,
    next: AtomicUsize,
}

impl Redis {
    /// Connects, as often as the store does.
    pub(super) async fn connect(port: u16, links: usize) -> Outcome<Self> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
        let started = Instant::now();
        let mut opened = Vec::new();
        while opened.len() < links {
            match client.get_multiplexed_async_connection().await {
                Ok(link) => opened.push(link),
                Err(error) if started.elapsed() > Duration::from_secs(30) => {
                    return Err(error.into());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        Ok(Self { links: opened, next: AtomicUsize::new(0) })
    }

    fn link(&self) -> MultiplexedConnection {
        self.links[self.next.fetch_add(1, Ordering::Relaxed) % self.links.len()].clone()
    }
}

impl Bare for Redis {
    async fn put(&self, count: usize, bytes: usize) -> Outcome<()> {
        for numbers in (0..count).collect::<Vec<_>>().chunks(1000) {
            let mut commands = redis::pipe();
            for number in numbers {
                commands.cmd("SET").arg(format!("bare:{number}")).arg(vec![b'a'; bytes]).ignore();
            }
            commands.query_async::<()>(&mut self.link()).await?;
        }
        Ok(())
    }

    async fn read(&self, number: usize) -> Outcome<()> {
        let mut cmd = redis::cmd("GET");
        let found: Vec<u8> =
            cmd.arg(format!("bare:{number}")).query_async(&mut self.link()).await?;
        if found.is_empty() { Err("nothing was read".into()) } else { Ok(()) }
    }

    async fn write(&self, number: usize, bytes: usize) -> Outcome<()> {
        let mut cmd = redis::cmd("SET");
        cmd.arg(format!("bare:new:{number}")).arg(vec![b'a'; bytes]);
        Ok(cmd.query_async(&mut self.link()).await?)
    }
}

/// `SELECT` and `INSERT` over a pool of connections.
pub(super) struct Postgres {
    pool: Pool,
}

impl Postgres {
    /// Connects when it is first used, as often as the store does.
    pub(super) async fn connect(port: u16, size: usize) -> Outcome<Self> {
        let config = format!("postgres://postgres:none@127.0.0.1:{port}/postgres").parse()?;
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config, NoTls, recycling);
        let pool = Pool::builder(manager).max_size(size).runtime(Runtime::Tokio1).build()?;
        let started = Instant::now();
        let client = loop {
            match pool.get().await {
                Ok(client) => break client,
                Err(error) if started.elapsed() > Duration::from_secs(60) => {
                    return Err(error.into());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        let tables = "CREATE TABLE bare (number bigint PRIMARY KEY, value text NOT NULL); \
                      CREATE TABLE bare_new (number bigint PRIMARY KEY, value text NOT NULL)";
        client.batch_execute(tables).await?;
        drop(client);
        Ok(Self { pool })
    }
}

impl Bare for Postgres {
    async fn put(&self, count: usize, bytes: usize) -> Outcome<()> {
        let sql = format!(
            "TRUNCATE bare; INSERT INTO bare \
             SELECT n, repeat('a', {bytes}) FROM generate_series(0, {count}) n; ANALYZE bare"
        );
        Ok(self.pool.get().await?.batch_execute(&sql).await?)
    }

    async fn read(&self, number: usize) -> Outcome<()> {
        let client = self.pool.get().await?;
        let known = client.prepare_cached("SELECT value FROM bare WHERE number = $1").await?;
        let row = client.query_one(&known, &[&i64::try_from(number)?]).await?;
        let found: &str = row.get(0);
        if found.is_empty() { Err("nothing was read".into()) } else { Ok(()) }
    }

    async fn write(&self, number: usize, bytes: usize) -> Outcome<()> {
        let client = self.pool.get().await?;
        let known = client.prepare_cached("INSERT INTO bare_new VALUES ($1, $2)").await?;
        client.execute(&known, &[&i64::try_from(number)?, &"a".repeat(bytes)]).await?;
        Ok(())
    }
}
