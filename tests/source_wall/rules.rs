//! The rules of the source wall. Each takes one file and returns what it breaks, so that a bad snippet can show that
//! the rule bites.

use super::lex::{Token, lex};

/// The longest function, in lines from `fn` to its closing brace.
pub(crate) const MAX_FUNCTION_LINES: usize = 70;
/// The longest file, in lines outside test modules.
pub(crate) const MAX_FILE_LINES: usize = 650;

/// Top-level modules with their rank: a module uses modules of a lower rank, and itself. Other equals may not use one
/// another, save in `ONE_RANK`.
pub(crate) const LAYERS: &[(&str, u8)] = &[
    ("cli", 6),
    ("admin", 5),
    ("supervisor", 4),
    ("link", 2),
    ("vault", 2),
    ("book", 2),
    ("brontide", 1),
    ("wire", 1),
    ("signer", 1),
    ("secret", 0),
    ("limits", 0),
    ("node_id", 0),
    ("network", 0),
    ("error", 0),
    ("routable", 0),
    ("address", 0),
    ("hex", 0),
    ("private", 0),
];

/// Ranks whose modules may use one another: the foundation, and a link with the vault that holds its secrets.
const ONE_RANK: [u8; 2] = [0, 2];

/// Modules that anyone may use, with the rank that they have when they use others. An event names the vocabulary of
/// whoever emits it, the supervisor included.
pub(crate) const FOR_ANYONE: &[(&str, u8)] = &[("telemetry", 5), ("clock", 1)];

/// Crates that act on the world: a pure module names none of them.
const ACTING_CRATES: &[&str] = &[
    "tokio",
    "getrandom",
    "rand",
    "socket2",
    "rustix",
    "axum",
    "ureq",
    "h2",
    "tonic",
    "tokio_rustls",
    "rusqlite",
];

/// The pure files that a top-level module must have: without them a rule about purity would pass by having nothing to
/// look at.
pub(crate) const PURE_FILES: &[(&str, &str)] = &[
    ("limits", "src/limits.rs"),
    ("secret", "src/secret.rs"),
    ("node_id", "src/node_id.rs"),
    ("brontide", "src/brontide/handshake.rs"),
    ("wire", "src/wire/mod.rs"),
    ("link", "src/link/machine.rs"),
    ("link", "src/link/firewall.rs"),
    ("link", "src/link/places.rs"),
    ("network", "src/network.rs"),
    ("address", "src/address.rs"),
    ("supervisor", "src/supervisor/machine.rs"),
    ("supervisor", "src/supervisor/conduct.rs"),
    ("supervisor", "src/supervisor/guests.rs"),
    ("supervisor", "src/supervisor/peers.rs"),
    ("supervisor", "src/supervisor/deadlines.rs"),
    ("book", "src/book/import.rs"),
    ("cli", "src/cli/top/model.rs"),
    ("cli", "src/cli/top/look.rs"),
    ("cli", "src/cli/top/lane.rs"),
    ("signer", "src/signer/gateway/budget.rs"),
    ("signer", "src/signer/gateway/queue.rs"),
    ("signer", "src/signer/gateway/seat.rs"),
    ("signer", "src/signer/gateway/terms.rs"),
];

/// One source file, lexed, with the tokens of its test code marked.
pub(crate) struct File<'a> {
    /// From the crate's root, with `/`.
    pub(crate) path: &'a str,
    source: &'a str,
    tokens: Vec<Token<'a>>,
    in_test: Vec<bool>,
}

impl<'a> File<'a> {
    pub(crate) fn new(path: &'a str, source: &'a str) -> Self {
        let tokens = lex(source);
        let in_test = mark_tests(&tokens);
        Self {
            path,
            source,
            tokens,
            in_test,
        }
    }

