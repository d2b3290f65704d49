//! The reference for everything over HTTP: the same library set up the same way, and handlers
//! that do nothing but answer.

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use crate::http::{Client, Request};
use crate::machine;

/// What the reference answers to a POST.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The status.
    pub status: u16,
    /// The body, as long as a real one.
    pub body: String,
}

/// Serves on `address` until the process is ended: GET with nothing, POST with `answers`.
pub fn serve(address: &str, answers: Answers) -> io::Result<()> {
    // As many workers as this process has cores, like the real server: one when it is pinned.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(accept(TcpListener::bind(address), router(answers)))
}

async fn accept(
    listener: impl Future<Output = io::Result<TcpListener>>,
    router: Router,
) -> io::Result<()> {
    let listener = listener.await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let builder = Builder::new(TokioExecutor::new());
            // A client that goes away is none of our business.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn router(answers: Answers) -> Router {
    let status = StatusCode::from_u16(answers.status).unwrap_or(StatusCode::OK);
    let body = Bytes::from(answers.body);
    let answer = move |_asked: Bytes| {
        let body = body.clone();
        async move { (status, [(header::CONTENT_TYPE, "application/json")], body) }
    };
    Router::new().route("/auth/verify", get(|| async {})).fallback(post(answer))
}

/// The reference as a process of its own; ended when dropped.
#[derive(Debug)]
pub struct Idle {
    child: Child,
    /// Where it listens.
    pub address: String,
}

impl Idle {
    /// Starts this program once more, as the reference, on one core.
    pub fn start(core: usize, answers: Option<(&PathBuf, u16)>) -> io::Result<Self> {
        let address = crate::server::free_address()?;
        let this = std::env::current_exe()?;
        let before = machine::pinned_to(core);
        let mut command = match before.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(this);
                command
            }
            None => Command::new(this),
        };
        command.args(["--idle", &address]).stdin(Stdio::null());
        if let Some((body, status)) = answers {
            command.arg("--idle-body").arg(body);
            command.args(["--idle-status", &status.to_string()]);
        }
        let idle = Self { child: command.spawn()?, address };
        let started = Instant::now();
        let ask = Request::new("GET", "/auth/verify");
        while Client::new(&idle.address).send(&ask).is_err() {
            if started.elapsed() > Duration::from_secs(10) {
                return Err(io::Error::other("the reference server doesn't start"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(idle)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
