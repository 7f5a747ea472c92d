//! A configuration file of any text: an error that says what, where and what to do, or settings; never a panic.

use pilotlight::cli::check_configuration;

pub fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Err(problem) = check_configuration("pilotlight.toml", &text) else {
        return;
    };
    assert!(!problem.what.is_empty() && !problem.what_to_do.is_empty());
    let place = &problem.place;
    assert!(place.starts_with("pilotlight.toml"), "{place}: which file?");
    if let Some((_, line)) = place.rsplit_once(", line ") {
        let line: usize = line.parse().expect("a number of a line");
        assert!(line >= 1 && line <= text.matches('\n').count() + 1);
    }
}
