//! One server, and the connections to it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};

use crate::error::RedisError;
use crate::fault::Fault;
use crate::link::Link;
use crate::settings::{Address, Login};

/// How connections are made, to whatever server.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) login: Login,
    pub(crate) database: i64,
    pub(crate) certificates: Option<redis::TlsCertificates>,
    /// Connections that many calls share.
    pub(crate) shared_links: usize,
    /// The longest that opening one may take.
    pub(crate) timeout: Duration,
    /// Whether a replica must not be asked. Those of a cluster send us to their master.
    pub(crate) expects_master: bool,
}

/// A server and the connections to it.
pub(crate) struct Node {
    pub(crate) address: Address,
    client: Client,
    timeout: Duration,
    expects_master: bool,
    shared: Box<[Slot]>,
    next: AtomicUsize,
    /// Connections for one call each that wait for the next.
    own: Mutex<Vec<Arc<Link>>>,
    replicas: Mutex<Seen>,
}

/// A place for a connection.
#[derive(Default)]
struct Slot {
    link: ArcSwapOption<Link>,
    /// Held by whoever opens it; the last failure, so that a crowd doesn't try one by one.
    opening: tokio::sync::Mutex<Option<(Instant, String)>>,
}

/// Most replicas that were seen lately.
struct Seen {
    count: u32,
    at: Instant,
}

impl Node {
    /// A server to which nothing is connected yet.
    pub(crate) fn new(address: Address, access: &Access) -> Result<Self, RedisError> {
        let tls = |error: redis::RedisError| RedisError::Tls(error.to_string());
        let (host, port) = (address.host.clone(), address.port);
        let mut redis = RedisConnectionInfo::default()
            .set_db(access.database)
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name();
        if let Some(user) = &access.login.user {
            redis = redis.set_username(user);
        }
        if let Some(password) = &access.login.password {
            redis = redis.set_password(password.expose());
        }
        let client = match &access.certificates {
            None => {
                let info = ConnectionAddr::Tcp(host, port).into_connection_info().map_err(tls)?;
                Client::open(info.set_redis_settings(redis)).map_err(tls)?
            }
            Some(certificates) => {
                let addr = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
                let info = addr.into_connection_info().map_err(tls)?.set_redis_settings(redis);
                Client::build_with_tls(info, certificates.clone()).map_err(tls)?
            }
        };
        Ok(Self {
            address,
            client,
            timeout: access.timeout,
            expects_master: access.expects_master,
            shared: (0..access.shared_links.max(1)).map(|_| Slot::default()).collect(),
            next: AtomicUsize::new(0),
            own: Mutex::default(),
            replicas: Mutex::new(Seen { count: 0, at: Instant::now() }),
        })
    }

    /// A connection that others use as well.
    pub(crate) async fn shared(&self) -> Result<Arc<Link>, Fault> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) % self.shared.len();
        let Some(slot) = self.shared.get(number) else {
            return Err(Fault::Other("there is no connection".to_owned()));
        };
        if let Some(link) = slot.open_link() {
            return Ok(link);
        }
        let mut failure = slot.opening.lock().await;
        if let Some(link) = slot.open_link() {
            return Ok(link);
        }
        if let Some((at, problem)) = &*failure
            && at.elapsed() < FAILURE_REMEMBERED
        {
            return Err(Fault::Lost(problem.clone()));
        }
        match self.open().await {
            Ok(link) => {
                let link = Arc::new(link);
                slot.link.store(Some(Arc::clone(&link)));
                *failure = None;
                Ok(link)
            }
            Err(fault) => {
                if let Fault::Lost(problem) = &fault {
                    *failure = Some((Instant::now(), problem.clone()));
                }
                Err(fault)
            }
        }
    }

    /// A connection that nobody else uses until it is given back.
    pub(crate) async fn own(&self) -> Result<Arc<Link>, Fault> {
        loop {
            let idle = self.idle().pop();
            match idle {
                Some(link) if link.is_open() => return Ok(link),
                Some(_) => {}
                None => return self.open().await.map(Arc::new),
            }
        }
    }

    /// A connection on which the server tells what is published on a channel.
    pub(crate) async fn listen(&self, channel: &str) -> Result<(PubSubSink, PubSubStream), Fault> {
        let opening = async {
            let mut listener = self.client.get_async_pubsub().await?;
            listener.subscribe(channel).await?;
            Ok::<_, redis::RedisError>(listener.split())
        };
        match tokio::time::timeout(self.timeout, opening).await {
            Ok(listener) => Ok(listener?),
            Err(_) => Err(Fault::Lost("no answer in time".to_owned())),
        }
    }

    async fn open(&self) -> Result<Link, Fault> {
        let link = Link::open(&self.client, self.timeout).await?;
        // What a replica says may be long past, and a former master is one.
        if self.expects_master && !link.facts().is_master {
            return Err(Fault::Replica("it is a replica".to_owned()));
        }
        Ok(link)
    }

    /// Gives a connection back on which nothing is under way.
    pub(crate) fn give_back(&self, link: Arc<Link>) {
        if link.is_open() {
            self.idle().push(link);
        }
    }

    /// Forgets all connections: the server doesn't answer on them, or isn't the master any more.
    pub(crate) fn forget_links(&self) {
        for slot in &self.shared {
            slot.link.store(None);
        }
        self.idle().clear();
    }

    /// How many replicas have to acknowledge: as many as there are, and as there lately were. One
    /// that is cut off together with other clients may take over.
    pub(crate) fn replicas_needed(&self, connected: u32) -> u32 {
        let mut seen = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        if connected >= seen.count || seen.at.elapsed() > REPLICA_REMEMBERED {
            *seen = Seen { count: connected, at: Instant::now() };
        }
        seen.count
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn open_link(&self) -> Option<Arc<Link>> {
        self.link.load_full().filter(|link| link.is_open())
    }
}

/// For how long a failure to connect is told to others instead of tried again: a server that
/// comes back is used within this time, and a crowd of callers tries once.
const FAILURE_REMEMBERED: Duration = Duration::from_millis(100);

/// For how long a replica that is gone is still waited for. Longer than a cut-off master takes to
/// notice it (`repl-timeout`, 60 s) and a failover to happen.
const REPLICA_REMEMBERED: Duration = Duration::from_secs(10 * 60);
