//! The program `cloakroom`.

use std::process::ExitCode;

/// A session is made on one thread and let go of on another, at which the C library's allocator
/// is slow (docs/decisions/0022).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    ExitCode::from(cloakroom_server::cli::run(std::env::args_os(), &mut out, &mut err))
}
