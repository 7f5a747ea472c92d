//! `pilotlight agent`: a signer in the foreground, and `pilotlight key`, which shows whose it is.
//!
//! It never prints a key, and never leaves one in a buffer that nobody wipes.

use super::args::AgentArguments;
use super::failure::{Exit, Failure, bad_key};
use super::logging::{self, LogFormat};
use super::output::Output;
use super::peer_spec;
use super::signals::Signals;
use crate::limits;
use crate::signer::agent::{Agent, AgentConfig, AgentReport, AgentState};
use crate::signer::gateway::{Macaroon, PinnedCertificate};
use crate::signer::{EmbeddedSigner, Signer};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Between two reports of what was answered, while something is.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// `pilotlight key FILE`: the node id on standard output, alone. A key is made only if that is asked for: a name that is mistyped
/// would otherwise be another node.
pub(super) fn key(file: &Path, new: bool, output: &Output) -> Result<Exit, Failure> {
    let signer = match (new, file == Path::new("-")) {
        (true, true) => {
            return Err(Failure::usage(
                "a new key is not written to standard output",
                "--new",
                "name a file",
            ));
        }
        (true, false) => make(file)?,
        (false, _) => load(file)?,
    };
    let id = signer.node_id().to_string();
    let value = json!({ "node_id": id, "key": file.display().to_string(), "made": new });
    output.answer(&value, |_| id);
    if new && !output.json {
        Output::remark(&format!(
            "made a new key in {}: keep a copy of it; who has it has the node",
            file.display()
        ));
    }
    Ok(Exit::Ok)
}

fn make(file: &Path) -> Result<EmbeddedSigner, Failure> {
    let (signer, made) = EmbeddedSigner::load_or_generate(file)
        .map_err(|error| bad_key(&error, file, "give another file"))?;
    if made {
        return Ok(signer);
    }
    let file = file.display();
    Err(Failure::usage(
        format!("{file} exists and holds the key of {}", signer.node_id()),
        file.to_string(),
        "leave out --new to see whose it is, or give another file",
    ))
}

/// `pilotlight agent`: answers until a signal says to stop.
pub(super) fn run(arguments: AgentArguments, output: &Output) -> Result<Exit, Failure> {
    let AgentArguments {
        connect,
        key,
        certificate,
        macaroon,
    } = arguments;
    let server = peer_spec::address(&connect, "--connect", 9740)?;
    check(
        &certificate,
        "--certificate",
        "certificate in PEM",
        |bytes| PinnedCertificate::from_pem(bytes).is_ok(),
    )?;
    check(&macaroon, "--macaroon", "macaroon in binary", |bytes| {
        Macaroon::parse(bytes).is_ok()
    })?;
    let signer = load(&key)?;
    if let Some(remark) = open_macaroon(&macaroon) {
        if output.json {
            Output::line(&json!({ "event": "warning", "detail": remark }).to_string());
        } else {
            Output::remark(&format!("warning: {remark}"));
        }
    }
    // Of what the agent itself logs, all but errors is said in its own lines.
    let format = if output.json {
        LogFormat::Json
    } else {
        LogFormat::Text
    };
    logging::start_at(format, "error")?;
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::failed(error.to_string(), "this process", "please report it"))?;
    let config = AgentConfig {
        server,
        certificate,
        macaroon,
    };
    runtime.block_on(answer(config, signer, output))
}

async fn answer(
    config: AgentConfig,
    signer: EmbeddedSigner,
    output: &Output,
) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    let id = signer.node_id().to_string();
    let started = json!({ "event": "started", "node_id": id, "connect": config.server });
    output.answer(&started, |_| {
        format!("the signer of {id}, for {}", config.server)
    });
    let agent = Agent::start(config, Arc::new(signer));
    let mut states = agent.state();
    states.mark_changed();
    let mut shown = None;
    let mut every = tokio::time::interval(REPORT_EVERY);
    let mut said = AgentReport::default();
    loop {
        tokio::select! {
            biased;
            () = signals.next() => break,
            changed = states.changed() => {
                if changed.is_err() {
                    break;
                }
                let state = states.borrow_and_update().clone();
                if shown.as_ref() != Some(&state) {
                    output.answer(&state_json(&state), |_| state_line(&state));
                    shown = Some(state);
                }
            }
            _ = every.tick() => {
                let report = agent.report();
                if answered(&report) != answered(&said) {
                    output.answer(&report_json("report", &report), |_| report_line(&report));
                    said = report;
                }
            }
        }
    }
    let report = agent.stop().await;
    output.answer(&report_json("stopped", &report), |_| {
        format!("stopped; {}", report_line(&report))
    });
    Ok(Exit::Ok)
}

