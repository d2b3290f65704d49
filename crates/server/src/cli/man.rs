//! `cloakroom man`: the manual pages.

use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

/// What follows on every page after the command's own sections.
const COMMON: &str = ".SH \"EXIT STATUS\"\n\
    .TP\n.B 0\nDone.\n\
    .TP\n.B 1\nIt was tried and didn't work.\n\
    .TP\n.B 2\nWrong usage or configuration.\n\
    .TP\n.B 3\nThe authority or its store can't be reached.\n\
    .TP\n.B 4\nThere is no such thing.\n\
    .TP\n.B 5\nNot allowed: the API key is missing, wrong, or lacks a scope.\n\
    .SH FILES\n\
    .TP\n.I ./cloakroom.toml, /etc/cloakroom/cloakroom.toml\n\
    The configuration, where none is named; the first that is there.\n\
    .TP\n.I ./cloakroom\\-data\n\
    The data directory, where none is named: the lock, root\\-api.key, and of an embedded store \
    master.key and all the rest.\n\
    .SH ENVIRONMENT\n\
    .TP\n.B CLOAKROOM_SECTION__KEY\n\
    Any key of the configuration, over the file's.\n\
    .TP\n.B NO_COLOR\n\
    No colours, also on a terminal.\n\
    .TP\n.B RUST_LOG\n\
    Which log lines are written, over log.level.\n";

/// Writes the page of a command that was built.
///
/// # Errors
///
/// An error of writing.
pub(super) fn write(command: &Command, out: &mut dyn Write) -> io::Result<()> {
    let man = Man::new(command.clone());
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(out)?;
    }
    out.write_all(examples(command).as_bytes())?;
    out.write_all(COMMON.as_bytes())?;
    out.write_all(see_also(command).as_bytes())
}

/// Writes the page of a command, and of each one below it, into a directory.
///
/// # Errors
///
/// An error of writing.
pub(super) fn write_all(command: &Command, dir: &Path) -> io::Result<()> {
    let mut page = Vec::new();
    write(command, &mut page)?;
    std::fs::write(dir.join(format!("{}.1", name_of(command))), page)?;
    let below = command.get_subcommands().filter(|command| !command.is_hide_set());
    below.filter(|command| command.get_name() != "help").try_for_each(|one| write_all(one, dir))
}

/// `cloakroom-users-add`.
fn name_of(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

/// The examples line by line, as they are typed.
fn examples(command: &Command) -> String {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let lines: Vec<_> = help.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    if lines.is_empty() {
        return String::new();
    }
    let lines: String = lines.iter().map(|line| format!("{}\n", verbatim(line))).collect();
    format!(".SH EXAMPLES\n.nf\n{lines}.fi\n")
}

fn see_also(command: &Command) -> String {
    let name = name_of(command);
    let above = name.rsplit_once('-').map(|(above, _)| above.to_owned());
    let below = command.get_subcommands().filter(|one| one.get_name() != "help").map(name_of);
    let pages: Vec<_> = above.into_iter().chain(below).collect();
    if pages.is_empty() {
        return String::new();
    }
    let pages: Vec<_> = pages.iter().map(|page| format!("\\fB{}\\fR(1)", verbatim(page))).collect();
    format!(".SH \"SEE ALSO\"\n{}\n", pages.join(",\n"))
}

/// Text that troff shows as it is.
fn verbatim(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_shows_its_examples_as_they_are_typed() {
        let command = Command::new("sweep")
            .display_name("cloakroom-sweep")
            .about("Remove")
            .after_help("Examples:\n  cloakroom sweep --json\n  printf '%s\\n' x");
        let mut page = Vec::new();
        write(&command, &mut page).expect("a vector takes everything");
        let page = String::from_utf8(page).expect("UTF-8");
        let shown =
            ".SH EXAMPLES\n.nf\ncloakroom sweep \\-\\-json\nprintf \\(aq%s\\en\\(aq x\n.fi\n";
        assert!(page.contains(shown), "{page}");
        for section in ["NAME", "SYNOPSIS", "\"EXIT STATUS\"", "FILES", "ENVIRONMENT"] {
            assert!(page.contains(&format!(".SH {section}\n")), "{section}: {page}");
        }
        assert!(page.contains("\\fBcloakroom\\fR(1)") && !page.contains("EXTRA"), "{page}");
    }
}
