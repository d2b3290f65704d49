//! `cloakroom demo`: its tour is run as it is printed.

use std::process::Command;

use crate::cli_world::{Node, program, run};

/// The commands of a tour, step by step: each step is what stands under one number.
fn steps(tour: &str) -> Vec<String> {
    let mut steps = Vec::new();
    for line in tour.lines() {
        if line.chars().next().is_some_and(|c| c.is_ascii_digit()) {
            steps.push(String::new());
        } else if let (Some(command), Some(step)) = (line.strip_prefix("    "), steps.last_mut()) {
            step.push_str(command);
            step.push('\n');
        }
    }
    steps
}

#[test]
fn the_tour_does_what_it_says() {
    let temporary = tempfile::TempDir::new().expect("a directory");
    let mut command = program();
    command.args(["demo", "--port", "0", "--admin-port", "0"]);
    command.env("TMPDIR", temporary.path());
    // The tour's last command, so everything before it has been printed.
    let program_line = format!("    {}", env!("CARGO_BIN_EXE_cloakroom"));
    let node = Node::start(&mut command, &program_line);
    let steps = steps(&node.greeting);
    assert_eq!(steps.len(), 7, "{}", node.greeting);
    // One shell runs it all, as one terminal would; a mark parts the outputs.
    let script: String = steps.iter().map(|step| format!("{step}echo ==STEP==\n")).collect();
    let ended = run(Command::new("bash").args(["-eu", "-c", &script]), "").expect(0);
    assert_eq!(ended.err, "");
    let outputs: Vec<&str> = ended.out.split("==STEP==\n").collect();
    let [signed_in, verified, phone, refreshed, listed, signed_out, operator, _] = outputs[..]
    else {
        panic!("{}", ended.out)
    };
    assert!(signed_in.contains("\"csrf_token\":\"") && signed_in.contains("ada@example.com"));
    assert!(verified.starts_with("HTTP/1.1 200 "), "{verified}");
    for header in ["x-auth-subject: usr_", "x-auth-session: ", "authorization: Bearer ey"] {
        assert!(verified.contains(header), "{header}: {verified}");
    }
    assert!(phone.contains("\"refresh_token\":\"ckr_") && phone.contains("My phone"), "{phone}");
    assert!(refreshed.starts_with("HTTP/1.1 200 "), "{refreshed}");
    assert!(refreshed.contains("\"delivery\":\"bearer\""), "{refreshed}");
    assert!(listed.contains("My phone") && listed.contains("\"current\":true"), "{listed}");
    assert!(listed.contains("\"label\":\"Office\""), "{listed}");
    assert!(signed_out.starts_with("HTTP/1.1 204 "), "{signed_out}");
    assert!(signed_out.contains("HTTP/1.1 401 "), "{signed_out}");
    assert!(signed_out.contains("\"session_ended\""), "{signed_out}");
    assert!(signed_out.contains("signed_out_elsewhere"), "{signed_out}");
    assert!(operator.contains("\"session.ended\""), "{operator}");
    assert!(operator.contains("SUBJECT") && operator.contains("Tablet"), "{operator}");
    let (code, err) = node.stop("-INT");
    assert_eq!((code, err.as_str()), (0, ""));
    let left = std::fs::read_dir(temporary.path()).expect("readable").count();
    assert_eq!(left, 0, "the demonstration left something behind");
}

#[test]
fn a_demonstration_goes_with_its_terminal() {
    let temporary = tempfile::TempDir::new().expect("a directory");
    let mut command = program();
    command.args(["demo", "--json", "--port", "0", "--admin-port", "0"]);
    command.env("TMPDIR", temporary.path());
    let node = Node::start(&mut command, "}");
    assert_eq!(std::fs::read_dir(temporary.path()).expect("readable").count(), 1);
    assert_eq!(node.stop("-HUP").0, 0);
    assert_eq!(std::fs::read_dir(temporary.path()).expect("readable").count(), 0);
}
