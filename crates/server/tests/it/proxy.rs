//! A network between a node and its store that a test can slow down and cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes on what it gets, in the way that it is told to.
pub struct Proxy {
    pub port: u16,
    way: Arc<Way>,
}

struct Way {
    target: u16,
    delay_ms: AtomicU64,
    is_cut: watch::Sender<bool>,
    opened: AtomicUsize,
    asked: AtomicUsize,
}

impl Proxy {
    /// A proxy before the server on this port.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let way = Arc::new(Way {
            target,
            delay_ms: AtomicU64::new(0),
            is_cut: watch::Sender::new(false),
            opened: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&way);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                accepting.opened.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(pass(Arc::clone(&accepting), client));
            }
        });
        Self { port, way }
    }

    /// Delays each answer by so much.
    pub fn slow(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).expect("short");
        self.way.delay_ms.store(delay, Ordering::SeqCst);
    }

    /// Closes all connections, and each new one at once.
    pub fn cut(&self) {
        self.way.is_cut.send_replace(true);
    }

    /// Lets everything through again.
    pub fn mend(&self) {
        self.way.is_cut.send_replace(false);
    }

    /// Connections opened so far.
    pub fn opened(&self) -> usize {
        self.way.opened.load(Ordering::SeqCst)
    }

    /// Pieces of text that a node sent so far.
    pub fn asked(&self) -> usize {
        self.way.asked.load(Ordering::SeqCst)
    }
}

async fn pass(way: Arc<Way>, client: TcpStream) {
    let mut cut = way.is_cut.subscribe();
    if *cut.borrow() {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", way.target)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = copy(&way, from_client, to_server, true) => {}
        () = copy(&way, from_server, to_client, false) => {}
        _ = cut.wait_for(|cut| *cut) => {}
    }
}

async fn copy(way: &Way, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, is_question: bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if is_question {
            way.asked.fetch_add(1, Ordering::SeqCst);
        } else {
            tokio::time::sleep(Duration::from_millis(way.delay_ms.load(Ordering::SeqCst))).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
