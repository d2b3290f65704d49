//! Listening sockets, and the loop that takes connections from one.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::StartError;
use super::connection::Connections;
use super::tls::Acceptor;
use crate::config::{Config, Listener};
use crate::http::{Peer, Shell};
use crate::metrics::DoorMeter;

/// How long to wait when a connection can't be taken: usually because files ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a listener was bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address, with the port that was really taken.
    Tcp(SocketAddr),
    /// A Unix domain socket.
    Unix(PathBuf),
}

impl Address {
    /// The TCP address, if it is one.
    pub const fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Its URL, or for a Unix socket its path, since no URL names one.
    pub fn url(&self, scheme: &str) -> String {
        match self {
            Self::Tcp(address) => format!("{scheme}://{address}"),
            Self::Unix(_) => self.to_string(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A bound socket that nobody takes connections from yet.
pub(super) enum Bound {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

impl Bound {
    pub(super) async fn bind(listener: &Listener) -> Result<Self, StartError> {
        let refused = |cause| StartError::Listen { address: listener.to_string(), cause };
        match listener {
            Listener::Tcp(address) => {
                let bound = TcpListener::bind(address).await.map_err(refused)?;
                let address = bound.local_addr().map_err(refused)?;
                Ok(Self::Tcp(bound, address))
            }
            Listener::Unix(path) => {
                remove_stale(path).await.map_err(refused)?;
                Ok(Self::Unix(UnixListener::bind(path).map_err(refused)?, path.clone()))
            }
        }
    }

    pub(super) fn address(&self) -> Address {
        match self {
            Self::Tcp(_, address) => Address::Tcp(*address),
            Self::Unix(_, path) => Address::Unix(path.clone()),
        }
    }
}

/// A socket that a killed process left behind answers nobody; one that answers is in use.
async fn remove_stale(path: &PathBuf) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;

    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is there and no socket"))
        }
        Ok(_) => match tokio::net::UnixStream::connect(path).await {
            Ok(_) => Err(io::Error::from(io::ErrorKind::AddrInUse)),
            Err(_) => std::fs::remove_file(path),
        },
    }
}

/// A listener that serves.
pub(super) struct Serving {
    accepting: JoinHandle<()>,
    stop: watch::Sender<Stop>,
}

/// How far a listener is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Not at all.
    No,
    /// No more connections; requests that were taken finish.
    Draining,
}

impl Serving {
    /// Takes connections from now on.
    pub(super) fn spawn(
        bound: Bound,
        shell: Shell,
        tls: Option<Acceptor>,
        config: &Config,
    ) -> Self {
        let (stop, stopping) = watch::channel(Stop::No);
        let meter = Arc::clone(shell.meter());
        let connections = Connections::new(shell, tls, config.server.request_timeout);
        let places = Arc::new(Semaphore::new(config.server.max_connections));
        let trusted = config.server.trusted_proxies.clone();
        let peer = move |address| Peer::new(address, &trusted);
        let accepting =
            tokio::spawn(accept(bound, Arc::new(connections), places, meter, peer, stopping));
        Self { accepting, stop }
    }

    /// Takes no more connections and waits for those it has, until `deadline`.
    pub(super) async fn drain(self, deadline: Instant) {
        let _ = self.stop.send(Stop::Draining);
        let abort = self.accepting.abort_handle();
        if tokio::time::timeout_at(deadline, self.accepting).await.is_err() {
            tracing::warn!("requests are cut off: they took longer than server.drain");
            abort.abort();
        }
    }
}

async fn accept(
    bound: Bound,
    connections: Arc<Connections>,
    places: Arc<Semaphore>,
    meter: Arc<DoorMeter>,
    peer_of: impl Fn(IpAddr) -> Peer,
    mut stopping: watch::Receiver<Stop>,
) {
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        // Beyond the limit connections wait in the kernel's queue, which is bounded too.
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            _ = stopping.wait_for(|stop| *stop != Stop::No) => break,
        };
        let Ok(place) = place else { break };
        let taken = tokio::select! {
            taken = take(&bound) => taken,
            _ = stopping.wait_for(|stop| *stop != Stop::No) => break,
        };
        let stopping = stopping.clone();
        let connections = Arc::clone(&connections);
        let counted = taken.is_ok().then(|| meter.connect());
        match taken {
            Ok(Stream::Tcp(stream, address)) => {
                let peer = peer_of(address);
                open.spawn(async move {
                    connections.serve(stream, peer, stopping).await;
                    drop((place, counted));
                });
            }
            Ok(Stream::Unix(stream)) => {
                // Whoever reaches the socket's file is on this machine.
                let peer = peer_of(IpAddr::V4(Ipv4Addr::LOCALHOST));
                open.spawn(async move {
                    connections.serve(stream, peer, stopping).await;
                    drop((place, counted));
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection can't be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    if let Bound::Unix(_, path) = &bound {
        // Left behind it would only be in the next process's way.
        let _ = std::fs::remove_file(path);
    }
    drop(bound);
    while open.join_next().await.is_some() {}
}

enum Stream {
    Tcp(tokio::net::TcpStream, IpAddr),
    Unix(tokio::net::UnixStream),
}

async fn take(bound: &Bound) -> io::Result<Stream> {
    match bound {
        Bound::Tcp(listener, _) => {
            let (stream, address) = listener.accept().await?;
            // Answers are small and complete: waiting for more to send only delays them.
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream, address.ip()))
        }
        Bound::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
    }
}
