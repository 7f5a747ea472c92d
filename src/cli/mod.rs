//! The command line. Placeholder of the branch `demo`: it knows one command, and its arguments are read by hand.

pub mod demo;

use std::process::ExitCode;

/// Runs `pilotlight demo [--json] [--seed N]`.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let seed = arguments
        .iter()
        .position(|argument| argument == "--seed")
        .and_then(|at| arguments.get(at + 1)?.parse().ok());
    let options = demo::Options {
        json: arguments.iter().any(|argument| argument == "--json"),
        seed,
    };
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(demo::run(options)),
        Err(_) => ExitCode::FAILURE,
    }
}