    fn say(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    fn in_src(&self) -> bool {
        self.path.starts_with("src/")
    }

    /// A file that is a test module of its own (`#[cfg(test)] mod tests;` elsewhere).
    fn is_test_file(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    pub(crate) fn is_pure(&self) -> bool {
        let path = self.path;
        self.in_src()
            && !self.is_test_file()
            && (path.starts_with("src/brontide")
                || path.starts_with("src/wire")
                || path.starts_with("src/limits")
                || path.ends_with("/machine.rs")
                || PURE_FILES.iter().any(|(_, pure)| *pure == path))
    }

    /// Tokens outside test code, with their place.
    fn live(&self) -> impl Iterator<Item = (usize, &Token<'a>)> {
        let whole = self.is_test_file();
        self.tokens
            .iter()
            .enumerate()
            .filter(move |(at, _)| !whole && !self.in_test[*at])
    }

    fn at_is(&self, at: usize, text: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is(text))
    }

    /// The module path of this file below the crate's root; empty for the roots themselves.
    fn module_path(&self) -> Vec<&'a str> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        inner
            .split('/')
            .filter(|part| !matches!(*part, "lib" | "main" | "mod"))
            .collect()
    }
}

/// Every rule, on one file.
pub(crate) fn check(file: &File<'_>) -> Vec<String> {
    let rules = [
        opens_with_docs,
        no_async_when_pure,
        denies_lints_when_pure,
        no_acting_crate_when_pure,
        no_unsafe,
        roots_forbid_unsafe,
        short_enough,
        short_functions,
        exits_only_in_main,
        nothing_left_to_do,
        layers_point_down,
    ];
    rules.iter().flat_map(|rule| rule(file)).collect()
}

pub(crate) fn opens_with_docs(file: &File<'_>) -> Vec<String> {
    let opens = file
        .source
        .lines()
        .find(|line| !line.trim().is_empty())
        .is_some_and(|line| line.starts_with("//! "));
    if opens {
        Vec::new()
    } else {
        vec![file.say(1, "does not open with `//!` docs")]
    }
}

/// No `async` and no `.await` in a pure file, not even in its tests: a test that needs them tests a driver.
pub(crate) fn no_async_when_pure(file: &File<'_>) -> Vec<String> {
    let guilty = |token: &&Token<'_>| token.is("async") || token.is("await");
    let tokens = file.tokens.iter().filter(|_| file.is_pure()).filter(guilty);
    tokens
        .map(|token| file.say(token.line, &format!("`{}` in a pure module", token.text)))
        .collect()
}

/// A pure file denies the two lints that `.clippy.toml` fills, and nothing in it takes that back.
pub(crate) fn denies_lints_when_pure(file: &File<'_>) -> Vec<String> {
    if !file.is_pure() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for lint in ["disallowed_methods", "disallowed_types"] {
        let mut denied = false;
        for (at, token) in file.live().filter(|(_, token)| token.is(lint)) {
            match lint_level(file, at) {
                Some(("deny" | "forbid", inner)) => denied |= inner,
                _ => found.push(file.say(
                    token.line,
                    &format!("`clippy::{lint}` is loosened in a pure module"),
                )),
            }
        }
        if !denied {
            found.push(file.say(
                1,
                &format!("a pure module without `#![deny(clippy::{lint})]`"),
            ));
        }
    }
    found
}

/// The level (`deny`, `allow` …) of the attribute that the token at `at` is in, and whether it is an inner one (`#!`).
fn lint_level<'a>(file: &File<'a>, at: usize) -> Option<(&'a str, bool)> {
    let open = (0..at)
        .rev()
        .find(|i| file.at_is(*i, "(") || file.at_is(*i, "]"))?;
    let level = file.tokens.get(open.checked_sub(1)?)?.text;
    let inner = open >= 4
        && file.at_is(open - 2, "[")
        && file.at_is(open - 3, "!")
        && file.at_is(open - 4, "#");
    file.at_is(open, "(").then_some((level, inner))
}

pub(crate) fn no_acting_crate_when_pure(file: &File<'_>) -> Vec<String> {
    if !file.is_pure() {
        return Vec::new();
    }
    let guilty = paths(file).into_iter().filter(|path| {
        path.segments.len() > 1 && ACTING_CRATES.contains(&path.segments[0]) && !path.in_test
    });
    guilty
        .map(|path| {
            file.say(
                path.line,
                &format!("a pure module uses `{}`", path.segments.join("::")),
            )
        })
        .collect()
}

