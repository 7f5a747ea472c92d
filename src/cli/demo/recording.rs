//! The run as the status page shows it, in one file that can be sent to a colleague: the peers by name, what happened and when, the checks
//! of the promises and the story.
//!
//! The picture is the status page's own; here are its data, and the part above it. All text that is put into the page is escaped here,
//! or is in the block of data, whose text no browser takes for more.

use super::DemoError;
use super::cast::Kind;
use super::checks::Check;
use super::evidence::Outcome;
use super::report;
use super::screen::Screen;
use super::stage::Stage;
use crate::admin::{SignerControl, event_json, info_json, peer_json, recorded};
use crate::cli::gateway::date;
use crate::telemetry::Next;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

/// What the node knew of the run: events, and snapshots of its peers.
pub(super) struct Recording {
    /// Unix seconds.
    from: f64,
    until: f64,
    node: String,
    info: Value,
    /// As they were when the node had been told whom it wants.
    peers: Vec<Value>,
    events: Vec<Value>,
}

impl Recording {
    /// Takes all that the node still keeps.
    ///
    /// # Errors
    /// The supervisor has stopped.
    pub(super) async fn take(stage: &Stage<'_>) -> Result<Self, DemoError> {
        let supervisor = &stage.node.supervisor;
        let mut kept = supervisor.events_after(0);
        let mut events = Vec::new();
        loop {
            match kept.try_next() {
                Some(Next::Event(recorded)) => events.push(event_json(&recorded)),
                Some(Next::Missed(missed)) => {
                    events.push(json!({ "event": "missed", "missed": missed }));
                }
                Some(Next::CaughtUp) | None => break,
            }
        }
        let snapshot = supervisor.snapshot();
        let now = supervisor.peers().await?;
        let control = SignerControl::remote(supervisor.context().clone());
        let until = snapshot.at.as_secs_f64();
        let times = events.iter().filter_map(|event| event.get("at")?.as_f64());
        Ok(Self {
            from: times.fold(until, f64::min),
            until,
            node: snapshot.node_id.to_string(),
            info: info_json(&snapshot, &now, &control),
            peers: peers(stage),
            events,
        })
    }

    /// The block of data of the page. `told`: what the demo says of the run with `--json`.
    fn data(&self, seed: u64, told: &Value) -> Value {
        json!({
            "title": format!("A run of pilotlight demo with seed {seed}, {}.", self.when()),
            "version": env!("CARGO_PKG_VERSION"),
            "node_id": self.node,
            "from": self.from,
            "until": self.until,
            "info": self.info,
            "peers": self.peers,
            "events": self.events,
            "demo": told,
        })
    }

    /// When it began.
    fn when(&self) -> String {
        date(Duration::try_from_secs_f64(self.from).unwrap_or_default())
    }
}

/// Everybody by name, in the state in which the node had them at first. Who had not dialled by then was unknown.
fn peers(stage: &Stage<'_>) -> Vec<Value> {
    let members = stage.cast.members.iter();
    let peers = members.map(|member| {
        let id = member.node_id();
        let opening = stage.opening.iter().find(|peer| peer.node_id == id);
        let tag = match member.kind {
            Kind::Channel => "channel-bearing",
            Kind::Gossip | Kind::Stranger => "gossip-only",
        };
        let mut peer = opening.map_or_else(
            || json!({ "node_id": id.to_string(), "addr": null, "tag": tag, "weight": 0, "state": "idle" }),
            peer_json,
        );
        if let Value::Object(peer) = &mut peer {
            peer.insert("name".to_owned(), json!(member.name));
            if member.kind != Kind::Channel {
                // The node is told of it later than of the channel peers: nothing was wanted of it yet.
                peer.insert("state".to_owned(), json!("idle"));
            }
        }
        peer
    });
    peers.collect()
}

/// The whole file.
pub(super) fn page(screen: &Screen, seed: u64, outcome: &Outcome) -> String {
    let told = report::whole(screen.elapsed().as_secs_f64(), seed, outcome);
    let recording = &outcome.recording;
    let section = section(seed, recording, &outcome.checks, &screen.told());
    recorded(&recording.data(seed, &told), &section)
}

