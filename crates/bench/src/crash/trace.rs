//! The disk before the answer: the system calls of a real server, in their order.
//!
//! `strace` writes a line for each call when it returns. Between the arrival of a request that
//! changes something and the answer that acknowledges it, a sync of a file must have returned.

use std::io;
use std::path::Path;

use serde_json::json;

use super::Site;
use crate::http::{Answer, Client, Request};
use crate::machine;
use crate::server::{Launch, Server};

/// Requests of each kind.
const ROUNDS: usize = 20;
/// What tells a request or an answer in a trace from everything else.
const CALLS: &str = "trace=fsync,fdatasync,msync,sync_file_range,read,readv,recvfrom,recvmsg,\
                     write,writev,sendto,sendmsg,pwrite64,pwritev";

/// What the trace showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traced {
    /// Acknowledging answers that came after a sync.
    pub after_sync: u64,
    /// Those that came without one.
    pub without_sync: u64,
}

/// Traces a server that is asked for openings, rotations, writes and endings, one at a time.
/// `None`: there is no `strace` here.
pub fn run(program: &Path) -> io::Result<Option<Traced>> {
    if !machine::has("strace") {
        return Ok(None);
    }
    let folder = tempfile::Builder::new().prefix("cloakroom-trace-").tempdir()?;
    let trace = folder.path().join("calls");
    let server = start(program, &folder.path().join("data"), &trace)?;
    let asked = ask(&server)?;
    server.stop()?;
    let traced = judge(&String::from_utf8_lossy(&std::fs::read(trace)?));
    if traced.after_sync + traced.without_sync != asked {
        let seen = traced.after_sync + traced.without_sync;
        return Err(io::Error::other(format!("{asked} requests, but {seen} in the trace")));
    }
    Ok(Some(traced))
}

fn start(program: &Path, data: &Path, trace: &Path) -> io::Result<Server> {
    // With -D the tracer is the grandchild: our child, and what we end, is the server itself.
    let before = ["strace", "-D", "-f", "-q", "-s", "64", "-e", CALLS, "-o"];
    let mut before: Vec<String> = before.map(str::to_owned).to_vec();
    before.push(trace.display().to_string());
    Launch::new(program, data).under(before).start()
}

/// Makes changes one at a time; says how many.
fn ask(server: &Server) -> io::Result<u64> {
    let site = Site::new(server);
    let (mut public, mut admin) = (Client::new(&site.public), Client::new(&site.admin));
    let mut send = |request: Request| -> io::Result<Answer> {
        let answer = admin.send(&request.bearer(&site.key))?;
        expect_success(answer)
    };
    for round in 0..ROUNDS {
        let body = json!({ "subject": format!("traced{round}"), "delivery": "bearer" });
        let opened = send(Request::new("POST", "/admin/v1/sessions").json(&body))?;
        let body = json!({ "refresh_token": opened.text("refresh_token") });
        expect_success(public.send(&Request::new("POST", "/auth/refresh").json(&body))?)?;
        let opened = opened.json();
        let sid = opened["session"]["id"].as_str().unwrap_or_default();
        let path = format!("/admin/v1/sessions/{sid}/data");
        send(Request::new("PUT", path).json(&json!({ "n": round })))?;
        if round % 2 == 0 {
            send(Request::new("DELETE", format!("/admin/v1/sessions/{sid}")))?;
        } else {
            let path = format!("/admin/v1/subjects/traced{round}/sessions");
            send(Request::new("DELETE", path))?;
        }
    }
    Ok(4 * ROUNDS as u64)
}

fn expect_success(answer: Answer) -> io::Result<Answer> {
    match answer.status {
        200..=299 => Ok(answer),
        _ => Err(io::Error::other(answer.describe())),
    }
}

/// Reads a trace: was there a sync between each change that was asked for and its answer?
fn judge(trace: &str) -> Traced {
    let mut traced = Traced::default();
    // `None`: no change is being worked on; else whether a sync has returned since it came.
    let mut synced: Option<bool> = None;
    for line in trace.lines() {
        if is_change(line) {
            synced = Some(false);
        } else if is_sync(line) {
            synced = synced.map(|_| true);
        } else if is_success(line)
            && let Some(synced) = synced.take()
        {
            match synced {
                true => traced.after_sync += 1,
                false => traced.without_sync += 1,
            }
        }
    }
    traced
}

fn is_change(line: &str) -> bool {
    const READS: [&str; 4] = ["read", "recvfrom", "recvmsg", "readv"];
    const CHANGES: [&str; 4] = ["\"POST /", "\"PUT /", "\"DELETE /", "\"PATCH /"];
    READS.iter().any(|call| line.contains(call)) && CHANGES.iter().any(|verb| line.contains(verb))
}

fn is_sync(line: &str) -> bool {
    const SYNCS: [&str; 3] = ["fsync", "fdatasync", "msync"];
    SYNCS.iter().any(|call| line.contains(call)) && line.trim_end().ends_with("= 0")
}

fn is_success(line: &str) -> bool {
    line.contains("\"HTTP/1.1 2")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: &str = "7 recvfrom(9, \"POST /admin/v1/sessions HTTP\"..., 8192) = 200\n";
    const ANSWERED: &str = "7 writev(9, [{iov_base=\"HTTP/1.1 201 Created\\r\\n\"...}], 2) = 300\n";

    fn told(after_sync: u64, without_sync: u64) -> Traced {
        Traced { after_sync, without_sync }
    }

    #[test]
    fn g7_an_answer_before_its_sync_is_seen() {
        let sync = "8 fdatasync(5) = 0\n";
        assert_eq!(judge(&format!("{ASKED}{sync}{ANSWERED}")), told(1, 0));
        assert_eq!(judge(&format!("{sync}{ASKED}{ANSWERED}{sync}")), told(0, 1));
        let failed = "8 fdatasync(5) = -1 EIO (Input/output error)\n";
        assert_eq!(judge(&format!("{ASKED}{failed}{ANSWERED}")), told(0, 1));
    }

    #[test]
    fn g7_a_sync_that_is_still_under_way_does_not_count() {
        let (begun, done) = ("8 fsync(5 <unfinished ...>\n", "8 <... fsync resumed>) = 0\n");
        assert_eq!(judge(&format!("{ASKED}{begun}{ANSWERED}{done}")), told(0, 1));
        assert_eq!(judge(&format!("{ASKED}{begun}{done}{ANSWERED}")), told(1, 0));
    }

    #[test]
    fn g7_reads_and_their_answers_are_no_changes() {
        let read = "7 recvfrom(9, \"GET /readyz HTTP/1.1\"..., 8192) = 90\n";
        assert_eq!(judge(&format!("{read}{ANSWERED}")), told(0, 0));
    }
}
