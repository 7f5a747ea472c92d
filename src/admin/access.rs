//! Who may ask what: the Host allow-list, the ban on other sites' pages and on tokens in queries, and the bearer tokens.
//!
//! The Host check keeps a web page from reaching the daemon through a name that it has made resolve to loopback; the check of `Origin`
//! and `Sec-Fetch-Site`, which browsers send and pages cannot forge, keeps it from doing so openly. No answer ever allows another origin
//! to read it. Tokens are compared in constant time, and a query is never looked at for one.

use super::data_dir::Token;
use super::error::Problem;
use super::server::Admin;
use crate::limits;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;

/// The two tokens of a daemon.
pub(super) struct Tokens {
    pub(super) read_only: Token,
    pub(super) admin: Token,
}

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// `readonly.token` or `admin.token`.
    Read,
    /// `admin.token`.
    Change,
    /// As `Read`, unless the daemon is told to leave health and metrics open.
    Scrape,
}

/// An answer that is not a success.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) problem: Problem,
}

impl Refusal {
    pub(super) fn new(
        status: StatusCode,
        what: impl Into<String>,
        place: impl Into<String>,
        to_do: impl Into<String>,
    ) -> Self {
        Self {
            status,
            problem: Problem::new(what, place, to_do),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = axum::Json(serde_json::json!({ "error": self.problem }));
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The outermost layer: every request, known path or not. Checks Host and query, bounds the time, marks every answer as not to be
/// stored.
pub(super) async fn guard(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    let checked = check_host(&admin.hosts, request.uri(), request.headers())
        .and_then(|()| check_site(request.method(), request.headers()))
        .and_then(|()| check_query(request.uri()));
    let mut response = match checked {
        Ok(()) => {
            match tokio::time::timeout(limits::ADMIN_REQUEST_DEADLINE, next.run(request)).await {
                Ok(response) => response,
                Err(_) => Refusal::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    format!(
                        "no answer within {} s",
                        limits::ADMIN_REQUEST_DEADLINE.as_secs()
                    ),
                    path,
                    "try again; what was asked may still be done",
                )
                .into_response(),
            }
        }
        Err(refusal) => refusal.into_response(),
    };
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        let headers = response.headers_mut();
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Says of an answer that who asked has shown a token: its connection is left alone until the answer has been read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown;

/// The layer of routes that need a token.
pub(super) async fn authorise(
    State((admin, needs)): State<(Arc<Admin>, Needs)>,
    request: Request,
    next: Next,
) -> Response {
    let open = needs == Needs::Scrape && admin.scrape_is_open;
    if open {
        return next.run(request).await;
    }
    match check_token(&admin.tokens, needs, request.headers()) {
        Ok(()) => {
            let mut response = next.run(request).await;
            response.extensions_mut().insert(Shown);
            response
        }
        Err(refusal) => refusal.into_response(),
    }
}

fn check_token(tokens: &Tokens, needs: Needs, headers: &HeaderMap) -> Result<(), Refusal> {
    let file = if needs == Needs::Change {
        "admin.token"
    } else {
        "readonly.token or admin.token"
    };
    let unauthorised = |what: &str| {
        let to_do = format!(
            "send `Authorization: Bearer …` with the content of {file} from the data directory"
        );
        Refusal::new(
            StatusCode::UNAUTHORIZED,
            what,
            "header Authorization",
            to_do,
        )
    };
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(unauthorised("a token is needed"));
    };
    let presented = bearer(value.as_bytes())
        .ok_or_else(|| unauthorised("the header presents no bearer token"))?;
    // Both are compared whatever the first says.
    let (reads, changes) = (
        tokens.read_only.matches(presented),
        tokens.admin.matches(presented),
    );
    match (reads, changes) {
        (_, true) => Ok(()),
        (true, false) if needs != Needs::Change => Ok(()),
        (true, false) => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "this token may only read",
            "header Authorization",
            "use the content of admin.token from the data directory",
        )),
        (false, false) => Err(unauthorised("the token is wrong")),
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// Names under which the daemon may be addressed: loopback's, the bound address, and what the operator adds.
pub(super) fn allowed_hosts(bound: IpAddr, extra: &[String]) -> Vec<String> {
    let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "::1"]
        .map(str::to_owned)
        .to_vec();
    if !bound.is_unspecified() {
        hosts.push(bound.to_string());
    }
    hosts.extend(extra.iter().filter_map(|host| host_of(host)));
    hosts
}

fn check_host(allowed: &[String], uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let misdirected = |host: &str| {
        Refusal::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!("this daemon is not {host:?}"),
            "header Host",
            "use the address that the daemon listens on, or add the name to admin_hosts in its configuration",
        )
    };
    let mut values = headers.get_all(header::HOST).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(misdirected(""));
    };
    // The request line may carry a host too (RFC 9112 § 3.2.2); then both must be right.
    for text in [
        value.to_str().ok(),
        uri.authority()
            .map_or(value.to_str().ok(), |authority| Some(authority.as_str())),
    ] {
        let host = text.and_then(host_of).unwrap_or_default();
        if !allowed.contains(&host) {
            return Err(misdirected(&host.chars().take(80).collect::<String>()));
        }
    }
    Ok(())
}

