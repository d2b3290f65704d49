//! The OpenAPI document under fire: a public validator reads it, and schemathesis makes requests
//! from it for both listeners of a running authority and judges every answer by it.
//!
//! A step of the gate with few cases; `cargo xtask fuzz contract` takes any number of them.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::authority::{self, Authority};
use crate::gate::{Outcome, cargo};
use crate::process::{Tally, stream};
use crate::tools;
use crate::tree;

/// Hooks, settings and what the authority is set up with.
const FOLDER: &str = "crates/server/tests/contract";
/// The document as it is reviewed.
const GOLDEN: &str = "crates/server/tests/golden/openapi.json";
/// Held at one release each, so that a new one never breaks the gate by itself.
const PACKAGES: [&str; 3] =
    ["schemathesis==4.32.5", "hypothesis==6.170.15", "openapi-spec-validator==0.9.0"];
/// What no answer may do: fail, or be otherwise than the document says; and what no request may:
/// be taken though the document rules it out.
const CHECKS: [&str; 8] = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
];
/// The listeners, and the paths that each doesn't have.
const LISTENERS: [(&str, &str); 2] =
    [("admin", "^/auth/"), ("public", "^/(admin/|metrics$|openapi)")];
/// Random cases for each operation in a run of the gate, beside those of every boundary.
const GATE_CASES: usize = 8;
/// Random cases for each operation in one round of a longer run.
const ROUND_CASES: usize = 60;
/// The seed of the first round; each further one has the next.
const SEED: usize = 1;
/// What must have been published for a time first, which no run is long enough for.
const NEVER_READY: &str = "rotateKeys";

/// Judges the documents, and some cases for each operation.
pub fn step() -> io::Result<Outcome> {
    let Some(bench) = Bench::set_up()? else { return Ok(Outcome::Counted(Tally::FAILED)) };
    let tools = match tools::python_environment("schemathesis", "python3", &PACKAGES) {
        Ok(tools) => tools,
        Err(fault) => return Ok(Outcome::Skipped(fault.to_string())),
    };
    let round = bench.round(&tools, SEED, GATE_CASES)?;
    Ok(Outcome::Counted([bench.documents(&tools)?, round.tally].into_iter().sum()))
}

/// Makes rounds of cases until there were that many; whether nothing was found.
pub fn fuzz(cases: usize) -> io::Result<bool> {
    let Some(bench) = Bench::set_up()? else { return Ok(false) };
    let tools = tools::python_environment("schemathesis", "python3", &PACKAGES)?;
    let (mut made, mut tally) = (0, bench.documents(&tools)?);
    for seed in SEED.. {
        let round = bench.round(&tools, seed, ROUND_CASES)?;
        made += round.cases;
        tally = [tally, round.tally].into_iter().sum();
        println!("-- {made} of {cases} cases, the last with the seed {seed}");
        if made >= cases || round.cases == 0 {
            break;
        }
    }
    println!("{tally}");
    Ok(tally.failed == 0 && made >= cases)
}

/// One run over both listeners.
struct Round {
    cases: usize,
    tally: Tally,
    /// The operations that were asked for at all.
    asked: BTreeSet<String>,
}

/// Where a run writes what it finds.
struct Bench {
    folder: PathBuf,
}

impl Bench {
    /// Builds the program; none where that fails.
    fn set_up() -> io::Result<Option<Bench>> {
        let mut build = cargo(&["build", "-p", "cloakroom-server", "--bin", "cloakroom"]);
        if !stream(&mut build)?.success {
            return Ok(None);
        }
        let folder = tree::root().join("target/contract");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        Ok(Some(Bench { folder }))
    }

    /// The document as it is reviewed and as an authority serves it, by the public validator.
    fn documents(&self, tools: &Path) -> io::Result<Tally> {
        let tallies = [tree::root().join(GOLDEN), self.served()].map(|document| {
            let mut validator = Command::new(tools.join("bin/python"));
            validator.args(["-m", "openapi_spec_validator"]).arg(document);
            stream(&mut validator).map(|finished| Tally::of(finished.success))
        });
        let tallies: io::Result<Vec<Tally>> = tallies.into_iter().collect();
        Ok(tallies?.into_iter().sum())
    }

    fn served(&self) -> PathBuf {
        self.folder.join("openapi.json")
    }

