//! The binary: arguments in, calls out, an exit code back. It decides nothing about peers or signers.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | it failed: what was asked could not be done |
//! | 2 | the command line, the environment, the configuration or a file that it names is wrong |
//! | 3 | no daemon runs on that data directory |
//!
//! Answers go to standard output, errors and logs to standard error; with `--json` both are JSON. It never ends the process
//! itself: [`main`] returns the code.

mod absence;
mod agent;
mod args;
mod bake;
mod book;
mod client;
mod commands;
mod config;
mod demo;
mod events;
mod failure;
mod gateway;
mod import;
mod logging;
mod output;
mod peer_spec;
mod run;
mod settings;
mod signals;
mod soak;
mod span;
mod top;
mod words;

use crate::admin::Problem;
use args::{Arguments, Command, PeerCommand, SignerCommand};
use clap::Parser;
use client::Client;
use failure::{Exit, Failure};
use output::Output;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Does what the command line says.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error).into(),
    };
    let output = Output::new(arguments.json);
    match dispatch(arguments, &output) {
        Ok(code) => code,
        Err(failure) => {
            output.failure(&failure);
            failure.exit.into()
        }
    }
}

/// Whether [`main`] would take a configuration file of this text; `path` is for the error. It reads no file and no environment. For
/// `fuzz/` only: the command line's own parts are private, and whoever embeds the library has no configuration file.
///
/// # Errors
/// What is wrong with it, where, and what to do.
#[doc(hidden)]
pub fn check_configuration(path: &str, text: &str) -> Result<(), Problem> {
    settings::of_text(path, text)
        .map(|_| ())
        .map_err(|failure| failure.problem)
}

fn dispatch(arguments: Arguments, output: &Output) -> Result<ExitCode, Failure> {
    let Arguments {
        data_dir,
        command,
        json,
    } = arguments;
    let client = || settings::data_dir(data_dir.clone()).map(Client::new);
    let exit = match command {
        Command::Demo(arguments) => return run::demo(demo::Options::new(arguments, json)?),
        Command::Soak(arguments) => run::soak(soak::Options::new(&arguments)?, output),
        Command::Run(run) => run::run(settings::resolve(data_dir, run)?, output),
        Command::Info { url: false } => commands::info(&client()?, output),
        Command::Info { url: true } => commands::page_url(&client()?, output),
        Command::Events(arguments) => events::run(&client()?, &arguments, output),
        Command::Top(arguments) => top::run(&client()?, &arguments, output),
        Command::Peer { command } => peer(&command, client, output),
        Command::Bake(arguments) => bake::bake(data_dir, &arguments, output),
        Command::Agent(arguments) => agent::run(arguments, output),
        Command::Key { file, new } => agent::key(&file, new, output),
        Command::Chain {
            height,
            own_update_at,
        } => absence::chain(&client()?, output, height, own_update_at),
        Command::Signer { command } => signer(command, data_dir.as_deref(), client, output),
    };
    exit.map(ExitCode::from)
}

/// What is wrong with the arguments is said before a daemon is looked for.
fn signer(
    command: SignerCommand,
    data_dir: Option<&Path>,
    client: impl FnOnce() -> Result<Client, Failure>,
    output: &Output,
) -> Result<Exit, Failure> {
    match command {
        SignerCommand::Lapse(arguments) => {
            let call = absence::LapseCall::new(&arguments)?;
            call.make(&client()?, output)
        }
        SignerCommand::Agree(word) => absence::word(&client()?, output, &word, None),
        SignerCommand::Refuse { word, why } => absence::word(&client()?, output, &word, Some(&why)),
        SignerCommand::Attach => commands::attach(&client()?, output),
        // It works on the files of the data directory.
        SignerCommand::RenewCertificate(arguments) => bake::renew(data_dir, arguments, output),
    }
}

/// The same.
fn peer(
    command: &PeerCommand,
    client: impl FnOnce() -> Result<Client, Failure>,
    output: &Output,
) -> Result<Exit, Failure> {
    let call = match command {
        PeerCommand::Add(add) => commands::PeerCall::add(add)?,
        PeerCommand::Rm { id } => commands::PeerCall::remove(id)?,
        PeerCommand::Urgency(urgency) => commands::PeerCall::urgency(urgency)?,
        PeerCommand::Tag { id, tag } => commands::PeerCall::tag(id, tag)?,
        PeerCommand::List => return commands::list_peers(&client()?, output),
        PeerCommand::Import { file, private } => {
            return import::run(file, *private, client, output);
        }
    };
    call.make(&client()?, output)
}

/// Help and version are answers; anything else is a usage error. Before the arguments are known, `--json` is looked for by hand.
fn usage(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        // Nobody is left to tell if the terminal is gone.
        let _ = error.print();
        return Exit::Ok;
    }
    let json = OsString::from("--json");
    if std::env::args_os().any(|argument| argument == json) {
        Output::new(true).failure(&Failure::usage(
            in_one_line(&error.to_string()),
            "the command line",
            "see `pilotlight --help`",
        ));
    } else {
        let _ = error.print();
    }
    Exit::Usage
}

/// What clap says before it shows how the command is used: which arguments are missing or wrong, and its tips.
fn in_one_line(said: &str) -> String {
    let lines = said.lines().map(str::trim);
    let lines =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let line = lines.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_usage_error_in_one_line_names_what_is_missing_or_wrong() {
        let said = |words: &[&str]| {
            let words = ["pilotlight"].iter().chain(words);
            in_one_line(&Arguments::try_parse_from(words).unwrap_err().to_string())
        };
        let missing = said(&["agent", "--json"]);
        assert!(
            missing.contains("--connect <HOST:PORT>") && missing.contains("--key <FILE|-"),
            "{missing}"
        );
        assert!(!missing.contains("Usage") && !missing.starts_with("error"));
        let unknown = said(&["info", "--jsn"]);
        assert!(
            unknown.contains("--jsn") && unknown.contains("'--json'"),
            "{unknown}"
        );
    }
}