pub(crate) fn no_unsafe(file: &File<'_>) -> Vec<String> {
    let tokens = file
        .tokens
        .iter()
        .filter(|token| file.in_src() && token.is("unsafe"));
    tokens
        .map(|token| file.say(token.line, "`unsafe`"))
        .collect()
}

pub(crate) fn roots_forbid_unsafe(file: &File<'_>) -> Vec<String> {
    let root = matches!(file.path, "src/lib.rs" | "src/main.rs");
    let forbids = file.tokens.iter().enumerate().any(|(at, token)| {
        token.is("unsafe_code") && lint_level(file, at) == Some(("forbid", true))
    });
    if root && !forbids {
        vec![file.say(1, "a crate's root without `#![forbid(unsafe_code)]`")]
    } else {
        Vec::new()
    }
}

/// Length without test modules.
pub(crate) fn short_enough(file: &File<'_>) -> Vec<String> {
    let mut test_lines: Vec<usize> = Vec::new();
    for run in test_runs(&file.in_test) {
        let (first, last) = (file.tokens[run.start].line, file.tokens[run.end - 1].line);
        test_lines.extend(first..=last);
    }
    test_lines.dedup();
    let lines = file.source.lines().count() - test_lines.len();
    let too_long = file.in_src() && !file.is_test_file() && lines > MAX_FILE_LINES;
    if too_long {
        vec![file.say(
            1,
            &format!("{lines} lines without tests, {MAX_FILE_LINES} at most"),
        )]
    } else {
        Vec::new()
    }
}

/// Nobody reads or edits generated code: what it is made from is ours, and a test makes it again.
const GENERATED: &str = "src/signer/gateway/watchonlyrpc.rs";

pub(crate) fn short_functions(file: &File<'_>) -> Vec<String> {
    if file.path == GENERATED {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, token) in file
        .tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| file.in_src() && token.is("fn"))
    {
        let Some(name) = file.tokens.get(at + 1).filter(|next| next.is_ident()) else {
            continue;
        };
        let end = item_end(&file.tokens, at);
        let lines = file
            .tokens
            .get(end)
            .map_or(0, |last| last.line - token.line + 1);
        if lines > MAX_FUNCTION_LINES {
            found.push(file.say(
                token.line,
                &format!(
                    "fn {} has {lines} lines, {MAX_FUNCTION_LINES} at most",
                    name.text
                ),
            ));
        }
    }
    found
}

/// Only the binary's root ends the process.
pub(crate) fn exits_only_in_main(file: &File<'_>) -> Vec<String> {
    if !file.in_src() || file.path == "src/main.rs" {
        return Vec::new();
    }
    let ends = |path: &Path<'_>| {
        matches!(
            path.segments.as_slice(),
            [.., "process", "exit" | "abort" | "*"]
        )
    };
    paths(file)
        .iter()
        .filter(|path| ends(path))
        .map(|path| {
            file.say(
                path.line,
                &format!("`{}` outside main.rs", path.segments.join("::")),
            )
        })
        .collect()
}

pub(crate) fn nothing_left_to_do(file: &File<'_>) -> Vec<String> {
    let unfinished = |at: usize, token: &Token<'_>| {
        (token.is("todo") || token.is("unimplemented")) && file.at_is(at + 1, "!")
    };
    let tokens = file
        .tokens
        .iter()
        .enumerate()
        .filter(|(at, token)| unfinished(*at, token));
    tokens
        .map(|(_, token)| file.say(token.line, &format!("`{}!`", token.text)))
        .collect()
}

