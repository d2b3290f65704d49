//! Redis: one server, a master with replicas that sentinels watch, or a cluster.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cloakroom_bench::random::Random;

use super::process::{Process, free_port, has, wait_until};
use crate::history::Fault;

/// Servers of Redis of this run's own.
#[derive(Debug)]
pub(super) struct Redis {
    shape: Shape,
    servers: Vec<Process>,
    sentinels: Vec<Process>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Alone,
    Sentinel,
    Cluster,
}

/// Masters and replicas of a cluster.
const CLUSTER: usize = 6;
/// The first slots of a cluster's masters.
const SLOTS: [&str; 3] = ["0-5460", "5461-10922", "10923-16383"];

impl Redis {
    /// Starts what the shape says; `None`: there is no Redis here.
    pub(super) fn start(shape: Shape, dir: &Path) -> io::Result<Option<Self>> {
        if !has(&program()) {
            return Ok(None);
        }
        let mut redis = Self { shape, servers: Vec::new(), sentinels: Vec::new() };
        match shape {
            Shape::Alone => redis.servers.push(server(dir, 0, free_port()?, &ON_DISK)?),
            Shape::Sentinel => redis.start_sentinel(dir)?,
            Shape::Cluster => redis.start_cluster(dir)?,
        }
        for server in &redis.servers {
            wait_until("the server answers", || server.cli(&["PING"]) == "PONG")?;
        }
        Ok(Some(redis))
    }

    fn start_sentinel(&mut self, dir: &Path) -> io::Result<()> {
        for number in 0..3 {
            self.servers.push(server(dir, number, free_port()?, &REPLICATED)?);
        }
        for server in &self.servers {
            wait_until("the server answers", || server.cli(&["PING"]) == "PONG")?;
        }
        let master = self.servers[0].port;
        for replica in &self.servers[1..] {
            replica.cli(&["REPLICAOF", "127.0.0.1", &master.to_string()]);
        }
        self.wait_for_replicas()?;
        for number in 0..3 {
            self.sentinels.push(sentinel(dir, number, master)?);
        }
        self.wait_for_sentinels()
    }

    /// Waits until the sentinels agree on one master that is well, and know of its replicas.
    fn wait_for_sentinels(&self) -> io::Result<()> {
        for sentinel in &self.sentinels {
            wait_until("the sentinels agree", || {
                let said = sentinel.cli(&["SENTINEL", "MASTER", "main"]);
                let fields: Vec<_> = said.lines().collect();
                let is = |name, value| fields.chunks(2).any(|pair| pair == [name, value]);
                let replicas = sentinel.cli(&["SENTINEL", "REPLICAS", "main"]);
                let follow = replicas.lines().filter(|line| *line == "ok").count();
                let well = is("flags", "master") && is("num-slaves", "2") && follow == 2;
                well && is("num-other-sentinels", "2")
            })?;
        }
        Ok(())
    }

    /// Starts from configurations that know of each other, so that no one has to be introduced.
    fn start_cluster(&mut self, dir: &Path) -> io::Result<()> {
        let ports = (0..CLUSTER).map(|_| free_port()).collect::<io::Result<Vec<u16>>>()?;
        let id = |number: usize| format!("{:040x}", number + 1);
        let line = |number: usize, me: usize| {
            let (port, bus) = (ports[number], ports[number] + 10_000);
            let myself = if number == me { "myself," } else { "" };
            let role = match SLOTS.get(number) {
                Some(slots) => format!("{myself}master - 0 0 {} connected {slots}", number + 1),
                None => format!("{myself}slave {} 0 0 {} connected", id(number - 3), number - 2),
            };
            format!("{} 127.0.0.1:{port}@{bus} {role}\n", id(number))
        };
        for (me, port) in ports.iter().enumerate() {
            let mut nodes: String = (0..CLUSTER).map(|number| line(number, me)).collect();
            nodes.push_str("vars currentEpoch 3 lastVoteEpoch 0\n");
            let folder = dir.join(format!("redis-{me}"));
            fs::create_dir_all(&folder)?;
            fs::write(folder.join("nodes.conf"), nodes)?;
            let options =
                ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"].iter().copied();
            let options: Vec<_> = options.chain(REPLICATED.iter().copied()).collect();
            self.servers.push(server(dir, me, *port, &options)?);
        }
        for server in &self.servers {
            wait_until("the cluster is whole", || {
                server.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
            })?;
        }
        self.wait_for_replicas()
    }

