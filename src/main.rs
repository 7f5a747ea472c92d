//! The binary `pilotlight`: hands over to the library's command line and ends the process with its code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    pilotlight::cli::main()
}
