//! The five minutes of the Rust guide, followed to the letter in a folder of their own.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::authority::free_address;
use crate::gate::{Outcome, cargo};
use crate::process::{Tally, stream};
use crate::tools;
use crate::tree;

const PAGE: &str = "docs/guide/rust.md";
const SECTION: &str = "## Five minutes";
const NAME: &str = "five-minutes";
/// The release that the page names; what is tested is this tree.
const RELEASE: &str = "version = \"0.1\"";
/// Where the page's application listens; here it gets a free port.
const ADDRESS: &str = "127.0.0.1:3000";
/// What each of the page's commands has to show, in their order.
const ANSWERS: [&[&str]; 3] =
    [&["HTTP/1.1 401", "credentials_required"], &["signed in"], &["you are ada"]];
/// How long the application may take to listen: its first start makes a store.
const START_MAX: Duration = Duration::from_secs(60);

/// Writes the page's files, builds and runs them, and enters the page's commands.
pub fn step() -> io::Result<Outcome> {
    if !tools::has("curl", &["--version"]) {
        return Ok(Outcome::Skipped("there is no curl".to_owned()));
    }
    let root = tree::root();
    let address = free_address()?;
    let page = fs::read_to_string(root.join(PAGE))?.replace(ADDRESS, &address);
    let section = section(&page)?;
    let folder = scratch(&root, section)?;
    let mut build = cargo(&["build", "--manifest-path"]);
    build.arg(folder.join("Cargo.toml")).arg("--target-dir").arg(root.join("target/guide-build"));
    if !stream(&mut build)?.success {
        return Ok(Outcome::Counted(Tally::FAILED));
    }
    let program = root.join("target/guide-build/debug").join(NAME);
    let mut running = Command::new(program).current_dir(&folder).stdin(Stdio::null()).spawn()?;
    let tallies = listening(&mut running, &address).and_then(|()| follow(&folder, section));
    running.kill()?;
    running.wait()?;
    Ok(Outcome::Counted([Tally::PASSED, tallies?].into_iter().sum()))
}

/// The page from the section's heading to the next one.
fn section(page: &str) -> io::Result<&str> {
    let (_, rest) = page.split_once(SECTION).ok_or_else(|| lacks(SECTION))?;
    Ok(rest.split_once("\n## ").map_or(rest, |(section, _)| section))
}

/// The first block of code in a language.
fn block<'a>(section: &'a str, language: &str) -> io::Result<&'a str> {
    let fence = format!("```{language}");
    let (_, rest) = section.split_once(&fence).ok_or_else(|| lacks(&fence))?;
    let (_, code) = rest.split_once('\n').ok_or_else(|| lacks(&fence))?;
    code.split_once("\n```").map(|(code, _)| code).ok_or_else(|| lacks(&fence))
}

fn lacks(what: &str) -> io::Error {
    io::Error::other(format!("{PAGE} has no {what}"))
}

/// An empty folder with the page's two files in it, and this tree's lock file.
fn scratch(root: &Path, section: &str) -> io::Result<PathBuf> {
    let folder = root.join("target").join(NAME);
    // Sessions of an earlier run aren't part of anybody's first five minutes.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("src"))?;
    let here = format!("path = \"{}\"", root.join("crates/cloakroom").display());
    let dependencies = block(section, "toml")?;
    if !dependencies.contains(RELEASE) {
        return Err(lacks(RELEASE));
    }
    let dependencies = dependencies.replace(RELEASE, &here);
    let package = format!("[package]\nname = \"{NAME}\"\nedition = \"2024\"\n");
    fs::write(
        folder.join("Cargo.toml"),
        format!("{package}\n[workspace]\n\n[profile.dev]\ndebug = false\n\n{dependencies}\n"),
    )?;
    fs::write(folder.join("src/main.rs"), block(section, "rust")?)?;
    fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock"))?;
    Ok(folder)
}

fn listening(running: &mut Child, address: &str) -> io::Result<()> {
    let deadline = Instant::now() + START_MAX;
    while TcpStream::connect(address).is_err() {
        if let Some(status) = running.try_wait()? {
            return Err(io::Error::other(format!("the application ended: {status}")));
        }
        if Instant::now() > deadline {
            return Err(io::Error::other("the application doesn't listen"));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Enters the page's commands and compares what they show.
fn follow(folder: &Path, section: &str) -> io::Result<Tally> {
    let commands: Vec<&str> =
        block(section, "text")?.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    let mut tallies = vec![Tally::of(commands.len() == ANSWERS.len())];
    for (command, expected) in commands.iter().zip(ANSWERS) {
        println!("$ {command}");
        let shown = stream(Command::new("sh").args(["-c", command]).current_dir(folder))?;
        let text = shown.lines.join("\n");
        let held = shown.success && expected.iter().all(|part| text.contains(part));
        if !held {
            println!("FAILED: guide: it doesn't show {expected:?}");
        }
        tallies.push(Tally::of(held));
    }
    Ok(tallies.into_iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A\n## Five minutes\n\n```toml\na = 1\nb = 2\n```\n\n```rust,no_run\nfn \
                        main() {}\n```\n## B\n```text\n$ c\n```\n";

    #[test]
    fn blocks_of_the_section_are_found_and_of_no_other() {
        let section = section(PAGE).expect("a section");
        assert_eq!(block(section, "toml").expect("a block"), "a = 1\nb = 2");
        assert_eq!(block(section, "rust").expect("a block"), "fn main() {}");
        assert!(block(section, "text").is_err());
    }
}
