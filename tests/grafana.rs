//! The dashboards and alerts against the list of metrics that the code has: every name, label and word in them exists. `tests/prometheus.rs`
//! runs them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/dashboards.rs"]
#[allow(dead_code)]
mod dashboards;

use dashboards::{
    DASHBOARDS, Query, Selector, alerts, dashboard, fill, grouped_by, panels, queries, selectors,
    text, variables,
};
use pilotlight::link::{Direction, Identity, Tag};
use pilotlight::signer::LapseReason;
use pilotlight::supervisor::{Mode, PeerState};
use pilotlight::telemetry::{Kind, METRICS, Metric, PEER_METRICS, PROCESS_METRICS};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What Prometheus itself puts on every series.
const OF_PROMETHEUS: [&str; 2] = ["instance", "job"];

/// What it puts on the series of an alert that fires, beside what the alert's own expression has.
const OF_ALERTS: [&str; 3] = ["alertname", "alertstate", "severity"];

fn all_queries() -> Vec<Query> {
    let boards = DASHBOARDS.iter().flat_map(|file| queries(file));
    let alerts = alerts().into_iter().map(|alert| Query {
        place: alert.name,
        expr: alert.expr,
        legend: Vec::new(),
    });
    boards.chain(alerts).collect()
}

/// The row of the list that a series belongs to, and the labels that it may have.
fn row(series: &str) -> Option<(&'static Metric, Vec<&'static str>)> {
    let listed = || METRICS.iter().chain(PEER_METRICS).chain(PROCESS_METRICS);
    let plain = listed().find(|row| row.name == series && row.kind != Kind::Histogram);
    let of_histogram = || {
        let mut parts = ["_bucket", "_sum", "_count"].into_iter();
        parts.find_map(|part| {
            let base = series.strip_suffix(part);
            let row = listed().find(|row| base == Some(row.name) && row.kind == Kind::Histogram);
            row.map(|row| (row, part))
        })
    };
    let (row, part) = match plain {
        Some(row) => (row, ""),
        None => of_histogram()?,
    };
    let mut labels: Vec<_> = row.labels.to_vec();
    labels.extend(OF_PROMETHEUS);
    if part == "_bucket" {
        labels.push("le");
    }
    Some((row, labels))
}

/// What `label` may say, where the code has a list of it.
fn words(label: &str, metric: &str) -> Option<Vec<&'static str>> {
    Some(match label {
        "mode" => Mode::ALL.map(Mode::as_str).to_vec(),
        "tag" => Tag::ALL.map(Tag::as_str).to_vec(),
        "direction" => Direction::ALL.map(Direction::as_str).to_vec(),
        "identity" => Identity::ALL.map(Identity::as_str).to_vec(),
        "state" => PeerState::ALL.map(PeerState::as_str).to_vec(),
        "reason" if metric == "pilotlight_signer_lapses_total" => LapseReason::ALL
            .iter()
            .map(|reason| reason.as_str())
            .collect(),
        _ => return None,
    })
}

fn check(place: &str, selector: &Selector) -> Vec<&'static str> {
    let Selector {
        metric, matchers, ..
    } = selector;
    let (listed, labels) = match metric.as_str() {
        "up" => (None, OF_PROMETHEUS.to_vec()),
        "ALERTS" => (None, [&OF_ALERTS[..], &OF_PROMETHEUS].concat()),
        metric => {
            let (listed, labels) =
                row(metric).unwrap_or_else(|| panic!("{place}: there is no metric {metric}"));
            (Some(listed), labels)
        }
    };
    for (label, operator, value) in matchers {
        assert!(
            labels.contains(&label.as_str()),
            "{place}: {metric} has no label {label}"
        );
        assert!(
            ["=", "!=", "=~", "!~"].contains(&operator.as_str()),
            "{place}: {operator}"
        );
        if label == "le" {
            // Prometheus 3 writes each as a float, in whatever form it came; before, it was left as it was.
            let both = |bound: &f64| format!("{bound}|{bound}[.]0");
            let bound = |bound: &f64| operator == "=~" && both(bound) == *value;
            assert!(
                listed.is_some_and(|listed| listed.buckets.iter().any(bound)),
                "{place}: {metric} has no bucket {value}"
            );
        } else if let Some(words) = words(label, metric) {
            for word in value.split('|').filter(|word| !word.contains(['$', '.'])) {
                assert!(words.contains(&word), "{place}: {label} is never {word}");
            }
        }
    }
    labels
}

