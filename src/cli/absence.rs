//! `signer lapse`, planned or not, and the node's word: what is said over HTTP, and how the answers look to a person.
//!
//! A planned lapse is one request that lasts until its end. Interrupting the command ends the request, and so withdraws the plan.

use super::args::{AbsenceWord, LapseArguments};
use super::client::Client;
use super::failure::{Exit, Failure};
use super::output::Output;
use super::span;
use super::words::{age, expiry, lapse_line, text};
use crate::admin::Problem;
use crate::limits;
use serde_json::{Value, json};
use std::io::BufRead;

const PATH: &str = "/v1/signer/lapse";

/// What is asked for, its arguments checked.
pub(super) struct LapseCall {
    body: Option<Value>,
}

impl LapseCall {
    pub(super) fn new(arguments: &LapseArguments) -> Result<Self, Failure> {
        if !arguments.drain {
            return Ok(Self { body: None });
        }
        let wait = match &arguments.timeout {
            Some(text) => span::parse(text, "--timeout")?,
            None => limits::ABSENCE_WAIT,
        };
        if wait.as_secs() == 0 || wait > limits::ABSENCE_WAIT_MAX {
            return Err(Failure::usage(
                "the node's word can be waited for for 1 second at least and a day at most",
                "--timeout",
                "give 1s to 24h; 10m is the default",
            ));
        }
        let body = json!({ "drain": true, "yes": arguments.yes, "timeout_s": wait.as_secs() });
        Ok(Self { body: Some(body) })
    }

    pub(super) fn make(self, client: &Client, output: &Output) -> Result<Exit, Failure> {
        match &self.body {
            None => {
                let answer = client.change("POST", PATH, None)?;
                output.answer(&answer, ended);
                Ok(Exit::Ok)
            }
            Some(body) => planned(client, output, body),
        }
    }
}

fn ended(lapse: &Value) -> String {
    format!(
        "epoch {} has ended: {}",
        text(lapse, "/epoch"),
        lapse_line(lapse)
    )
}

/// Shows the daemon's lines as they come, until the last.
fn planned(client: &Client, output: &Output, body: &Value) -> Result<Exit, Failure> {
    let broken = |why: String| {
        Failure::failed(
            why,
            PATH,
            "the plan is withdrawn with the connection; see `pilotlight info`, and try again",
        )
    };
    for line in client.changing(PATH, body)?.lines() {
        let line = line.map_err(|error| broken(format!("the daemon's answer broke: {error}")))?;
        let value: Value = serde_json::from_str(&line)
            .map_err(|error| broken(format!("the daemon's answer makes no sense: {error}")))?;
        if let Some(problem) = value.get("error") {
            let problem = serde_json::from_value::<Problem>(problem.clone())
                .map_err(|error| broken(format!("the daemon's answer makes no sense: {error}")))?;
            return Err(Failure {
                exit: Exit::Failed,
                problem,
            });
        }
        output.answer(&value, |value| shown(value, body, output));
        if value.get("lapsed").is_some() {
            return Ok(Exit::Ok);
        }
    }
    Err(broken("the daemon's answer ended early".to_owned()))
}

fn shown(value: &Value, body: &Value, output: &Output) -> String {
    if let Some(lapse) = value.get("lapsed") {
        return ended(lapse);
    }
    let pending = pending(value, output);
    let Some(number) = value.get("planned") else {
        return pending;
    };
    let waits = if body.get("yes").and_then(Value::as_bool) == Some(true) {
        "the word is given in the node's stead (--yes)".to_owned()
    } else {
        format!(
            "waiting up to {} s for the node's word: `pilotlight signer agree {number}` gives it; interrupt to leave all as it is",
            text(value, "/timeout_s")
        )
    };
    format!("absence {number} is planned: {pending}\n{waits}")
}

