//! The dashboards and alerts as the tests read them: their queries with the variables of Grafana filled in, and the series that each
//! query selects.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The dashboards, by the name of their file.
pub(crate) const DASHBOARDS: [&str; 2] = ["pilotlight.json", "pilotlight-peer.json"];

pub(crate) fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("grafana")
        .join(file)
}

pub(crate) fn text(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A dashboard, read.
pub(crate) fn dashboard(file: &str) -> Value {
    serde_json::from_str(&text(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The panels that show something, without the rows that only divide.
pub(crate) fn panels(board: &Value) -> Vec<&Value> {
    let panels = board["panels"].as_array().expect("a list of panels");
    let shows = |panel: &&Value| panel["type"] != "row";
    panels.iter().filter(shows).collect()
}

/// A query of a dashboard or an alert.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    /// Where it stands: the file and the panel, or the alert.
    pub(crate) place: String,
    pub(crate) expr: String,
    /// The labels that the legend names.
    pub(crate) legend: Vec<String>,
}

/// Every query of a dashboard: its panels' and its annotations'.
pub(crate) fn queries(file: &str) -> Vec<Query> {
    let board = dashboard(file);
    let mut queries = Vec::new();
    for panel in panels(&board) {
        let title = panel["title"].as_str().expect("a title");
        for target in panel["targets"].as_array().expect("targets") {
            let (expr, letter) = (&target["expr"], &target["refId"]);
            queries.push(Query {
                place: format!("{file}: {title}: {}", letter.as_str().expect("a letter")),
                expr: expr.as_str().expect("an expression").to_owned(),
                legend: named(target["legendFormat"].as_str().unwrap_or_default()),
            });
        }
    }
    let annotations = board["annotations"]["list"].as_array().expect("a list");
    for annotation in annotations.iter().filter(|it| !it["expr"].is_null()) {
        let format = annotation["textFormat"].as_str().unwrap_or_default();
        queries.push(Query {
            place: format!("{file}: annotation {}", annotation["name"]),
            expr: annotation["expr"].as_str().expect("a text").to_owned(),
            legend: named(format),
        });
    }
    queries
}

/// The labels in a legend such as `{{tag}}, {{identity}}`.
fn named(format: &str) -> Vec<String> {
    let parts = format.split("{{").skip(1);
    parts
        .filter_map(|part| Some(part.split_once("}}")?.0.trim().to_owned()))
        .collect()
}

/// An alert: a rule of the file, which has one key a line.
#[derive(Debug, Clone)]
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) expr: String,
    pub(crate) runbook: String,
    pub(crate) severity: String,
}

pub(crate) fn alerts() -> Vec<Alert> {
    let file = text("alerts.yaml");
    let rules = file.split("- alert: ").skip(1);
    rules
        .map(|rule| {
            let field = |key: &str| {
                let line = rule
                    .lines()
                    .map(str::trim)
                    .find_map(|line| line.strip_prefix(key));
                line.unwrap_or_else(|| panic!("{key} is missing: {rule}"))
                    .trim()
                    .to_owned()
            };
            Alert {
                name: rule.lines().next().expect("a name").trim().to_owned(),
                expr: field("expr:"),
                runbook: field("runbook_url:"),
                severity: field("severity:"),
            }
        })
        .collect()
}

/// What Grafana would put in place of its variables. The job is called `pilotlight`, as in `prometheus.yaml`.
pub(crate) fn fill(expr: &str, instance: &str, node_id: &str, window: &str) -> String {
    let seconds: u64 = window.trim_end_matches('s').parse().expect("seconds");
    let filled = expr
        .replace("$__rate_interval", window)
        .replace("$__range_s", &seconds.to_string())
        .replace("$__range", window)
        .replace("$instance", instance)
        .replace("$node_id", node_id)
        .replace("$job", "pilotlight");
    assert!(!filled.contains('$'), "a variable is left: {filled}");
    filled
}

/// One selector of an expression, such as `pilotlight_links{tag="channel-bearing"}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Selector {
    pub(crate) metric: String,
    /// Label, operator and value of each matcher.
    pub(crate) matchers: Vec<(String, String, String)>,
    /// As it is written.
    pub(crate) written: String,
}

/// Series that Prometheus makes itself.
const OWN: [&str; 2] = ["up", "ALERTS"];

/// The selectors of an expression. Every metric here is one of those, or begins in one of two ways, and no function or label does.
pub(crate) fn selectors(expr: &str) -> Vec<Selector> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = expr;
    while let Some(start) = rest.find(is_word) {
        rest = &rest[start..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        rest = behind;
        let is_metric =
            word.starts_with("pilotlight_") || word.starts_with("process_") || OWN.contains(&word);
        if !is_metric {
            continue;
        }
        let (braces, behind) = match behind.strip_prefix('{') {
            Some(inner) => inner.split_once('}').expect("a closing brace"),
            None => ("", behind),
        };
        rest = behind;
        let written = if braces.is_empty() {
            word.to_owned()
        } else {
            format!("{word}{{{braces}}}")
        };
        found.push(Selector {
            metric: word.to_owned(),
            matchers: matchers(braces),
            written,
        });
    }
    found
}

fn matchers(braces: &str) -> Vec<(String, String, String)> {
    let matcher = |part: &str| {
        let (left, value) = part.split_once('"').expect("a quoted value");
        let label: String = left
            .trim()
            .trim_end_matches(['=', '!', '~'])
            .trim()
            .to_owned();
        let operator = left.trim()[label.len()..].trim().to_owned();
        (label, operator, value.trim_end_matches('"').to_owned())
    };
    let parts = braces.split(',').map(str::trim);
    parts.filter(|part| !part.is_empty()).map(matcher).collect()
}

/// The labels that an expression groups and joins by.
pub(crate) fn grouped_by(expr: &str) -> Vec<String> {
    let mut labels = Vec::new();
    for word in ["by (", "on (", "ignoring (", "without ("] {
        for list in expr.split(word).skip(1) {
            let (list, _) = list.split_once(')').expect("a closing bracket");
            labels.extend(list.split(',').map(|label| label.trim().to_owned()));
        }
    }
    labels
}

/// The variables that a dashboard declares, and what it asks Prometheus for their values.
pub(crate) fn variables(board: &Value) -> BTreeMap<String, String> {
    let list = board["templating"]["list"].as_array().expect("a list");
    list.iter()
        .map(|variable| {
            let name = variable["name"].as_str().expect("a name").to_owned();
            let definition = variable["definition"].as_str().unwrap_or_default();
            (name, definition.to_owned())
        })
        .collect()
}
