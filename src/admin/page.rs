//! The status page: what a person sees of the daemon in a browser. Its files are part of the binary and need no token; what they show
//! is asked for with one, by the page itself.
//!
//! The page's address may carry the token after a `#`, which no browser sends to anybody. The policy below lets the page load nothing
//! but its own files and speak to nobody but this daemon, and no other page may frame it.

use axum::http::header::{self, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

const HTML: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/status.css");
const PICTURE: &str = include_str!("page/picture.js");
const SCRIPT: &str = include_str!("page/status.js");

/// What a report has of its own stands before it.
const PICTURE_BEGINS: &str = "  <section class=\"card picture";

/// No inline script or style, no HTML made from text, no other origin; an icon is the only `data:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

pub(super) async fn html() -> Response {
    file("text/html; charset=utf-8", HTML)
}

pub(super) async fn style() -> Response {
    file("text/css; charset=utf-8", STYLE)
}

pub(super) async fn picture() -> Response {
    file("text/javascript; charset=utf-8", PICTURE)
}

pub(super) async fn script() -> Response {
    file("text/javascript; charset=utf-8", SCRIPT)
}

fn file(kind: &'static str, content: &'static str) -> Response {
    let headers: [(HeaderName, &'static str); 4] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ];
    let mut response = content.into_response();
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The page as one file that shows a recording and speaks to nobody: `{"title", "version", "node_id", "from", "until", "info", "peers",
/// "events"}`, with `peers` and `events` as `/v1/peers` and `/v1/events` have them, and times in Unix seconds. `section` is HTML that
/// stands above the picture: what in it comes from elsewhere must be escaped.
pub fn recorded(recording: &serde_json::Value, section: &str) -> String {
    // In a script element only `<` can end the data: JSON may write it otherwise.
    let data = recording.to_string().replace('<', "\\u003c");
    let [style, picture, script] = [STYLE, PICTURE, SCRIPT].map(|content| format!("\n{content}"));
    // Nothing but what is in the file now may run in it or dress it.
    let policy = format!(
        "default-src 'none'; script-src {} {}; style-src {}; img-src data:; base-uri 'none'; form-action 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        source(&picture),
        source(&script),
        source(&style)
    );
    let head = format!(
        "<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">"
    );
    // A script that is in the page runs where it stands: at its end, when what it draws on is there.
    let scripts = format!(
        "<script type=\"application/json\" id=\"recording\">{data}</script>\n<script>{picture}</script>\n<script>{script}</script>\n</body>"
    );
    HTML.replacen("<meta charset=\"utf-8\">", &head, 1)
        .replacen("<script src=\"picture.js\" defer></script>\n", "", 1)
        .replacen("<script src=\"status.js\" defer></script>\n", "", 1)
        .replacen(
            "<link rel=\"stylesheet\" href=\"status.css\">",
            &format!("<style>{style}</style>"),
            1,
        )
        .replacen("</body>", &scripts, 1)
        .replacen(PICTURE_BEGINS, &format!("{section}{PICTURE_BEGINS}"), 1)
}

/// An inline script or style by its hash, as a policy names it (CSP 3 § Source lists).
fn source(content: &str) -> String {
    format!("'sha256-{}'", base64(&Sha256::digest(content)))
}

/// RFC 4648 § 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let three = chunk
            .iter()
            .fold(0_usize, |all, byte| all << 8 | usize::from(*byte));
        let three = three << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS
                .get(three >> (18 - 6 * place) & 63)
                .filter(|_| place <= chunk.len());
            text.push(digit.map_or('=', |digit| char::from(*digit)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page_loads_only_files_that_there_are() {
        let loads = |attribute: &str| -> Vec<&str> {
            let found = HTML.split(attribute).skip(1);
            found.filter_map(|rest| rest.split('"').nth(1)).collect()
        };
        assert_eq!(loads(" src="), ["picture.js", "status.js"]);
        assert_eq!(loads(" href="), ["data:,", "status.css", "#main"]);
        for part in [" style=", " onclick=", " onload=", "<script>", "<style"] {
            assert!(!HTML.contains(part), "{part} is against the policy");
        }
    }

    #[test]
    fn a_recording_is_one_file_whose_data_cannot_end_early() {
        let page = recorded(
            &json!({ "title": "</script><script>alert(1)</script>" }),
            "  <p>above</p>\n",
        );
        assert_eq!(page.matches("<script").count(), 3);
        assert!(!page.contains("alert(1)</script>") && page.contains("\\u003c/script>"));
        for part in ["src=\"", "href=\"status.css\""] {
            assert!(!page.contains(part), "{part} would need another file");
        }
        assert!(page.contains(PICTURE) && page.contains(SCRIPT) && page.contains(STYLE));
        assert!(page.contains(&format!("  <p>above</p>\n{PICTURE_BEGINS}")));
    }

    #[test]
    fn the_policy_of_a_recording_names_every_script_and_style_in_it_by_its_hash() {
        let page = recorded(&json!({}), "");
        assert!(!page.contains("unsafe-inline"));
        for (tag, count) in [("script", 2), ("style", 1)] {
            let (opening, closing) = (format!("<{tag}>"), format!("</{tag}>"));
            let inline = page.split(&opening).skip(1);
            let inline: Vec<&str> = inline
                .filter_map(|rest| rest.split(&closing).next())
                .collect();
            assert_eq!(inline.len(), count, "{tag}");
            for content in inline {
                assert!(page.contains(&source(content)), "the policy lacks a {tag}");
            }
        }
    }

    #[test]
    fn the_picture_has_a_word_and_a_colour_for_every_state_and_reason_of_the_daemon() {
        use crate::signer::LapseReason;
        use crate::supervisor::PeerState;
        let (states, _) = PICTURE
            .split_once("const STATES = {")
            .and_then(|(_, rest)| rest.split_once("};"))
            .unwrap_or_default();
        // An idle peer is drawn as down, and one that is up by what its link is.
        let others = [PeerState::Idle, PeerState::Up];
        for state in PeerState::ALL {
            let name = state.as_str();
            if others.contains(&state) {
                continue;
            }
            assert!(
                states.contains(&format!("\n    {name}: {{ word: ")),
                "{name}"
            );
            let colours = STYLE.matches(&format!("--lane-{name}: ")).count();
            assert_eq!(colours, 2, "{name}: one in the light and one in the dark");
        }
        let (_, reasons) = PICTURE.split_once("const REASONS = {").unwrap_or_default();
        let (reasons, _) = reasons.split_once("};").unwrap_or_default();
        for reason in LapseReason::ALL {
            let name = format!(" {}: '", reason.as_str());
            assert!(reasons.contains(&name), "{name}");
        }
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (given, shown) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(given.as_bytes()), shown);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
        let empty = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='";
        assert_eq!(source(""), empty, "sha256sum of nothing");
    }
}
