//! Just enough of a Rust lexer to tell code from comments and strings, so that a rule about code is not tripped, or
//! dodged, by prose. It never fails: what it does not know becomes a punctuation token.

/// What a token is, as far as a rule cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier or keyword; a raw identifier keeps its `r#`.
    Ident,
    /// One character of punctuation.
    Punct,
    /// A string, character or number; its text is never looked at.
    Literal,
    /// A lifetime or a loop's label.
    Lifetime,
}

/// One token, with the line that it starts on (from 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

impl Token<'_> {
    pub(crate) fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Ident | Kind::Punct) && self.text == text
    }

    pub(crate) fn is_ident(&self) -> bool {
        self.kind == Kind::Ident
    }
}

/// The tokens of `source`, comments and white space left out.
pub(crate) fn lex(source: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer {
        source,
        at: 0,
        line: 1,
        tokens: Vec::new(),
    };
    while lexer.step() {}
    lexer.tokens
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
    tokens: Vec<Token<'a>>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.rest().chars().nth(ahead)
    }

    /// Moves past `length` bytes, as a token if `kind` says so.
    fn take(&mut self, length: usize, kind: Option<Kind>) {
        let text = &self.rest()[..length];
        if let Some(kind) = kind {
            self.tokens.push(Token {
                kind,
                text,
                line: self.line,
            });
        }
        self.line += text.matches('\n').count();
        self.at += length;
    }

    fn step(&mut self) -> bool {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return false;
        };
        if first.is_whitespace() {
            self.take(first.len_utf8(), None);
        } else if rest.starts_with("//") {
            self.take(rest.find('\n').unwrap_or(rest.len()), None);
        } else if rest.starts_with("/*") {
            self.take(block_comment(rest), None);
        } else if let Some(length) = prefixed_literal(rest) {
            self.take(length, Some(Kind::Literal));
        } else if first == '"' {
            self.take(quoted(rest, '"'), Some(Kind::Literal));
        } else if first == '\'' {
            self.quote();
        } else if first.is_ascii_digit() {
            self.take(number(rest), Some(Kind::Literal));
        } else if first.is_alphabetic() || first == '_' {
            let raw = if rest.starts_with("r#") { 2 } else { 0 };
            self.take(raw + word(&rest[raw..]), Some(Kind::Ident));
        } else {
            self.take(first.len_utf8(), Some(Kind::Punct));
        }
        true
    }

    /// A character or a lifetime: `'a'` has its closing quote right after one character, `'a` has none.
    fn quote(&mut self) {
        let rest = self.rest();
        if self.peek(1) == Some('\\') || self.peek(2) == Some('\'') {
            self.take(quoted(rest, '\''), Some(Kind::Literal));
        } else {
            self.take(1 + word(&rest[1..]), Some(Kind::Lifetime));
        }
    }
}

fn word(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(text.len())
}

/// A number's length. A point belongs to it only before a digit, so that `0..9` stays a range.
fn number(text: &str) -> usize {
    let mut length = word(text);
    let mut after = text[length..].chars();
    if after.next() == Some('.') && after.next().is_some_and(|c| c.is_ascii_digit()) {
        length += 1 + word(&text[length + 1..]);
    }
    length
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0_usize);
    while let Some(next) = text[at..].find(['/', '*']) {
        at += next;
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of a literal that opens and closes with `quote`, escapes minded.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// `b"…"`, `c"…"`, `b'…'` and the raw strings `r"…"`, `r#"…"#`, `br…`, `cr…`.
fn prefixed_literal(text: &str) -> Option<usize> {
    let prefix = text.find(|c| !matches!(c, 'b' | 'c' | 'r'))?;
    if prefix == 0 || prefix > 2 {
        return None;
    }
    let body = &text[prefix..];
    if !text[..prefix].ends_with('r') {
        let quote = body
            .chars()
            .next()
            .filter(|c| *c == '"' || (*c == '\'' && text.starts_with('b')))?;
        return Some(prefix + quoted(body, quote));
    }
    let hashes = body.find(|c| c != '#')?;
    if !body[hashes..].starts_with('"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let opened = hashes + 1;
    let end = body[opened..]
        .find(&close)
        .map_or(body.len(), |at| opened + at + close.len());
    Some(prefix + end)
}

#[test]
fn comments_and_strings_are_not_code() {
    let source = r##"
        // async one
        /* async /* two */ async */
        let a = "async \" three"; let b = r#"async " four"#; let c = b"async"; let d = '"'; let e = '\'';
        let f: &'static str = br"async"; let g = c"async"; let h = b'"'; fn live() { async {} }
    "##;
    let found: Vec<_> = lex(source)
        .into_iter()
        .filter(|token| token.is("async"))
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].line, 5);
}

#[test]
fn numbers_ranges_lifetimes_and_raw_identifiers() {
    let texts: Vec<_> = lex("0..9 1.5 0xff_u8 'a 'x' r#async brush")
        .into_iter()
        .map(|t| (t.kind, t.text))
        .collect();
    let expected = [
        (Kind::Literal, "0"),
        (Kind::Punct, "."),
        (Kind::Punct, "."),
        (Kind::Literal, "9"),
        (Kind::Literal, "1.5"),
        (Kind::Literal, "0xff_u8"),
        (Kind::Lifetime, "'a"),
        (Kind::Literal, "'x'"),
        (Kind::Ident, "r#async"),
        (Kind::Ident, "brush"),
    ];
    assert_eq!(texts, expected);
}

#[test]
fn unfinished_input_ends() {
    for source in [
        "\"open",
        "/* open",
        "r#\"open",
        "'",
        "b'",
        "\u{1f600}",
        "r#",
    ] {
        lex(source);
    }
}
