//! Alerts and dashboard, judged by Prometheus's own tool.
//!
//! That they name metrics which exist is a test of the server; this is about their language: rules
//! that load, alerts that fire when they should, and queries that can be read.

use std::io;
use std::process::Command;

use crate::gate::Outcome;
use crate::process::{Tally, stream};
use crate::{tools, tree};

const FOLDER: &str = "ops/prometheus";
const DASHBOARD: &str = "ops/grafana/cloakroom.json";
/// What has `promtool`, on Debian and its like.
const PACKAGE: &str = "prometheus";

/// Checks the rules, runs their tests, and reads every query of the dashboard.
pub fn step() -> io::Result<Outcome> {
    let is_there = || tools::has("promtool", &["--version"]);
    let present = is_there() || (tools::debian_package(PACKAGE)? && is_there());
    if !present {
        let why = format!("no promtool, and the package {PACKAGE} can't be installed");
        return Ok(Outcome::Skipped(why));
    }
    let queries = std::env::temp_dir().join(format!("cloakroom-queries-{}", std::process::id()));
    std::fs::write(&queries, rules_of(&dashboard()?))?;
    let checks = [
        promtool(&["check", "rules", "alerts.yml"]),
        promtool(&["test", "rules", "alerts_test.yml"]),
        promtool(&["check", "rules", &queries.to_string_lossy()]),
    ];
    // It is in a directory for such files, should this fail.
    let _ = std::fs::remove_file(&queries);
    let tallies = checks.into_iter().collect::<io::Result<Vec<Tally>>>()?;
    Ok(Outcome::Counted(tallies.into_iter().sum()))
}

fn promtool(arguments: &[&str]) -> io::Result<Tally> {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(tree::root().join(FOLDER));
    Ok(Tally::of(stream(&mut command)?.success))
}

/// Every query of the dashboard.
fn dashboard() -> io::Result<Vec<String>> {
    let text = std::fs::read_to_string(tree::root().join(DASHBOARD))?;
    let board: serde_json::Value = serde_json::from_str(&text)?;
    let panels = board["panels"].as_array().into_iter().flatten();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<String> =
        targets.filter_map(|target| target["expr"].as_str()).map(str::to_owned).collect();
    if queries.is_empty() {
        return Err(io::Error::other(format!("{DASHBOARD} has no queries")));
    }
    Ok(queries)
}

/// A file of recording rules, one for each query: JSON is YAML too.
fn rules_of(queries: &[String]) -> String {
    let rule = |(number, query): (usize, &String)| {
        // What Grafana fills in.
        let expr = query.replace("$__rate_interval", "5m").replace("$instance", ".*");
        serde_json::json!({"record": format!("dashboard:query:{number}"), "expr": expr})
    };
    let rules: Vec<_> = queries.iter().enumerate().map(rule).collect();
    serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alert_has_a_test_in_which_it_fires() {
        let read = |name: &str| {
            std::fs::read_to_string(tree::root().join(FOLDER).join(name)).expect("a file")
        };
        let (alerts, tests) = (read("alerts.yml"), read("alerts_test.yml"));
        let names: Vec<&str> = alerts.split("- alert: ").skip(1).filter_map(first_line).collect();
        assert!(names.len() > 10, "{names:?}");
        let fires = |name: &str| {
            let mut cases = tests.split("alertname: ").skip(1);
            cases.any(|case| first_line(case) == Some(name) && expects_an_alert(case))
        };
        let untested: Vec<&str> = names.into_iter().filter(|name| !fires(name)).collect();
        assert!(untested.is_empty(), "{untested:?}");
    }

    fn first_line(text: &str) -> Option<&str> {
        text.lines().next()
    }

    /// Whether the line after the name isn't `exp_alerts: []`.
    fn expects_an_alert(case: &str) -> bool {
        case.lines().nth(1).is_some_and(|line| line.trim() == "exp_alerts:")
    }

    #[test]
    fn the_dashboards_queries_become_rules_without_its_variables() {
        let rules = rules_of(&dashboard().expect("queries"));
        assert!(rules.matches("\"record\"").count() > 40 && !rules.contains('$'), "{rules}");
    }
}