    /// Where nodes find it.
    pub(super) fn url(&self) -> String {
        let hosts = |servers: &[Process]| {
            let hosts = servers.iter().map(|server| format!("127.0.0.1:{}", server.port));
            hosts.collect::<Vec<_>>().join(",")
        };
        match self.shape {
            Shape::Alone => format!("redis://{}/0", hosts(&self.servers)),
            Shape::Sentinel => format!("redis+sentinel://{}/main", hosts(&self.sentinels)),
            Shape::Cluster => format!("redis+cluster://{}", hosts(&self.servers[..3])),
        }
    }

    /// Kills what serves, or lets it hang until another has taken over.
    pub(super) fn disturb(&mut self, random: &mut Random) -> io::Result<Fault> {
        if self.shape == Shape::Alone {
            self.servers[0].kill()?;
            self.servers[0].restart()?;
            let server = &self.servers[0];
            wait_until("the server answers", || server.cli(&["PING"]) == "PONG")?;
            return Ok(Fault::StoreKilled);
        }
        let masters = self.masters();
        let Some(master) = masters.get(random.below(masters.len())).copied() else {
            return Err(io::Error::other("there is no master"));
        };
        // What hangs wakes up as the master that it was: the harder case, and the rarer one.
        let hangs = random.percent(30);
        if hangs {
            self.servers[master].signal("STOP")?;
        } else {
            self.servers[master].kill()?;
        }
        let expected = masters.len();
        let others = |redis: &Self| {
            redis.masters().into_iter().filter(|found| *found != master).count() >= expected
        };
        wait_until("another takes over", || others(self))?;
        if hangs {
            self.servers[master].signal("CONT")?;
        } else {
            self.servers[master].restart()?;
        }
        let former = &self.servers[master];
        wait_until("the former master follows", || former.cli(&["ROLE"]).starts_with("slave"))?;
        self.wait_for_replicas()?;
        self.wait_for_sentinels()?;
        Ok(if hangs { Fault::CutOff } else { Fault::FailedOver })
    }

    fn masters(&self) -> Vec<usize> {
        let is_master = |server: &Process| server.cli(&["ROLE"]).starts_with("master");
        let found = self.servers.iter().enumerate().filter(|(_, server)| is_master(server));
        found.map(|(number, _)| number).collect()
    }

    /// Waits until all that follow have all that there is.
    fn wait_for_replicas(&self) -> io::Result<()> {
        wait_until("the replicas follow", || {
            self.servers.iter().all(|server| {
                let said = server.cli(&["INFO", "replication"]);
                let follows = said.contains("master_link_status:up")
                    && !said.contains("master_sync_in_progress:1");
                said.contains("role:master") || follows
            })
        })
    }
}

fn server(dir: &Path, number: usize, port: u16, options: &[&str]) -> io::Result<Process> {
    let folder = dir.join(format!("redis-{number}"));
    fs::create_dir_all(&folder)?;
    let fixed = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--port"];
    let mut arguments: Vec<String> = fixed.map(str::to_owned).to_vec();
    arguments.extend([port.to_string(), "--dir".to_owned(), folder.display().to_string()]);
    arguments.extend(options.iter().map(|option| (*option).to_owned()));
    Process::start(&program(), arguments, port, &folder)
}

fn sentinel(dir: &Path, number: usize, master: u16) -> io::Result<Process> {
    let (folder, port) = (dir.join(format!("sentinel-{number}")), free_port()?);
    fs::create_dir_all(&folder)?;
    let file = folder.join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\n\
         sentinel monitor main 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds main 1000\n\
         sentinel failover-timeout main 5000\n",
        folder.display()
    );
    fs::write(&file, text)?;
    let arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
    Process::start(&program(), arguments, port, &folder)
}

fn program() -> PathBuf {
    PathBuf::from("redis-server")
}

/// What is answered is on the disk.
const ON_DISK: [&str; 2] = ["--appendfsync", "always"];
/// What is answered is on its way to the replicas.
const REPLICATED: [&str; 4] = ["--appendfsync", "everysec", "--repl-diskless-sync-delay", "0"];