fn pending(value: &Value, output: &Output) -> String {
    let peers = value.pointer("/pending/peers").and_then(Value::as_array);
    let rows: Vec<Vec<String>> = peers
        .into_iter()
        .flatten()
        .map(|peer| {
            let paths = [
                "/node_id",
                "/pending_htlcs",
                "/earliest_expiry_height",
                "/blocks_left",
                "/csv_delay",
            ];
            paths.map(|path| text(peer, path)).to_vec()
        })
        .collect();
    if rows.is_empty() {
        return "no HTLC is pending that the node has spoken of".to_owned();
    }
    let heads = ["NODE ID", "HTLCS", "EXPIRY", "BLOCKS LEFT", "CSV DELAY"];
    format!(
        "{} HTLCs are pending with {} peers, at height {}\n{}",
        text(value, "/pending/htlcs"),
        rows.len(),
        text(value, "/pending/height"),
        output.table(&heads, &rows)
    )
}

/// Gives the node's word on a planned absence.
pub(super) fn word(
    client: &Client,
    output: &Output,
    word: &AbsenceWord,
    why: Option<&str>,
) -> Result<Exit, Failure> {
    let mut body = json!({ "absence": word.absence, "go": why.is_none() });
    if let (Some(why), Some(fields)) = (why, body.as_object_mut()) {
        fields.insert("why".to_owned(), json!(why));
    }
    let answer = client.change("POST", "/v1/signer/word", Some(&body))?;
    output.answer(&answer, |answer| {
        let said = if why.is_none() {
            "may begin"
        } else {
            "is refused"
        };
        format!("absence {} {said}", text(answer, "/absence"))
    });
    Ok(Exit::Ok)
}

/// Says at which block the node is, and how old its own newest update is.
pub(super) fn chain(
    client: &Client,
    output: &Output,
    height: Option<u32>,
    own_update_at: Option<u64>,
) -> Result<Exit, Failure> {
    let mut body = json!({});
    if let Some(fields) = body.as_object_mut() {
        fields.extend(height.map(|height| ("height".to_owned(), json!(height))));
        fields.extend(own_update_at.map(|at| ("own_update_at".to_owned(), json!(at))));
    }
    let answer = client.change("POST", "/v1/chain", Some(&body))?;
    output.answer(&answer, chain_line);
    Ok(Exit::Ok)
}

/// What is known of the chain, in one line.
pub(super) fn chain_line(chain: &Value) -> String {
    let height = match chain.get("height") {
        Some(Value::Number(height)) => format!("height {height}"),
        _ => "height unknown".to_owned(),
    };
    let deadline = match chain.get("htlc_deadline") {
        Some(deadline @ Value::Object(_)) => format!(
            "the first HTLC {}, at {}, with {}",
            deadline
                .get("blocks_left")
                .and_then(Value::as_i64)
                .map_or_else(|| "expires".to_owned(), expiry),
            text(deadline, "/expiry_height"),
            text(deadline, "/node_id")
        ),
        _ => "no HTLC deadline known".to_owned(),
    };
    let update = match chain.get("own_update_age_s") {
        Some(Value::Number(seconds)) => {
            format!(
                "own update {} old",
                age(seconds.as_f64().unwrap_or_default())
            )
        }
        _ => "own update unknown".to_owned(),
    };
    format!("{height}; {deadline}; {update}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_known_of_the_chain_is_said_in_words() {
        assert_eq!(
            chain_line(&json!({})),
            "height unknown; no HTLC deadline known; own update unknown"
        );
        let chain = |left: i64| {
            json!({
                "height": 850_000, "own_update_age_s": 864_000,
                "htlc_deadline": { "blocks_left": left, "expiry_height": 850_000 + left, "node_id": "02ab" },
            })
        };
        assert_eq!(
            chain_line(&chain(50)),
            "height 850000; the first HTLC expires in 50 blocks, at 850050, with 02ab; own update 10 d old"
        );
        assert!(chain_line(&chain(-7)).contains("HTLC expired 7 blocks ago, at 849993"));
    }
}
