//! The log: to standard error, as much as `RUST_LOG` says, as text or as JSON.

use super::failure::Failure;
use super::output;
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Starts logging.
pub(super) fn start(format: LogFormat) -> Result<(), Failure> {
    start_at(format, "info")
}

/// Starts logging, at this level unless `RUST_LOG` says otherwise.
pub(super) fn start_at(format: LogFormat, level: &str) -> Result<(), Failure> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) => EnvFilter::try_new(&directives).map_err(|error| {
            Failure::usage(
                format!("RUST_LOG is not a log filter: {error}"),
                "the environment",
                "write a level such as info, or pilotlight=debug",
            )
        })?,
        Err(_) => EnvFilter::new(level),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => log
            .with_ansi(output::colours(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| {
        Failure::failed(
            error.to_string(),
            "the log",
            "this is not your doing: please report it",
        )
    })
}
