//! A real authority for a step of the gate: on free ports, with an empty store that goes away.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::tools;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running authority, ended and removed when dropped.
pub struct Authority {
    child: Child,
    data: PathBuf,
    /// The public listener, as an origin.
    pub public: String,
    /// The admin listener, as an origin.
    pub admin: String,
    /// The operator's own API key.
    pub api_key: String,
}

impl Authority {
    /// Starts the program that was built, with settings by their environment variables less
    /// `CLOAKROOM_`; `label` tells its directory from those of others.
    pub fn start(label: &str, settings: &[(&str, &str)]) -> io::Result<Authority> {
        let data =
            std::env::temp_dir().join(format!("cloakroom-gate-{}-{label}", std::process::id()));
        let (public, admin) = (free_address()?, free_address()?);
        let mut serve = Command::new(tools::built("cloakroom")?);
        serve.arg("serve").arg("--data").arg(&data).stdin(Stdio::null());
        serve.env("CLOAKROOM_SERVER__PUBLIC", &public).env("CLOAKROOM_SERVER__ADMIN", &admin);
        serve.env("CLOAKROOM_SERVER__ORIGIN", format!("http://{public}"));
        for (name, value) in settings {
            serve.env(format!("CLOAKROOM_{name}"), value);
        }
        let child = serve.spawn()?;
        let (public, admin) = (format!("http://{public}"), format!("http://{admin}"));
        let mut authority = Authority { child, data, public, admin, api_key: String::new() };
        authority.wait_until_ready()?;
        authority.api_key = std::fs::read_to_string(authority.data.join("root-api.key"))?;
        authority.api_key.truncate(authority.api_key.trim_end().len());
        Ok(authority)
    }

    /// Whether it runs still.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let started = Instant::now();
        let address = self.public.trim_start_matches("http://").to_owned();
        while !is_ready(&address) {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the authority ended at once: {status}")));
            }
            if started.elapsed() > START_TIMEOUT {
                return Err(io::Error::other("the authority doesn't become ready"));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        // Both may have happened already; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

/// An address on loopback that nobody listens at.
pub fn free_address() -> io::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Asks over a connection of its own; the whole answer, head and body.
pub fn get(origin: &str, path: &str, api_key: &str) -> io::Result<String> {
    let address = origin.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {api_key}\r\n\
         Connection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn is_ready(address: &str) -> bool {
    get(address, "/readyz", "").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}
