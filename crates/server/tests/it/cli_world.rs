//! The program itself, run as an operator runs it.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// The same, if it has this exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        self
    }

    /// Its output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

/// The program, with nothing of this process's environment that it would heed.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CLOAKROOM_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").env_remove("NO_COLOR").current_dir(std::env::temp_dir());
    command
}

/// Runs a command to its end, with this on its standard input.
pub fn run(command: &mut Command, input: &str) -> Ended {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut stdin = child.stdin.take().expect("a pipe");
    // It may have ended without reading.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("ended");
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// A node in a process of its own.
pub struct Node {
    child: Child,
    /// What it said when it was ready.
    pub greeting: String,
}

impl Node {
    /// Starts a node and waits until it said the line that begins like this.
    pub fn start(command: &mut Command, until: &str) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut greeting = String::new();
        let mut line = String::new();
        while lines.read_line(&mut line).expect("readable") > 0 {
            greeting.push_str(&line);
            if line.starts_with(until) {
                break;
            }
            line.clear();
        }
        // Whatever else it says goes nowhere, but mustn't fill the pipe.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut lines, &mut std::io::sink());
        });
        Self { child, greeting }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop; exit code, and what it wrote to standard error.
    pub fn stop(mut self, signal: &str) -> (i32, String) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().expect("kill");
        assert!(sent.success());
        let deadline = Instant::now() + Duration::from_secs(20);
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(Instant::now() < deadline, "it doesn't stop");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut err = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut err).expect("UTF-8");
        }
        (status.code().unwrap_or(-1), err)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Only where a test failed before it was stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node on any ports, its data in `dir`; its URLs.
pub fn serve(dir: &Path) -> (Node, String, String) {
    let mut command = program();
    command.args(["serve", "--json", "--data"]).arg(dir);
    command.env("CLOAKROOM_SERVER__PUBLIC", "127.0.0.1:0");
    command.env("CLOAKROOM_SERVER__ADMIN", "127.0.0.1:0");
    command.env("CLOAKROOM_STORE__PARTITIONS", "8");
    let node = Node::start(&mut command, "}");
    let said: Value = serde_json::from_str(&node.greeting).expect("JSON");
    let url = |name: &str| said[name].as_str().expect("a URL").to_owned();
    let (public, admin) = (url("public"), url("admin"));
    (node, public, admin)
}