/// What a report is repeated for: answers, not dials and pings.
fn answered(report: &AgentReport) -> [u64; 4] {
    let refused = report
        .refused_key
        .saturating_add(report.refused_signing)
        .saturating_add(report.refused_malformed)
        .saturating_add(report.refused_busy);
    [report.ecdh, report.proofs, refused, report.failed]
}

fn state_json(state: &AgentState) -> Value {
    match state {
        AgentState::Waiting {
            failure,
            detail,
            retry_in,
        } => json!({
            "event": state_name(state), "reason": failure, "detail": detail,
            "retry_in_ms": u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX),
        }),
        state => json!({ "event": state_name(state) }),
    }
}

fn state_name(state: &AgentState) -> &'static str {
    match state {
        AgentState::Dialing => "dialing",
        AgentState::Registering => "registering",
        AgentState::Attached => "attached",
        AgentState::Waiting { .. } => "waiting",
        AgentState::Stopped => "stopping",
    }
}

fn state_line(state: &AgentState) -> String {
    match state {
        AgentState::Waiting {
            failure,
            detail,
            retry_in,
        } => format!(
            "waiting for {:.1} s before the next dial ({failure}): {detail}",
            retry_in.as_secs_f64()
        ),
        state => state_name(state).to_owned(),
    }
}

fn report_json(event: &str, report: &AgentReport) -> Value {
    json!({
        "event": event, "dials": report.dials, "attached": report.attached, "ecdh": report.ecdh,
        "proofs": report.proofs, "pings": report.pings, "refused_key": report.refused_key,
        "refused_signing": report.refused_signing, "refused_malformed": report.refused_malformed,
        "refused_busy": report.refused_busy, "failed": report.failed,
    })
}

fn report_line(report: &AgentReport) -> String {
    let [ecdh, proofs, refused, failed] = answered(report);
    format!(
        "answered {ecdh} ECDH and {proofs} proofs, refused {refused}, failed {failed}; attached {} times in {} dials",
        report.attached, report.dials
    )
}

/// The key, from a private file or from standard input.
fn load(key: &Path) -> Result<EmbeddedSigner, Failure> {
    if key != Path::new("-") {
        return EmbeddedSigner::load(key)
            .map_err(|error| bad_key(&error, key, "give another file"));
    }
    let stdin = io::stdin();
    if stdin.is_terminal() {
        Output::remark(
            "waiting for the key on standard input: its 64 hex digits, then Enter. They are shown as you type",
        );
    }
    let place = "standard input";
    let failed = |error: &dyn std::fmt::Display| {
        let what = error
            .to_string()
            .replace("the key file standard input", place);
        Failure::usage(
            what,
            place,
            "give the 64 hex digits of the node's key, and one end of line",
        )
    };
    // The library's own standard input keeps a buffer that nobody wipes.
    let stream = stdin.as_fd().try_clone_to_owned();
    let stream = File::from(stream.map_err(|error| failed(&error))?);
    EmbeddedSigner::from_stream(stream, place).map_err(|error| failed(&error))
}

/// Who reads the macaroon needs only the key to be the signer. No error: lnd keeps its macaroons so, for its group.
fn open_macaroon(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        let path = path.display();
        format!("{path} is open to others (mode {mode:03o}): run `chmod 600 {path}`")
    })
}

/// Says at once what would otherwise be said at every dial.
fn check(
    path: &Path,
    flag: &str,
    holds: &str,
    good: impl FnOnce(&[u8]) -> bool,
) -> Result<(), Failure> {
    let wrong = |what: String| {
        Failure::usage(
            what,
            path.display().to_string(),
            format!("copy it from the node's data directory, and name it with {flag}"),
        )
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(limits::CREDENTIAL_FILE_MAX));
    let bound = u64::try_from(limits::CREDENTIAL_FILE_MAX).unwrap_or(u64::MAX);
    // Looked at before it is opened: opening a pipe would wait for its writer.
    let there = std::fs::metadata(path).and_then(|metadata| {
        if metadata.is_file() {
            File::open(path)?.take(bound).read_to_end(&mut bytes)
        } else {
            Err(io::Error::other("it is not a regular file"))
        }
    });
    there.map_err(|error| wrong(format!("cannot read {}: {error}", path.display())))?;
    if good(&bytes) {
        Ok(())
    } else {
        Err(wrong(format!("{} holds no {holds}", path.display())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_state_is_one_line() {
        let state = AgentState::Waiting {
            failure: "denied",
            detail: "the server refused the call".to_owned(),
            retry_in: Duration::from_millis(1250),
        };
        assert_eq!(
            state_line(&state),
            "waiting for 1.2 s before the next dial (denied): the server refused the call"
        );
        assert_eq!(state_json(&state)["retry_in_ms"], 1250);
        assert_eq!(state_line(&AgentState::Attached), "attached");
    }
}