/// What stands above the picture: the verdicts, and what was told while it ran.
fn section(seed: u64, recording: &Recording, checks: &[Check], told: &[String]) -> String {
    let broken = checks.iter().filter(|check| !check.passed()).count();
    let verdict = match broken {
        0 => format!("All {} hold.", checks.len()),
        broken => format!("{broken} of {} do not hold.", checks.len()),
    };
    let mut html = format!(
        "  <section class=\"card checks\" aria-labelledby=\"checks-title\">\n    <h2 id=\"checks-title\">The promises, checked on what the far sides recorded</h2>\n    \
         <p class=\"figure\">{}</p>\n    <p class=\"muted\">A run of <code>pilotlight demo --seed {seed}</code> on {}, on loopback: real sockets, made-up peers.</p>\n    <ol>\n",
        escaped(&verdict),
        escaped(&recording.when())
    );
    for check in checks {
        html.push_str(&item(check));
    }
    html.push_str("    </ol>\n    <details>\n      <summary>What was told while it ran</summary>\n      <pre class=\"scroll\" tabindex=\"0\">");
    for line in told {
        // Writing to a string does not fail.
        let _ = writeln!(html, "{}", escaped(line));
    }
    html.push_str("</pre>\n    </details>\n  </section>\n\n");
    html
}

fn item(check: &Check) -> String {
    let (class, word) = if check.passed() {
        ("kept", "pass")
    } else {
        ("broken", "FAIL")
    };
    let faults = check.faults.iter().fold(String::new(), |mut html, fault| {
        // Writing to a string does not fail.
        let _ = write!(html, "<p class=\"fault\">{}</p>", escaped(fault));
        html
    });
    format!(
        "      <li class=\"{class}\"><p><span class=\"verdict\">{word}</span> {} {}</p><p class=\"muted\">{}</p>{faults}</li>\n",
        escaped(check.promise),
        escaped(check.claim),
        escaped(&check.figure)
    )
}

/// Text as HTML shows it, in an element or an attribute.
fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut safe, letter| {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            letter => safe.push(letter),
        }
        safe
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: &str = "</script><script>alert('1')</script><img src=x onerror=\"alert(1)\">&";

    fn recording(text: &str) -> Recording {
        Recording {
            from: 1_767_225_600.0,
            until: 1_767_225_610.0,
            node: text.to_owned(),
            info: json!({ "mode": text }),
            peers: vec![json!({ "node_id": text, "name": text })],
            events: vec![
                json!({ "event": "peer_complained", "at": 1_767_225_601.0, "text": text }),
            ],
        }
    }

    fn check(fault: Option<&str>) -> Check {
        Check {
            promise: "P1",
            claim: "a < b & c",
            figure: NASTY.to_owned(),
            faults: fault.map(str::to_owned).into_iter().collect(),
        }
    }

    #[test]
    fn no_text_of_the_run_breaks_out_of_the_page() {
        let recording = recording(NASTY);
        let section = section(7, &recording, &[check(Some(NASTY))], &[NASTY.to_owned()]);
        let page = recorded(&recording.data(7, &json!({ "error": NASTY })), &section);
        assert_eq!(
            page.matches("<script").count(),
            3,
            "the data and two scripts"
        );
        assert_eq!(page.matches("</script>").count(), 3);
        assert!(!page.contains("<img") && !page.contains("alert('1')</script>"));
        assert!(section.contains("a &lt; b &amp; c") && section.contains("alert(&#39;1&#39;)"));
    }

    #[test]
    fn the_data_are_what_they_were() {
        let recording = recording(NASTY);
        let page = recorded(&recording.data(7, &json!({ "passed": true })), "");
        let (_, data) = page.split_once("id=\"recording\">").unwrap_or_default();
        let (data, _) = data.split_once("</script>").unwrap_or_default();
        let data: Value = serde_json::from_str(data).unwrap_or_default();
        assert_eq!(data, recording.data(7, &json!({ "passed": true })));
        assert_eq!(data.pointer("/peers/0/name"), Some(&json!(NASTY)));
    }

    #[test]
    fn a_promise_that_is_broken_shows() {
        let section = |checks: &[Check]| section(7, &recording(""), checks, &[]);
        let good = section(&[check(None), check(None)]);
        assert!(
            good.contains("All 2 hold.") && !good.contains("FAIL"),
            "{good}"
        );
        let bad = section(&[check(None), check(Some("it leaked"))]);
        for said in [
            "1 of 2 do not hold.",
            "class=\"broken\"",
            "FAIL",
            "it leaked",
            "--seed 7",
            "2026-01-01T00:00:00Z",
        ] {
            assert!(bad.contains(said), "{said} is not in {bad}");
        }
    }
}