/// Dependencies point one way. Paths that begin with `crate` or climb out with `super` are judged, in `use` or not; so
/// is what the library's root declares, since a module without a rank would escape.
pub(crate) fn layers_point_down(file: &File<'_>) -> Vec<String> {
    if !file.in_src() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let own = match file.path {
        "src/lib.rs" => return unranked_modules(file),
        "src/main.rs" => {
            let others = paths(file).into_iter().filter(|path| matches!(path.segments.as_slice(), ["pilotlight", next, ..] if *next != "cli"));
            return others
                .map(|path| {
                    file.say(
                        path.line,
                        "main.rs calls `pilotlight::cli` and nothing else",
                    )
                })
                .collect();
        }
        _ => file.module_path()[0],
    };
    for path in paths(file).into_iter().filter(|path| !path.in_test) {
        let Some(target) = top_module(file, &path) else {
            continue;
        };
        if let Err(why) = may_use(own, target) {
            found.push(file.say(path.line, &why));
        }
    }
    found
}

fn rank(module: &str) -> Option<u8> {
    LAYERS
        .iter()
        .chain(FOR_ANYONE)
        .find(|(name, _)| *name == module)
        .map(|(_, rank)| *rank)
}

fn may_use(own: &str, target: &str) -> Result<(), String> {
    if own == target || FOR_ANYONE.iter().any(|(name, _)| *name == target) {
        return Ok(());
    }
    let unknown = |module: &str| {
        format!(
            "`crate::{module}` is no module with a rank: name the module that an item lives in, or rank it in LAYERS"
        )
    };
    let from = rank(own).ok_or_else(|| unknown(own))?;
    let to = rank(target).ok_or_else(|| unknown(target))?;
    if to < from || (to == from && ONE_RANK.contains(&to)) {
        Ok(())
    } else {
        Err(format!("`{own}` (rank {from}) uses `{target}` (rank {to})"))
    }
}

/// The top-level module that a path names, if it starts at the crate's root or leaves this file's own module.
fn top_module<'a>(file: &File<'a>, path: &Path<'a>) -> Option<&'a str> {
    if path.segments[0] == "crate" {
        return path.segments.get(1).copied();
    }
    let climbs = path
        .segments
        .iter()
        .take_while(|segment| **segment == "super")
        .count();
    let depth = file.module_path().len() + path.inline_depth;
    if climbs > 0 && climbs >= depth {
        path.segments.get(climbs).copied()
    } else {
        None
    }
}

fn unranked_modules(file: &File<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for module in declared_modules(file) {
        if rank(module).is_none() {
            found.push(file.say(1, &format!("module `{module}` has no rank in LAYERS")));
        }
    }
    found
}

/// The modules that a file declares as files (`mod name;`), outside test code.
pub(crate) fn declared_modules<'a>(file: &File<'a>) -> Vec<&'a str> {
    file.live()
        .filter(|(at, token)| token.is("mod") && file.at_is(at + 2, ";"))
        .filter_map(|(at, _)| file.tokens.get(at + 1))
        .map(|name| name.text)
        .collect()
}

/// A path as written, groups in a `use` spread out: `std::{process::exit, fs}` is two.
struct Path<'a> {
    segments: Vec<&'a str>,
    line: usize,
    in_test: bool,
    /// How many inline modules enclose it.
    inline_depth: usize,
}

fn paths<'a>(file: &File<'a>) -> Vec<Path<'a>> {
    let mut found = Vec::new();
    let (mut at, mut braces, mut modules) = (0, 0_usize, Vec::new());
    while let Some(token) = file.tokens.get(at) {
        if token.is("{") {
            braces += 1;
            if at >= 2 && file.at_is(at - 2, "mod") {
                modules.push(braces);
            }
        } else if token.is("}") {
            if modules.last() == Some(&braces) {
                modules.pop();
            }
            braces = braces.saturating_sub(1);
        } else if token.is_ident() {
            let mut spread = Vec::new();
            let end = path_at(&file.tokens, at, &mut Vec::new(), &mut spread);
            let in_test = file.in_test[at] || file.is_test_file();
            found.extend(spread.into_iter().map(|(segments, line)| Path {
                segments,
                line,
                in_test,
                inline_depth: modules.len(),
            }));
            at = end;
            continue;
        }
        at += 1;
    }
    found
}

