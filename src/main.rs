//! The binary: calls [`pilotlight::cli`] and nothing else.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    pilotlight::cli::main()
}
