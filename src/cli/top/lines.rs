//! `top` where there is no terminal: a block of lines a refresh, or a JSON object with `--json`.

use super::feed::{self, News};
use super::look::Look;
use super::model::Peer;
use crate::admin::Problem;
use crate::cli::client::Client;
use crate::cli::commands;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::words::{clock, event_line, unix_now};
use serde_json::{Value, json};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Shows it once. Without a daemon that is an error.
pub(super) fn once(client: &Client, output: &Output) -> Result<Exit, Failure> {
    let info = client.get("/v1/info")?;
    let peers = client.get("/v1/peers")?;
    print(output, unix_now(), &info, &peers, &[]);
    Ok(Exit::Ok)
}

/// Shows it again and again, until nobody reads it. Without a daemon it says so, and goes on asking.
pub(super) fn keep(client: &Client, interval: Duration, output: &Output) -> Result<Exit, Failure> {
    let news = feed::events(client)?;
    loop {
        let status = feed::status(client);
        let reads = match status {
            News::Lost { at, problem } => lost(output, at, &problem),
            News::Status { asked, info, peers } => {
                print(output, asked, &info, &peers, &since(&news))
            }
            _ => true,
        };
        if !reads {
            return Ok(Exit::Ok);
        }
        std::thread::sleep(interval);
    }
}

/// The events that have come since the last time.
fn since(news: &Receiver<News>) -> Vec<Value> {
    let events = news.try_iter().filter_map(|news| match news {
        News::Event(event) => Some(event),
        _ => None,
    });
    events.collect()
}

/// `false`: nobody reads any more.
fn print(output: &Output, at: f64, info: &Value, peers: &Value, events: &[Value]) -> bool {
    if output.json {
        let whole = json!({ "at": at, "info": info, "peers": peers, "events": events });
        return Output::line(&whole.to_string());
    }
    let all = peers.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut lines = vec![
        format!("{} UTC", clock(at)),
        commands::describe(info, output),
    ];
    if !all.is_empty() {
        lines.push(String::new());
        lines.push(commands::peer_table(sorted(all), output));
    }
    if !events.is_empty() {
        lines.push(String::new());
        lines.extend(events.iter().map(event_line));
    }
    lines.push(String::new());
    Output::line(&lines.join("\n"))
}

/// In the order in which the terminal shows them.
fn sorted(peers: &[Value]) -> Vec<&Value> {
    let known: Vec<Peer> = peers.iter().filter_map(Peer::new).collect();
    let ids: Vec<&str> = Look::default()
        .rows(&known)
        .into_iter()
        .map(|peer| peer.id.as_str())
        .collect();
    let by_id: std::collections::HashMap<&str, &Value> = peers
        .iter()
        .filter_map(|peer| Some((peer.get("node_id")?.as_str()?, peer)))
        .collect();
    ids.into_iter()
        .filter_map(|id| by_id.get(id).copied())
        .collect()
}

/// `false`: nobody reads any more.
fn lost(output: &Output, at: f64, problem: &Problem) -> bool {
    Output::line(&if output.json {
        json!({ "at": at, "error": problem }).to_string()
    } else {
        let Problem {
            what,
            place,
            what_to_do,
        } = problem;
        format!(
            "{} UTC\n{what}\n  where: {place}\n  what to do: {what_to_do}; asking again\n",
            clock(at)
        )
    })
}