/// The host without its port, in lower case, an IPv6 address without brackets.
fn host_of(text: &str) -> Option<String> {
    let text = text.trim();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => match text.find(':') {
            Some(colon) if !text.contains("::") => text.split_at_checked(colon)?,
            _ => (text, ""),
        },
    };
    let digits = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    (digits && !host.is_empty()).then_some(host)
}

/// Refuses what a page of another origin has a browser send, but for a link to the status page that somebody follows. Whoever is no
/// browser sends neither header.
fn check_site(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    let refused = |header: &str| {
        Refusal::new(
            StatusCode::FORBIDDEN,
            "a page of another site asks for this",
            header,
            "open the daemon's own page; behind a proxy, have it pass Host on as it came",
        )
    };
    let said = |name: &str| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
            (Some(_), Some(_)) => Err(()),
        }
    };
    if let Some(origin) = said("origin").map_err(|()| refused("header Origin"))? {
        let host = said("host").ok().flatten().unwrap_or_default();
        if !is_of(origin, host) {
            return Err(refused("header Origin"));
        }
    }
    let site = said("sec-fetch-site").map_err(|()| refused("header Sec-Fetch-Site"))?;
    let follows_a_link = *method == Method::GET
        && said("sec-fetch-mode") == Ok(Some("navigate"))
        && said("sec-fetch-dest") == Ok(Some("document"));
    match site {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) if follows_a_link => Ok(()),
        Some(_) => Err(refused("header Sec-Fetch-Site")),
    }
}

/// Whether an origin is that of a page at this host. TLS may end in front of the daemon, so either scheme will do; a port that is the
/// scheme's own may be left out.
fn is_of(origin: &str, host: &str) -> bool {
    let (of, own_port) = match origin.split_once("://") {
        Some(("http", of)) => (of, ":80"),
        Some(("https", of)) => (of, ":443"),
        _ => return false,
    };
    let bare = |text: &str| {
        text.strip_suffix(own_port)
            .unwrap_or(text)
            .to_ascii_lowercase()
    };
    !of.is_empty() && bare(of) == bare(host)
}