    /// Fuzzes both listeners of a fresh authority.
    fn round(&self, tools: &Path, seed: usize, cases: usize) -> io::Result<Round> {
        let config = tree::root().join(FOLDER).join("node.toml");
        let config = config.to_string_lossy();
        let mut authority = Authority::start("contract", &[("CONFIG", &config)])?;
        let answer = authority::get(&authority.admin, "/openapi.json", &authority.api_key)?;
        let document = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        std::fs::write(self.served(), document)?;
        let mut round = Round { cases: 0, tally: Tally::default(), asked: BTreeSet::new() };
        for (listener, without) in LISTENERS {
            println!("-- the {listener} listener, seed {seed}");
            let run = self.listener(tools, &authority, (listener, without), seed, cases)?;
            round.cases += run.cases;
            round.tally = [round.tally, run.tally].into_iter().sum();
            round.asked.extend(run.asked);
        }
        let document = serde_json::from_str(document).unwrap_or_default();
        let complete = complete(&document, &round.asked);
        let survived = Tally::of(authority.is_running());
        Ok(Round { tally: [round.tally, complete, survived].into_iter().sum(), ..round })
    }

    fn listener(
        &self,
        tools: &Path,
        authority: &Authority,
        (listener, without): (&str, &str),
        seed: usize,
        cases: usize,
    ) -> io::Result<Round> {
        let ours = tree::root().join(FOLDER);
        let seen = self.folder.join(format!("{listener}-{seed}.json"));
        let origin = if listener == "admin" { &authority.admin } else { &authority.public };
        let mut run = Command::new(tools.join("bin/schemathesis"));
        run.arg("--config-file").arg(ours.join("schemathesis.toml"));
        run.arg("run").arg(self.served()).args(["--url", origin]);
        run.args(["--exclude-path-regex", without, "--checks", &CHECKS.join(",")]);
        run.args(["--seed", &seed.to_string(), "--max-examples", &cases.to_string()]);
        run.current_dir(&self.folder).env("SCHEMATHESIS_HOOKS", "hooks");
        run.env("PYTHONPATH", ours).env("PYTHONDONTWRITEBYTECODE", "1");
        run.env("CLOAKROOM_API_KEY", &authority.api_key).env("CLOAKROOM_ADMIN", &authority.admin);
        run.env("CLOAKROOM_PUBLIC", &authority.public).env("CLOAKROOM_SEEN", &seen);
        run.env("CLOAKROOM_SEED", seed.to_string());
        let judged = Tally::of(stream(&mut run)?.success);
        let seen = std::fs::read_to_string(seen).unwrap_or_default();
        let seen: Value = serde_json::from_str(&seen).unwrap_or_default();
        let reached = reached(&seen);
        let asked = seen.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
        Ok(Round { cases: count(&seen), tally: [judged, reached].into_iter().sum(), asked })
    }
}

/// One check for each operation: that some request got through to what it does. Where all are
/// refused at the door, nothing behind it was judged.
fn reached(seen: &Value) -> Tally {
    let operations = seen.as_object().into_iter().flatten();
    let is_success = |status: &String| status.starts_with('2') || status.starts_with('3');
    let reached = operations.map(|(operation, statuses)| {
        let reached = operation == NEVER_READY
            || statuses.as_object().is_some_and(|statuses| statuses.keys().any(is_success));
        if !reached {
            println!("{operation} was never done: {statuses}");
        }
        Tally::of(reached)
    });
    reached.sum()
}

/// One check of the document: that every operation in it was asked for. One that the tool passed
/// over would else count as judged.
fn complete(document: &Value, asked: &BTreeSet<String>) -> Tally {
    let paths = document["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(_, place)| place.as_object().into_iter().flatten());
    let names: Vec<&str> =
        operations.filter_map(|(_, operation)| operation["operationId"].as_str()).collect();
    let left: Vec<&&str> = names.iter().filter(|name| !asked.contains(**name)).collect();
    if !left.is_empty() {
        println!("never asked for: {left:?}");
    }
    Tally::of(!names.is_empty() && left.is_empty())
}

/// How many requests were answered.
fn count(seen: &Value) -> usize {
    let operations = seen.as_object().into_iter().flat_map(|operations| operations.values());
    let counts = operations.flat_map(|statuses| statuses.as_object().into_iter().flatten());
    let counts = counts.filter_map(|(_, count)| count.as_u64());
    usize::try_from(counts.sum::<u64>()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_operation_that_only_refused_is_a_failure() {
        let seen = json!({
            "login": {"200": 3, "401": 2}, "getUser": {"404": 7}, NEVER_READY: {"409": 1},
        });
        assert_eq!(count(&seen), 13);
        assert_eq!(reached(&seen), Tally { passed: 2, failed: 1, skipped: 0 });
        assert_eq!(count(&Value::Null), 0);
    }

    #[test]
    fn an_operation_that_nobody_asked_for_is_a_failure() {
        let document = json!({"paths": {
            "/auth/login": {"servers": [], "post": {"operationId": "login"}},
            "/readyz": {"get": {"operationId": "getReadiness"}},
        }});
        let asked = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(
            complete(&document, &asked(&["login", "getReadiness", "more"])),
            Tally::of(true)
        );
        assert_eq!(complete(&document, &asked(&["login"])), Tally::FAILED);
        assert_eq!(complete(&Value::Null, &asked(&["login"])), Tally::FAILED);
    }
}
