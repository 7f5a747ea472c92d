//! The table as a picture: how many times better than LDK each row is, on a logarithmic scale.

use std::fmt::Write as _;

use serde_json::Value;

const LEFT: f64 = 430.0;
const WIDTH: f64 = 1000.0;
const ROW: f64 = 22.0;

/// A bar from 1 (as good as LDK) to the right, or to the left if it is worse.
pub(crate) fn draw(rows: &[&Value]) -> String {
    let bars: Vec<(&str, f64)> = rows
        .iter()
        .filter_map(|row| Some((row["what"].as_str()?, row["better_than_ldk"].as_f64()?)))
        .collect();
    let height = 60.0 + ROW * bars.len() as f64;
    let most = bars.iter().map(|(_, times)| *times).fold(10.0, f64::max);
    let scale = (WIDTH - LEFT - 90.0) / (most.log10() + 0.3);
    let x = |times: f64| LEFT + (times.max(0.5).log10() + 0.3) * scale;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\
         <text x=\"10\" y=\"20\" font-size=\"14\">How many times better than LDK (more is better; logarithmic)</text>"
    );
    for tick in [1.0, 2.0, 5.0, 10.0, 100.0, 1000.0] {
        if tick <= most * 1.01 {
            let _ = write!(
                svg,
                "<line x1=\"{0:.1}\" y1=\"34\" x2=\"{0:.1}\" y2=\"{1:.1}\" stroke=\"#ccc\"/><text x=\"{0:.1}\" y=\"{2:.1}\" fill=\"#666\">{tick}</text>",
                x(tick),
                height - 20.0,
                height - 6.0
            );
        }
    }
    for (at, (what, times)) in bars.iter().enumerate() {
        let y = 40.0 + ROW * at as f64;
        let (from, to) = (x(1.0).min(x(*times)), x(1.0).max(x(*times)));
        let colour = if *times >= 1.0 { "#2a7" } else { "#c43" };
        let what = what.replace('&', "&amp;").replace('<', "&lt;");
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{what}</text>\
             <rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"15\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{times:.2}</text>",
            LEFT - 8.0,
            y + 12.0,
            (to - from).max(1.0),
            to + 5.0,
            y + 12.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}
