//! The store under test: real servers that this run starts, disturbs and ends.

mod postgres;
mod process;
mod redis;

use std::io;
use std::path::Path;

use cloakroom_bench::random::Random;

use crate::history::Fault;
use postgres::Postgres;
use redis::{Redis, Shape};

/// A store that nodes can be run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// One server that has on its disk what it answers.
    Redis,
    /// A master with two replicas, watched by three sentinels.
    RedisSentinel,
    /// Three masters with a replica each.
    RedisCluster,
    /// One server with its defaults.
    Postgres,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Redis, Self::RedisSentinel, Self::RedisCluster, Self::Postgres];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::RedisSentinel => "redis-sentinel",
            Self::RedisCluster => "redis-cluster",
            Self::Postgres => "postgres",
        }
    }

    /// Whether a failover may cost what was acknowledged last.
    pub const fn may_lose(self) -> bool {
        match self {
            Self::RedisSentinel | Self::RedisCluster => true,
            Self::Redis | Self::Postgres => false,
        }
    }
}

/// A running store.
#[derive(Debug)]
pub struct Stand(Servers);

#[derive(Debug)]
enum Servers {
    Redis(Redis),
    Postgres(Postgres),
}

impl Stand {
    /// Starts its servers, their files in `dir`; `None`: they can't be had on this machine.
    pub fn start(kind: Kind, dir: &Path) -> io::Result<Option<Self>> {
        let redis = |shape| -> io::Result<Option<Servers>> {
            Ok(Redis::start(shape, dir)?.map(Servers::Redis))
        };
        let servers = match kind {
            Kind::Redis => redis(Shape::Alone)?,
            Kind::RedisSentinel => redis(Shape::Sentinel)?,
            Kind::RedisCluster => redis(Shape::Cluster)?,
            Kind::Postgres => Postgres::start(dir)?.map(Servers::Postgres),
        };
        Ok(servers.map(Self))
    }

    /// Where nodes find it.
    pub fn url(&self) -> String {
        match &self.0 {
            Servers::Redis(redis) => redis.url(),
            Servers::Postgres(postgres) => postgres.url(),
        }
    }

    /// Makes a fault and waits until the store is whole again; says which it was.
    pub fn disturb(&mut self, random: &mut Random) -> io::Result<Fault> {
        match &mut self.0 {
            Servers::Redis(redis) => redis.disturb(random),
            Servers::Postgres(postgres) => postgres.kill_and_restart().map(|()| Fault::StoreKilled),
        }
    }
}