/// A token in a URL ends up in histories and logs, so it is refused rather than ignored.
fn check_query(uri: &Uri) -> Result<(), Refusal> {
    let keys = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split('=').next());
    let secret = |key: &str| {
        let key = key.to_ascii_lowercase();
        ["token", "auth", "bearer", "key", "secret", "password"]
            .iter()
            .any(|word| key.contains(word))
    };
    if keys.into_iter().any(secret) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "a token is never taken from a URL",
            "the query",
            "send it as `Authorization: Bearer …`; if it was a real one, remove its file and start the daemon again",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn host_passes(host: &str) -> bool {
        let allowed = allowed_hosts("192.0.2.7".parse().unwrap(), &["Node.Lan:9736".to_owned()]);
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        check_host(&allowed, &"/v1/info".parse().unwrap(), &headers).is_ok()
    }

    #[test]
    fn only_known_hosts_pass() {
        for host in [
            "localhost",
            "LOCALHOST:9736",
            "localhost.",
            "127.0.0.1:1",
            "[::1]:9736",
            "[::1]",
            "192.0.2.7:9736",
            "node.lan",
        ] {
            assert!(host_passes(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io:9736",
            "[::2]",
            "localhost:x",
            "192.0.2.8",
            "[::1",
        ] {
            assert!(!host_passes(host), "{host}");
        }
    }

    #[test]
    fn a_request_without_host_or_with_two_is_refused() {
        let allowed = allowed_hosts("127.0.0.1".parse().unwrap(), &[]);
        let mut headers = HeaderMap::new();
        let uri = "/".parse().unwrap();
        assert!(check_host(&allowed, &uri, &headers).is_err());
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        assert!(check_host(&allowed, &uri, &headers).is_ok());
        assert!(
            check_host(&allowed, &"http://evil.example/".parse().unwrap(), &headers).is_err(),
            "the request line's host counts too"
        );
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        assert!(check_host(&allowed, &uri, &headers).is_err());
    }

    fn site_passes(method: &Method, sent: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost:9736"));
        for (name, value) in sent {
            headers.append(*name, HeaderValue::from_static(value));
        }
        check_site(method, &headers).is_ok()
    }

    #[test]
    fn only_the_daemons_own_pages_and_who_is_no_browser_may_ask() {
        let link = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        for method in [Method::GET, Method::POST, Method::DELETE] {
            for sent in [
                &[][..],
                &[
                    ("sec-fetch-site", "same-origin"),
                    ("origin", "http://localhost:9736"),
                ],
                &[("sec-fetch-site", "none")],
                &[("origin", "https://LOCALHOST:9736")],
            ] {
                assert!(site_passes(&method, sent), "{method} {sent:?}");
            }
            for sent in [
                &[("sec-fetch-site", "cross-site")][..],
                // Another port of the same machine.
                &[("sec-fetch-site", "same-site")],
                &[("origin", "http://localhost:3000")],
                &[("origin", "http://localhost")],
                &[("origin", "http://evil.example")],
                &[("origin", "null")],
                &[("origin", "")],
                &[("origin", "file://")],
                &[("origin", "http://")],
                &[
                    ("origin", "http://localhost:9736"),
                    ("origin", "http://localhost:9736"),
                ],
                &[
                    ("sec-fetch-site", "same-origin"),
                    ("origin", "http://evil.example"),
                ],
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "no-cors"),
                    ("sec-fetch-dest", "image"),
                ],
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "iframe"),
                ],
            ] {
                assert!(!site_passes(&method, sent), "{method} {sent:?}");
            }
        }
        assert!(site_passes(&Method::GET, &link));
        assert!(!site_passes(&Method::POST, &link), "a form of another site");
    }

    #[test]
    fn an_origin_may_leave_out_the_port_of_its_scheme_only() {
        assert!(is_of("http://node.lan", "node.lan:80") && is_of("https://node.lan", "node.lan"));
        assert!(
            is_of("https://node.lan:443", "node.lan") && is_of("http://[::1]:9736", "[::1]:9736")
        );
        assert!(
            !is_of("http://node.lan", "node.lan:443") && !is_of("http://node.lan.evil", "node.lan")
        );
    }

    #[test]
    fn a_query_that_looks_like_a_token_is_refused() {
        for query in [
            "/?token=1",
            "/?a=1&access_token=2",
            "/?Authorization=x",
            "/?api-key",
        ] {
            assert_eq!(
                check_query(&query.parse().unwrap()).unwrap_err().status,
                StatusCode::BAD_REQUEST,
                "{query}"
            );
        }
        assert!(check_query(&"/?since=1".parse().unwrap()).is_ok());
    }

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b"Bear"), None);
    }
}
