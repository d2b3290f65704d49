//! The load generator: `wrk` on a core of its own, and what it and the system say of a run.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::machine;

/// One run against one server.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Where the server listens.
    pub address: &'a str,
    /// Its process.
    pub pid: u32,
    /// Clients at once.
    pub connections: usize,
    /// For how long.
    pub span: Duration,
    /// What is asked: a script for `wrk`.
    pub script: &'a Path,
    /// The script's own input.
    pub input: &'a Path,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Answers in a second.
    pub per_second: f64,
    /// Processor time of the server for an answer, in microseconds.
    pub cpu_us: f64,
}

/// Whether the generator is there.
pub fn is_ready() -> bool {
    machine::has("wrk")
}

impl Run<'_> {
    /// Runs it. Anything but success from the server is an error: it would be no measurement.
    pub fn go(&self, core: usize) -> io::Result<Load> {
        let mut words = machine::pinned_to(core);
        words.extend(["wrk", "-t1", "--timeout", "10s"].map(str::to_owned));
        words.push(format!("-c{}", self.connections));
        words.push(format!("-d{}s", self.span.as_secs().max(1)));
        let (first, rest) = words.split_first().ok_or_else(|| io::Error::other("no program"))?;
        let mut command = Command::new(first);
        command.args(rest).arg("-s").arg(self.script).arg(format!("http://{}", self.address));
        command.arg("--").arg(self.input).arg(self.address);
        let before = machine::cpu_time(self.pid)?;
        let output = command.output()?;
        let used = machine::cpu_time(self.pid)?.saturating_sub(before);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = || {
            let complaint = String::from_utf8_lossy(&output.stderr);
            io::Error::other(format!("the load generator says: {said} {complaint}"))
        };
        let counted = Counted::read(&said).ok_or_else(told)?;
        if !output.status.success() || counted.refused > 0 || counted.answers == 0.0 {
            return Err(told());
        }
        let cpu_us = used.as_secs_f64() * 1e6 / counted.answers;
        Ok(Load { per_second: counted.per_second, cpu_us })
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Counted {
    answers: f64,
    per_second: f64,
    refused: u64,
}

impl Counted {
    fn read(said: &str) -> Option<Self> {
        let after = |label: &str| {
            let line = said.lines().find_map(|line| line.trim().strip_prefix(label));
            line.map(str::trim)
        };
        let total = said.lines().find(|line| line.contains(" requests in "))?;
        let answers = total.trim().split(' ').next()?.parse().ok()?;
        let per_second = after("Requests/sec:")?.parse().ok()?;
        let refused = after("Non-2xx or 3xx responses:").and_then(|count| count.parse().ok());
        Some(Self { answers, per_second, refused: refused.unwrap_or(0) })
    }
}

/// Writes the scripts into `folder`.
pub fn write_scripts(folder: &Path) -> io::Result<()> {
    fs::write(folder.join("lines.lua"), LINES)?;
    fs::write(folder.join("chain.lua"), CHAIN)
}

/// Sends the requests of the input, one a line with its parts between tabs, in turn.
const LINES: &str = r#"
local requests, at = {}, 0

function init(arguments)
  local host = arguments[2]
  for line in io.lines(arguments[1]) do
    local head, body = line:match("^([^\t]*)\t?(.*)$")
    head = head:gsub("|", "\r\n")
    local text = head .. "\r\nHost: " .. host .. "\r\n"
    if body ~= "" then text = text .. "Content-Length: " .. #body .. "\r\n" end
    requests[#requests + 1] = text .. "\r\n" .. body
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end
"#;

/// Exchanges the refresh tokens of the input; what comes back is exchanged in its turn, and what
/// is left over at the end replaces the input.
const CHAIN: &str = r#"
local threads = {}
first, last, tokens, input = 1, 0, {}, ""

function setup(thread)
  threads[#threads + 1] = thread
end

function init(arguments)
  input, host = arguments[1], arguments[2]
  for line in io.lines(input) do
    last = last + 1
    tokens[last] = line
  end
end

function request()
  local token = tokens[first]
  tokens[first] = nil
  first = first + 1
  local body = '{"refresh_token":"' .. token .. '"}'
  return "POST /auth/refresh HTTP/1.1\r\nHost: " .. host
    .. "\r\nContent-Type: application/json\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end

function response(status, headers, body)
  local token = body:match('"refresh_token":"([^"]+)"')
  if token then
    last = last + 1
    tokens[last] = token
  end
end

function done(summary, latency, requests)
  for _, thread in ipairs(threads) do
    local left, file = thread:get("tokens"), io.open(thread:get("input"), "w")
    for at = thread:get("first"), thread:get("last") do
      if left[at] then file:write(left[at], "\n") end
    end
    file:close()
  end
end
"#;

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Running 3s test @ http://127.0.0.1:1\n  1 threads and 64 connections\n  \
                        150 requests in 3.00s, 1.2MB read\nRequests/sec:     50.25\n";

    #[test]
    fn the_generator_is_understood() {
        let told = Counted { answers: 150.0, per_second: 50.25, refused: 0 };
        assert_eq!(Counted::read(SAID), Some(told));
        let refused = format!("{SAID}  Non-2xx or 3xx responses: 7\n");
        assert_eq!(Counted::read(&refused).map(|counted| counted.refused), Some(7));
        assert_eq!(Counted::read("unable to connect"), None);
    }
}