#[test]
fn every_metric_label_and_word_of_the_dashboards_and_alerts_is_one_of_the_code_s() {
    let queries = all_queries();
    assert!(queries.len() > 90, "only {} queries found", queries.len());
    for Query {
        place,
        expr,
        legend,
    } in queries
    {
        let found = selectors(&expr);
        assert!(!found.is_empty(), "{place}: no metric in {expr}");
        let labels: BTreeSet<&str> = found
            .iter()
            .flat_map(|selector| check(&place, selector))
            .collect();
        for label in grouped_by(&expr).iter().chain(&legend) {
            assert!(
                labels.contains(label.as_str()),
                "{place}: no label {label} in {expr}"
            );
        }
        fill(&expr, "n", "02", "60s");
    }
    for file in DASHBOARDS {
        for (name, definition) in variables(&dashboard(file)) {
            for selector in selectors(&definition) {
                check(&format!("{file}: ${name}"), &selector);
            }
        }
    }
}

/// Shown nowhere, each with its reason.
const NOT_SHOWN: [(&str, &str); 1] = [(
    "process_virtual_memory_bytes",
    "nobody acts on it; Prometheus's own dashboards want it",
)];

#[test]
fn every_metric_of_the_code_is_shown_or_has_a_reason_not_to_be() {
    let shown: BTreeSet<&str> = all_queries()
        .iter()
        .flat_map(|query| selectors(&query.expr))
        .filter_map(|selector| Some(row(&selector.metric)?.0.name))
        .collect();
    let excused = |name: &str| NOT_SHOWN.iter().any(|(metric, _)| *metric == name);
    let all = METRICS.iter().chain(PEER_METRICS).chain(PROCESS_METRICS);
    let missing: Vec<_> = all
        .map(|row| row.name)
        .filter(|name| !shown.contains(name) && !excused(name))
        .collect();
    assert!(missing.is_empty(), "on no dashboard: {missing:?}");
    for (name, _) in NOT_SHOWN {
        let listed = row(name).is_some_and(|(row, _)| row.name == name);
        assert!(listed && !shown.contains(name), "{name} needs no excuse");
    }
}

#[test]
fn dashboards_are_whole() {
    let kinds = [
        "barchart",
        "heatmap",
        "stat",
        "state-timeline",
        "table",
        "timeseries",
    ];
    for (file, uid) in DASHBOARDS
        .into_iter()
        .zip(["pilotlight", "pilotlight-peer"])
    {
        let board = dashboard(file);
        assert_eq!(board["uid"], uid, "{file}: links and bookmarks rest on it");
        assert_eq!(
            board["id"],
            Value::Null,
            "{file}: it is of one Grafana only"
        );
        assert!(board["schemaVersion"].as_u64() >= Some(39), "{file}");
        let variables = variables(&board);
        assert!(
            variables.contains_key("datasource") && variables.contains_key("instance"),
            "{file}"
        );
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in board["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(
                ids.insert(panel["id"].as_u64().unwrap()),
                "{file}: {title}: its id is another's too"
            );
            let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
            assert!(place("x") + place("w") <= 24, "{file}: {title}: too wide");
            for x in place("x")..place("x") + place("w") {
                for y in place("y")..place("y") + place("h") {
                    assert!(taken.insert((x, y)), "{file}: {title}: lies on another");
                }
            }
        }
        let mut titles = BTreeSet::new();
        for panel in panels(&board) {
            let title = panel["title"].as_str().unwrap();
            assert!(
                titles.insert(title),
                "{file}: two panels are called {title}"
            );
            let kind = panel["type"].as_str().unwrap();
            assert!(kinds.contains(&kind), "{file}: {title}: {kind}");
            let description = panel["description"].as_str().unwrap();
            assert!(
                description.len() > 60,
                "{file}: {title}: says too little: {description:?}"
            );
            assert!(
                description.ends_with('.'),
                "{file}: {title}: {description:?}"
            );
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
            assert!(
                unit.is_some_and(|unit| !unit.is_empty()),
                "{file}: {title}: no unit"
            );
            assert_eq!(
                panel["datasource"]["uid"], "${datasource}",
                "{file}: {title}"
            );
            for target in panel["targets"].as_array().unwrap() {
                assert_eq!(
                    target["datasource"]["uid"], "${datasource}",
                    "{file}: {title}"
                );
                let expr = target["expr"].as_str().unwrap();
                assert!(
                    expr.contains("$instance"),
                    "{file}: {title}: shows every node's: {expr}"
                );
            }
        }
    }
}

