//! The table: rows of ours, the floor's and the peer's figures with their ratios and targets; printed, and kept in `target/peers/`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::picture;

/// Rounds from which a floor shows that a target is out of reach.
const PROOF: usize = 3;

/// The middle of some figures.
pub(crate) fn median(figures: &[f64]) -> f64 {
    percentile(figures, 0.5)
}

/// The figure that so many of them (0 to 1) do not exceed.
pub(crate) fn percentile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (share * (sorted.len() - 1) as f64).round() as usize;
    sorted[at]
}

/// The median of the ratios of figures that were taken side by side; of the medians where one was taken more often.
pub(crate) fn ratio(over: &[f64], under: &[f64]) -> f64 {
    if over.len() != under.len() {
        return median(over) / median(under);
    }
    let ratios: Vec<f64> = over.iter().zip(under).map(|(a, b)| a / b).collect();
    median(&ratios)
}

/// What a row must reach.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// So many times better than LDK, at least.
    Better(f64),
    /// At most so many times the floor.
    Floor(f64),
    /// At most so much.
    Most(f64),
    /// At least so much.
    Least(f64),
    /// Told, not judged.
    None,
}

/// One row: figures of several rounds, side by side.
pub(crate) struct Row {
    pub(crate) part: &'static str,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    /// Whether more is better.
    pub(crate) more: bool,
    pub(crate) ours: Vec<f64>,
    pub(crate) floor: Vec<f64>,
    pub(crate) ldk: Vec<f64>,
    pub(crate) target: Target,
}

impl Row {
    pub(crate) fn new(part: &'static str, what: impl Into<String>, unit: &'static str) -> Self {
        Self {
            part,
            what: what.into(),
            unit,
            more: false,
            ours: Vec::new(),
            floor: Vec::new(),
            ldk: Vec::new(),
            target: Target::None,
        }
    }

    pub(crate) fn ours(mut self, figures: Vec<f64>) -> Self {
        self.ours = figures;
        self
    }

    pub(crate) fn floor(mut self, figures: Vec<f64>) -> Self {
        self.floor = figures;
        self
    }

    pub(crate) fn ldk(mut self, figures: Vec<f64>) -> Self {
        self.ldk = figures;
        self
    }

    pub(crate) fn target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    pub(crate) fn more_is_better(mut self) -> Self {
        self.more = true;
        self
    }

    fn to_json(&self) -> Value {
        let middle = |figures: &[f64]| (!figures.is_empty()).then(|| median(figures));
        let over_floor = (!self.floor.is_empty()).then(|| ratio(&self.ours, &self.floor));
        let better = (!self.ldk.is_empty()).then(|| {
            if self.more {
                ratio(&self.ours, &self.ldk)
            } else {
                ratio(&self.ldk, &self.ours)
            }
        });
        let ours = median(&self.ours);
        // Whether the floor itself would be enough. One figure proves nothing.
        let floor_meets = match self.target {
            _ if self.floor.len() < PROOF || self.more => None,
            Target::Better(times) if !self.ldk.is_empty() => {
                Some(ratio(&self.ldk, &self.floor) >= times)
            }
            Target::Most(most) => Some(median(&self.floor) <= most),
            _ => None,
        };
        let (target, met) = match self.target {
            Target::Better(times) => (
                format!("≥ {times} × LDK"),
                better.map(|better| better >= times),
            ),
            Target::Floor(times) => (
                format!("≤ {times} × the floor"),
                over_floor.map(|over| over <= times),
            ),
            Target::Most(most) => (
                format!("≤ {} {}", number(most), self.unit),
                Some(ours <= most),
            ),
            Target::Least(least) => (
                format!("≥ {} {}", number(least), self.unit),
                Some(ours >= least),
            ),
            Target::None => (String::new(), None),
        };
        json!({
            "part": self.part, "what": self.what, "unit": self.unit, "rounds": self.ours.len(),
            "ours": ours, "floor": middle(&self.floor), "ldk": middle(&self.ldk),
            "over_floor": over_floor, "better_than_ldk": better, "target": target, "met": met, "floor_meets": floor_meets,
            "load": load(), "figures": {"ours": self.ours, "floor": self.floor, "ldk": self.ldk},
        })
    }
}

/// All rows, those of earlier runs included.
pub(crate) struct Report {
    rows: BTreeMap<String, Value>,
    order: Vec<String>,
    test: bool,
}