/// Reads the path at `at` below `prefix`, pushes what it spreads to, and returns the place behind it.
fn path_at<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    prefix: &mut Vec<&'a str>,
    out: &mut Vec<(Vec<&'a str>, usize)>,
) -> usize {
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.is(text));
    let depth = prefix.len();
    let line = tokens.get(at).map_or(0, |token| token.line);
    loop {
        match tokens.get(at) {
            Some(token) if token.is_ident() || (token.is("*") && depth > 0) => {
                prefix.push(token.text);
            }
            Some(token) if token.is("*") => prefix.push("*"),
            Some(token) if token.is("{") => {
                at += 1;
                while at < tokens.len() && !is(at, "}") {
                    let before = at;
                    at = path_at(tokens, at, prefix, out);
                    if is(at, "as") {
                        at += 2;
                    }
                    if at == before || is(at, ",") {
                        at += 1;
                    }
                }
                prefix.truncate(depth);
                return at + 1;
            }
            _ => break,
        }
        at += 1;
        let goes_on = is(at, ":")
            && is(at + 1, ":")
            && tokens
                .get(at + 2)
                .is_some_and(|next| next.is_ident() || next.is("{") || next.is("*"));
        if !goes_on {
            break;
        }
        at += 2;
    }
    if prefix.len() > depth {
        out.push((prefix.clone(), line));
    }
    prefix.truncate(depth);
    at
}

/// The place of the token that ends the item starting at `from`: its `;`, or the brace that closes its body.
fn item_end(tokens: &[Token<'_>], from: usize) -> usize {
    let (mut braces, mut nested) = (0_usize, 0_usize);
    for (at, token) in tokens.iter().enumerate().skip(from) {
        if token.is("(") || token.is("[") {
            nested += 1;
        } else if token.is(")") || token.is("]") {
            nested = nested.saturating_sub(1);
        } else if token.is("{") {
            braces += 1;
        } else if token.is("}") {
            braces = braces.saturating_sub(1);
            if braces == 0 && nested == 0 {
                return at;
            }
        } else if token.is(";") && braces == 0 && nested == 0 {
            return at;
        }
    }
    tokens.len().saturating_sub(1)
}

/// Marks the items under `#[cfg(test)]` (or `all(test, …)`), attributes included.
fn mark_tests(tokens: &[Token<'_>]) -> Vec<bool> {
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.is(text));
    let mut marks = vec![false; tokens.len()];
    let mut at = 0;
    while at < tokens.len() {
        if !(is(at, "#") && is(at + 1, "[") && is(at + 2, "cfg")) {
            at += 1;
            continue;
        }
        let close = bracket_end(tokens, at + 1);
        let inside = &tokens[at..close];
        if !inside.iter().any(|token| token.is("test"))
            || inside
                .iter()
                .any(|token| token.is("not") || token.is("any"))
        {
            at = close;
            continue;
        }
        let mut item = close + 1;
        while is(item, "#") && is(item + 1, "[") {
            item = bracket_end(tokens, item + 1) + 1;
        }
        let end = item_end(tokens, item);
        marks[at..=end.min(tokens.len() - 1)].fill(true);
        at = end + 1;
    }
    marks
}

/// The place of the `]` that closes the `[` at `open`.
fn bracket_end(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if token.is("[") {
            depth += 1;
        } else if token.is("]") {
            depth -= 1;
            if depth == 0 {
                return at;
            }
        }
    }
    tokens.len() - 1
}

/// The runs of marked tokens.
fn test_runs(marks: &[bool]) -> Vec<std::ops::Range<usize>> {
    let mut runs = Vec::new();
    let mut start = None;
    for (at, marked) in marks.iter().chain([&false]).enumerate() {
        match (start, marked) {
            (None, true) => start = Some(at),
            (Some(first), false) => {
                runs.push(first..at);
                start = None;
            }
            _ => {}
        }
    }
    runs
}
