//! The commands.

mod api_keys;
pub mod client;
pub mod config;
mod demo;
mod doctor;
mod events;
mod failure;
mod import;
mod keys;
mod logs;
mod man;
mod output;
mod paging;
mod progress;
mod serve;
mod sessions;
mod socket;
mod store;
mod token;
mod upkeep;
mod users;
mod whom;

use std::io::Write;

use clap::{CommandFactory, Parser, Subcommand};

pub use failure::Failure;
pub use output::Style;

use crate::config::Surroundings;

/// Sessions and tokens for web applications.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 the authority or its store
/// can't be reached, 4 not found, 5 not allowed.
#[derive(Debug, Parser)]
#[command(
    name = "cloakroom",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  cloakroom demo
  cloakroom serve --data /var/lib/cloakroom
  cloakroom users add ada@example.com --claim role=admin"
)]
struct Program {
    /// Print JSON instead of tables
    #[arg(long, global = true, help_heading = "Output")]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the authority
    Serve(serve::ServeArgs),
    /// Run an authority with a demo user and example sessions, and show it around
    Demo(demo::DemoArgs),
    /// Write, check, show and explain the configuration
    Config {
        #[command(flatten)]
        place: client::Place,
        #[command(flatten)]
        args: config::ConfigArgs,
    },
    /// Users of the directory
    Users(users::UsersArgs),
    /// Who is signed in, and signing them out
    Sessions(sessions::SessionsArgs),
    /// Signing keys
    Keys(keys::KeysArgs),
    /// Keys of backends
    ApiKeys(api_keys::ApiKeysArgs),
    /// The audit log
    Events(events::EventsArgs),
    /// Decode and judge a token
    Token(token::TokenArgs),
    /// The store itself: look at it, bring it up to date, move it to another
    Store(store::StoreArgs),
    /// Remove what has expired now
    Sweep(upkeep::SweepArgs),
    /// Look for what is wrong around an authority, and say how to mend it
    Doctor(doctor::DoctorArgs),
    /// Exit with 0 if the authority is well, else with 1
    Health(upkeep::HealthArgs),
    /// Print completions for a shell
    #[command(after_help = "\
Examples:
  cloakroom completions bash > /etc/bash_completion.d/cloakroom
  cloakroom completions zsh > ~/.zfunc/_cloakroom
  cloakroom completions fish > ~/.config/fish/completions/cloakroom.fish")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all of them into a directory
    #[command(after_help = "\
Examples:
  cloakroom man | man -l -
  cloakroom man --dir /usr/local/share/man/man1
  cloakroom man > cloakroom.1")]
    Man {
        /// Write a page for each command here
        #[arg(long, value_name = "DIR")]
        dir: Option<std::path::PathBuf>,
    },
}

/// Runs the program by its arguments; gives the exit code of the process.
pub fn run(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let program = match Program::try_parse_from(arguments) {
        Ok(program) => program,
        Err(error) => {
            // Help and version are no errors; clap knows which stream and which colours.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(USAGE);
        }
    };
    let as_json = program.json;
    match dispatch(program, out, err) {
        Ok(()) => 0,
        Err(failure) => {
            if failure.is_loud() {
                // Where even standard error is closed, the exit code has to do.
                let _ = match as_json {
                    true => writeln!(err, "{:#}", failure.to_json()),
                    false => writeln!(err, "error: {failure}"),
                };
            }
            failure.code()
        }
    }
}

/// Exit code for wrong usage.
const USAGE: u8 = 2;

fn dispatch(program: Program, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failure> {
    let style = Style::of_process(program.json);
    match &program.command {
        Command::Serve(args) => serve::run(args, style, out, err),
        Command::Demo(args) => demo::run(args, style, out),
        Command::Config { place, args } => {
            let surroundings = Surroundings::of_process();
            match config::run(args, &place.flags(), &surroundings, program.json, out, err)? {
                config::Outcome::Done => Ok(()),
                outcome => Err(Failure::Silent(outcome.code())),
            }
        }
        Command::Users(args) => users::run(args, style, out, err),
        Command::Sessions(args) => sessions::run(args, style, out),
        Command::Keys(args) => keys::run(args, style, out),
        Command::ApiKeys(args) => api_keys::run(args, style, out),
        Command::Events(args) => events::run(args, style, out, err),
        Command::Token(args) => token::run(args, style, out),
        Command::Store(args) => store::run(args, style, out, err),
        Command::Sweep(args) => upkeep::sweep(args, style, out),
        Command::Doctor(args) => doctor::run(args, style, out),
        Command::Health(args) => upkeep::health(args, style, out),
        Command::Completions { shell } => {
            // Whole first: the library panics where it can't write, as into a closed pipe.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Program::command(), "cloakroom", &mut script);
            Ok(out.write_all(&script)?)
        }
        Command::Man { dir: None } => Ok(man::write(&built(), out)?),
        Command::Man { dir: Some(dir) } => {
            let unwritable = |error| Failure::Failed(format!("{}: {error}", dir.display()));
            std::fs::create_dir_all(dir).map_err(unwritable)?;
            man::write_all(&built(), dir).map_err(unwritable)
        }
    }
}

/// The commands with their whole names.
fn built() -> clap::Command {
    let mut program = Program::command();
    program.build();
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Program::command().debug_assert();
    }

    #[test]
    fn each_command_ends_its_help_with_three_examples() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            // `config` is a group by itself; its commands are one word each.
            if command.get_name() != "help" && !path.contains(" config") {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                let examples = help.lines().filter(|line| line.starts_with("  ")).count();
                assert_eq!(examples, 3, "{path}");
                assert!(command.get_about().is_some(), "{path}");
            }
            for sub in command.get_subcommands() {
                check(sub, &path);
            }
        }
        check(&Program::command(), "");
    }

    /// The help of each command, one below the other.
    fn reference(command: &mut clap::Command, path: &str, into: &mut String) {
        let path = format!("{path}{}", command.get_name());
        let help = command.clone().term_width(96).bin_name(&path).render_long_help().to_string();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        into.push_str(&format!("\n## {path}\n\n```\n{}\n```\n", help.join("\n").trim_end()));
        for sub in command.get_subcommands_mut() {
            if sub.get_name() != "help" {
                reference(sub, &format!("{path} "), into);
            }
        }
    }

    #[test]
    fn the_reference_of_commands_is_the_golden_file() {
        let mut text =
            "# Commands\n\nWhat `--help` says, written by `cargo xtask golden`.\n".to_owned();
        let mut program = Program::command();
        program.build();
        reference(&mut program, "", &mut text);
        let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = here.join("../../docs/reference/commands.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &text).expect("a writable golden file");
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(golden, text, "UPDATE=1 cargo test rewrites {}", path.display());
    }
}