impl Report {
    /// Begins with what earlier runs have left, unless it is only a test.
    pub(crate) fn new(test: bool) -> Self {
        let mut report = Self {
            rows: BTreeMap::new(),
            order: Vec::new(),
            test,
        };
        let kept = std::fs::read(folder().join("table.json")).ok();
        let kept = kept.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        for row in kept.iter().filter(|_| !test).flat_map(|kept| {
            kept["rows"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default()
        }) {
            report.put(row.clone());
        }
        report
    }

    /// Forgets what was measured of a part, which is measured anew.
    pub(crate) fn begin(&mut self, part: &str) {
        self.rows.retain(|_, row| row["part"] != part);
        self.order.retain(|key| self.rows.contains_key(key));
    }

    fn put(&mut self, row: Value) {
        let key = format!("{} {}", row["part"], row["what"]);
        if self.rows.insert(key.clone(), row).is_none() {
            self.order.push(key);
        }
    }

    pub(crate) fn add(&mut self, row: &Row) {
        if self.test {
            // Once and quickly: the figures say nothing.
            println!("{}: works", row.what);
            return;
        }
        let row = row.to_json();
        println!("{}", line(&row));
        self.put(row);
        self.keep();
    }

    /// The rows in the order in which they first came.
    fn rows(&self) -> Vec<&Value> {
        self.order.iter().map(|key| &self.rows[key]).collect()
    }

    fn keep(&self) {
        let folder = folder();
        std::fs::create_dir_all(&folder).unwrap();
        let table = json!({"machine": machine(), "ldk": "lightning 0.2.7, lightning-net-tokio 0.2.0", "rows": self.rows()});
        let text = serde_json::to_string_pretty(&table).unwrap();
        std::fs::write(folder.join("table.json"), text).unwrap();
        std::fs::write(folder.join("table.md"), self.markdown()).unwrap();
        std::fs::write(folder.join("table.svg"), picture::draw(&self.rows())).unwrap();
    }

    fn markdown(&self) -> String {
        let mut text = String::from(
            "| work | ours | floor | LDK | × floor | better than LDK | target | |\n|---|--:|--:|--:|--:|--:|---|---|\n",
        );
        for row in self.rows() {
            let cells = cells(row).join(" | ");
            let _ = writeln!(text, "| {cells} |");
        }
        text
    }

    pub(crate) fn print(&self) {
        if self.test {
            return;
        }
        println!("\n{}\n{}", machine(), self.markdown());
        let missed: Vec<_> = self
            .rows()
            .into_iter()
            .filter(|row| row["met"] == json!(false))
            .collect();
        println!("{} targets are not met", missed.len());
        println!("kept in {}", folder().display());
    }
}

/// What a reader wants of a figure: three digits.
pub(crate) fn number(figure: f64) -> String {
    let digits = match figure.abs() {
        x if x >= 100.0 => 0,
        x if x >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{figure:.digits$}");
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let mut grouped = String::new();
    for (at, digit) in whole.char_indices() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if rest.is_empty() {
        grouped
    } else {
        format!("{grouped}.{rest}")
    }
}

fn cells(row: &Value) -> Vec<String> {
    let unit = row["unit"].as_str().unwrap();
    let figure = |name: &str| row[name].as_f64().map_or(String::new(), number);
    let times = |name: &str| {
        row[name]
            .as_f64()
            .map_or(String::new(), |times| format!("{times:.2} ×"))
    };
    let verdict = match (row["met"].as_bool(), row["floor_meets"].as_bool()) {
        (Some(true), _) => "met",
        (Some(false), Some(false)) => "**not met**, nor by the floor",
        (Some(false), _) => "**not met**",
        (None, _) => "",
    };
    vec![
        row["what"].as_str().unwrap().to_owned(),
        format!("{} {unit}", figure("ours")),
        figure("floor"),
        figure("ldk"),
        times("over_floor"),
        times("better_than_ldk"),
        row["target"].as_str().unwrap().to_owned(),
        verdict.to_owned(),
    ]
}

fn line(row: &Value) -> String {
    cells(row).join(" | ")
}

fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target =
        target.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target")));
    target.join("peers")
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(1).collect()
}

/// The machine that it was measured on.
pub(crate) fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
        .unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    format!(
        "{model}, {cores} processors, Linux {}, load {}, {}",
        kernel.trim(),
        load(),
        date(seconds / 86_400)
    )
}

/// A day since the Unix epoch as year, month and day (H. Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: u64) -> String {
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{:02}", doy - (153 * mp + 2) / 5 + 1)
}