/// A figure is what is so now. As the last of a stretch of time it would go on to say that a signer is attached to a node that is down, and
/// how long an HTLC has that was settled hours ago; and a sum over the whole stretch would be made anew for each of its points.
#[test]
fn a_single_figure_is_asked_for_at_this_moment() {
    let mut figures = 0;
    for file in DASHBOARDS {
        for panel in panels(&dashboard(file)) {
            let title = &panel["title"];
            for target in panel["targets"].as_array().unwrap() {
                let is_figure =
                    ["stat", "table", "barchart"].contains(&panel["type"].as_str().unwrap());
                let over_all = target["expr"].as_str().unwrap().contains("[$__range]");
                assert!(is_figure || !over_all, "{file}: {title}");
                if is_figure {
                    figures += 1;
                    let how = (&target["instant"], &target["range"]);
                    assert_eq!(how, (&true.into(), &false.into()), "{file}: {title}");
                }
            }
        }
    }
    assert!(figures > 20, "{figures}");
    // NaN, where none is pending, would be shown as a number.
    let queries = queries("pilotlight.json");
    let is_it = |query: &&Query| query.expr.contains("pilotlight_htlc_deadline_blocks_min");
    let deadline: Vec<_> = queries.iter().filter(is_it).collect();
    assert!(!deadline.is_empty());
    for query in deadline {
        assert!(query.expr.contains(" > -Inf"), "{}", query.place);
    }
}

/// The moment of the last gossip is 0 while none has come: as an age that would be half a century.
#[test]
fn no_gossip_yet_is_no_age() {
    let name = "pilotlight_gossip_last_message_timestamp_seconds{instance=~\"$instance\"}";
    let ages = queries("pilotlight.json");
    let mut ages = ages
        .iter()
        .filter(|query| query.expr.contains(name))
        .peekable();
    assert!(ages.peek().is_some());
    for query in ages {
        let some = format!("time() - ({name} > 0)");
        assert!(
            query.expr.contains(&some),
            "{}: {}",
            query.place,
            query.expr
        );
    }
}

/// A node that is down has no series of its own any more: it is Prometheus that says so, of the nodes' job alone.
#[test]
fn a_node_that_is_down_is_shown_as_down_and_comes_first() {
    let mut shown = 0;
    for file in DASHBOARDS {
        for panel in panels(&dashboard(file)) {
            let has_mode = |target: &&Value| {
                target["expr"]
                    .as_str()
                    .unwrap()
                    .contains("pilotlight_mode{")
            };
            for target in panel["targets"].as_array().unwrap().iter().filter(has_mode) {
                shown += 1;
                let expr = target["expr"].as_str().unwrap();
                let down =
                    "or max by (instance) (up{job=~\"$job\", instance=~\"$instance\"} == 0) + 5";
                assert!(expr.ends_with(down), "{file}: {}", panel["title"]);
                let text = panel["fieldConfig"].to_string();
                let words = [
                    ("1", "live"),
                    ("2", "safe"),
                    ("3", "draining"),
                    ("4", "waiting"),
                    ("5", "down"),
                ];
                for (number, word) in words {
                    let mapped = text.split(&format!("\"{number}\":{{")).nth(1);
                    let mapped = mapped.and_then(|rest| rest.split('}').next());
                    assert!(
                        mapped.is_some_and(|mapped| mapped.contains(&format!("\"{word}\""))),
                        "{file}: {}: {number} is not {word}",
                        panel["title"]
                    );
                }
                for (number, word) in &words[..4] {
                    let one = format!("mode=\"{word}\"}} * {number}");
                    assert!(expr.contains(&one), "{file}: {}: {one}", panel["title"]);
                }
            }
        }
        let declared = variables(&dashboard(file));
        assert_eq!(declared["job"], "label_values(pilotlight_build_info, job)");
    }
    assert_eq!(shown, 3, "the table and both timelines");
    let board = dashboard("pilotlight.json");
    let nodes = panels(&board)
        .into_iter()
        .find(|panel| panel["title"] == "Nodes");
    let first = &nodes.unwrap()["options"]["sortBy"][0];
    assert_eq!(
        (&first["displayName"], &first["desc"]),
        (&"Mode".into(), &true.into())
    );
}

