//! What an operator reads in the application's log when the authority is away: one line, and one
//! when it is back.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use cloakroom::Cloakroom;
use tracing_subscriber::fmt::MakeWriter;

use crate::browser::Browser;
use crate::relay::{Fault, Relay};
use crate::world::{NO_PROGRAM, Node, World, skips};

/// All that any test of this process has logged from `INFO` on.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn of_this_process() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let log = LOG.get_or_init(|| {
            let log = Self::default();
            let writing = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone());
            // Another test of this process may have asked first: then it is this one's as well.
            let _ = writing.try_init();
            log
        });
        log.clone()
    }

    /// The lines that name the authority at `url`.
    fn of(&self, url: &str) -> Vec<String> {
        let bytes = self.0.lock().expect("unpoisoned").clone();
        let url = url.trim_end_matches('/');
        let text = String::from_utf8(bytes).expect("text");
        text.lines().filter(|line| line.contains(url)).map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("unpoisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Asks until the answer has this status.
async fn until(browser: &mut Browser, status: u16) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while browser.get("/me").await.status != status {
        assert!(Instant::now() < deadline, "no {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_down_is_told_of_once_and_once_when_it_is_back() {
    let log = Log::of_this_process();
    let Some(mut world) = World::remote().await else { return skips::tell(NO_PROGRAM) };
    let mut browser = Browser::new(world.app());
    browser.post("/sign-in?user=ada").await.expect(200);
    let mut node = world.node.take().expect("a node");
    let (url, address) = (node.admin.clone(), node.address().to_owned());
    assert_eq!(log.of(&url), Vec::<String>::new());
    node.kill();
    until(&mut browser, 503).await;
    // Long enough for many tries, of requests and of whoever follows the stream.
    for _ in 0..60 {
        browser.get("/me").await.code(503, "store_unavailable");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let told = log.of(&url);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("ERROR") && told[0].contains("can't be asked"), "{told:#?}");
    world.node = Node::start(world.dir(), &address);
    until(&mut browser, 200).await;
    browser.post("/sign-out").await.expect(200);
    let told = log.of(&url);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[1].contains("INFO") && told[1].contains("answers again"), "{told:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_is_lost_is_told_of_once_and_once_when_it_is_back() {
    let log = Log::of_this_process();
    let Some(world) = World::remote().await else { return skips::tell(NO_PROGRAM) };
    let node = world.node.as_ref().expect("a node");
    let relay = Relay::to(node.address(), Fault::NoStream);
    let _behind = Cloakroom::remote(&relay.url, &node.key).await.expect("connected");
    let deadline = Instant::now() + Duration::from_secs(20);
    while log.of(&relay.url).is_empty() {
        assert!(Instant::now() < deadline, "nothing is told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Pauses grow from a tenth of a second: some rounds more tell nothing more.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let told = log.of(&relay.url);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told[0].contains("WARN") && told[0].contains("no revocations"), "{told:#?}");
    relay.faulty.store(false, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_secs(20);
    while log.of(&relay.url).len() < 2 {
        assert!(Instant::now() < deadline, "nothing is told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = log.of(&relay.url);
    assert!(told[1].contains("INFO") && told[1].contains("heard of again"), "{told:#?}");
}
