//! The end of the demo: verdicts for a person, or one JSON object for a program.

use super::DemoError;
use super::checks::{Check, millis};
use super::evidence::{Outcome, Signer};
use super::screen::{Ink, Screen};
use crate::signer::agent::AgentReport;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

/// Prints the verdicts.
pub(super) fn print(
    screen: &Screen,
    seed: u64,
    played: &Result<Outcome, DemoError>,
    written: Option<&Path>,
) {
    screen.line(Ink::Plain, "");
    match played {
        Ok(outcome) => {
            screen.line(
                Ink::Bold,
                "The promises, checked on what the far sides recorded:",
            );
            for check in &outcome.checks {
                verdict(screen, check);
            }
            screen.line(Ink::Plain, "");
            if !outcome.settled {
                screen.line(
                    Ink::Warm,
                    "Some messages were still on their way when the checks began.",
                );
            }
            let seconds = screen.elapsed().as_secs_f64();
            if outcome.passed() {
                screen.line(
                    Ink::Good,
                    &format!("All {} hold, after {seconds:.1} s.", outcome.checks.len()),
                );
            } else {
                let broken = outcome
                    .checks
                    .iter()
                    .filter(|check| !check.passed())
                    .count();
                screen.line(
                    Ink::Bad,
                    &format!("{broken} of {} do not hold.", outcome.checks.len()),
                );
            }
        }
        Err(error) => screen.line(
            Ink::Bad,
            &format!("The demo could not be played to its end: {error}"),
        ),
    }
    screen.line(
        Ink::Plain,
        &format!("To repeat it with the same keys and urgencies: pilotlight demo --seed {seed}"),
    );
    if let Some(path) = written {
        let path = path.display();
        screen.line(
            Ink::Plain,
            &format!("The run as a page for a browser: {path}"),
        );
    }
}

fn verdict(screen: &Screen, check: &Check) {
    let (ink, word) = if check.passed() {
        (Ink::Good, "pass")
    } else {
        (Ink::Bad, "FAIL")
    };
    screen.line(
        Ink::Plain,
        &format!(
            "  {}  {}  {}",
            screen.paint(ink, word),
            check.promise,
            check.claim
        ),
    );
    screen.line(Ink::Dim, &format!("            {}", check.figure));
    for fault in &check.faults {
        screen.line(Ink::Bad, &format!("            {fault}"));
    }
}

/// Writes one JSON object.
pub(super) fn json(
    screen: &Screen,
    seed: u64,
    played: &Result<Outcome, DemoError>,
    written: Option<&Path>,
) {
    let mut value = match played {
        Ok(outcome) => whole(screen.elapsed().as_secs_f64(), seed, outcome),
        Err(error) => {
            json!({ "seed": seed, "passed": false, "error": error.to_string(), "checks": [] })
        }
    };
    if let (Value::Object(value), Some(path)) = (&mut value, written) {
        value.insert("report".to_owned(), json!(path.display().to_string()));
    }
    // A closed pipe: nobody reads it.
    let _ = writeln!(std::io::stdout().lock(), "{value}");
}

/// All that is said of a run that was played to its end.
pub(super) fn whole(seconds: f64, seed: u64, outcome: &Outcome) -> Value {
    let Outcome {
        cut,
        checks,
        order,
        arrived,
        missed,
        relight,
        floor_back,
        rotations,
        gossip,
        far_messages,
        signer,
        settled,
        recording: _,
    } = outcome;
    let checks: Vec<Value> = checks
        .iter()
        .map(|check| {
            json!({
                "promise": check.promise,
                "claim": check.claim,
                "passed": check.passed(),
                "figure": check.figure,
                "faults": check.faults,
            })
        })
        .collect();
    json!({
        "seed": seed,
        "passed": outcome.passed(),
        "checks": checks,
        "lapse": {
            "reason": cut.lapse.reason.as_str(),
            "noticed_ms": millis(cut.noticed),
            "fence_us": micros(cut.lapse.fence),
            "teardown_ms": millis(cut.after.report.teardown),
            "last_far_end_ms": millis(cut.after.last_end),
            "dropped": cut.after.report.dropped,
            "retained": cut.after.report.retained,
            "far_sides_reset": cut.after.resets,
        },
        "floor": { "back_ms": floor_back.map(millis) },
        "relight": { "took_ms": relight.map(millis), "dialled": order, "arrived": arrived },
        "gossip": {
            "in": gossip.whole.0,
            "out": gossip.whole.1,
            "in_without_signer": gossip.safe.0,
            "out_without_signer": gossip.safe.1,
        },
        "far_messages": far_messages,
        "key_rotations": rotations,
        "signer_calls": signer.uses,
        "signer": told(signer),
        "settled": settled,
        "events_missed": missed,
        "seconds": seconds,
    })
}

fn told(signer: &Signer) -> Value {
    let agent = |report: &AgentReport| {
        json!({
            "dials": report.dials, "attached": report.attached, "proofs": report.proofs, "ecdh": report.ecdh,
        })
    };
    json!({
        "address": signer.address.to_string(),
        "agents": signer.agents.iter().map(agent).collect::<Vec<_>>(),
        "calls_while_away": signer.uses_away,
        "ecdh_over_tls_us": micros(signer.round_trip),
        "ecdh_computation_us": micros(signer.computation),
    })
}

fn micros(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
