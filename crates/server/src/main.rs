//! The program `cloakroom`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    ExitCode::from(cloakroom_server::cli::run(std::env::args_os(), &mut out, &mut err))
}