/// A peer in a state that the panel does not know would look like one of which nothing is known.
#[test]
fn the_states_of_a_peer_are_all_on_its_dashboard() {
    let queries = queries("pilotlight-peer.json");
    let place = "pilotlight-peer.json: State: A";
    let state = queries.iter().find(|query| query.place == place).unwrap();
    let board = text("pilotlight-peer.json");
    for known in PeerState::ALL.map(PeerState::as_str) {
        assert!(
            state.expr.contains(&format!("state=\"{known}\"")),
            "{known} is not in {}",
            state.expr
        );
        assert!(board.contains(&format!("\"text\": \"{known}\"")), "{known}");
    }
}

/// What GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    heading.trim().to_lowercase().replace(' ', "-")
}

#[test]
fn every_alert_has_its_runbook_in_readme_and_its_cases() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, section) = readme
        .split_once("### Alerts\n")
        .expect("a section of alerts");
    let (section, _) = section.split_once("\n## ").expect("its end");
    let runbooks: BTreeMap<String, &str> = section
        .split("\n#### ")
        .skip(1)
        .map(|part| {
            let (heading, text) = part.split_once('\n').unwrap();
            (anchor(heading), text.trim())
        })
        .collect();
    let alerts = alerts();
    let mut linked = BTreeSet::new();
    let cases = text("alerts_test.yaml");
    for alert in &alerts {
        let (page, heading) = alert.runbook.split_once('#').expect("a heading");
        assert!(page.ends_with("/README.md"), "{}", alert.name);
        assert_eq!(heading, anchor(&alert.name), "{}", alert.name);
        let runbook = runbooks.get(heading);
        assert!(
            runbook.is_some_and(|text| text.len() > 60),
            "{}: no runbook",
            alert.name
        );
        linked.insert(heading.to_owned());
        assert!(
            ["page", "warning"].contains(&alert.severity.as_str()),
            "{}",
            alert.name
        );
        let fires = format!("{{alertname=\"{}\"}}", alert.name);
        assert!(
            cases.contains(&fires),
            "{}: no case that fires it",
            alert.name
        );
    }
    let stray: Vec<_> = runbooks
        .keys()
        .filter(|name| !linked.contains(*name))
        .collect();
    assert!(stray.is_empty(), "runbooks of no alert: {stray:?}");
    assert!(alerts.len() >= 15);
}

#[test]
fn selectors_are_found_as_they_are_written() {
    let expr = r#"sum by (le) (rate(pilotlight_x_bucket{instance=~"$instance", le="30"}[1h])) / up and on (job) process_y > 0"#;
    let found: Vec<_> = selectors(expr).into_iter().map(|it| it.written).collect();
    assert_eq!(
        found,
        [
            r#"pilotlight_x_bucket{instance=~"$instance", le="30"}"#,
            "up",
            "process_y"
        ]
    );
    let matchers = selectors(expr).remove(0).matchers;
    assert_eq!(
        matchers[0],
        ("instance".into(), "=~".into(), "$instance".into())
    );
    assert_eq!(grouped_by(expr), ["le", "job"]);
}
