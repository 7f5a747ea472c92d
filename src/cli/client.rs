//! Talks to the running daemon: finds its address and the token in the data directory, and turns its answers into values.

use super::events::Events;
use super::failure::{Exit, Failure};
use crate::admin::{DataDir, Problem, TokenKind};
use crate::limits;
use serde_json::Value;
use std::io::BufReader;
use std::net::SocketAddr;
use std::time::Duration;
use ureq::http::Request;
use ureq::{Agent, Body};
use zeroize::Zeroizing;

/// The daemon is on this machine or near it.
const CONNECT: Duration = Duration::from_secs(3);
/// A little longer than the daemon itself allows, so that its own error arrives.
const ANSWER: Duration = limits::ADMIN_REQUEST_DEADLINE.saturating_add(Duration::from_secs(2));

/// What a stream is read from.
pub(super) type Stream = BufReader<ureq::BodyReader<'static>>;

/// A way to the daemon of one data directory.
#[derive(Clone)]
pub(super) struct Client {
    dir: DataDir,
}

impl Client {
    pub(super) fn new(dir: DataDir) -> Self {
        Self { dir }
    }

    /// Asks, with the token that reads.
    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.value("GET", path, None, TokenKind::ReadOnly)
    }

    /// Changes something, with the token that may.
    pub(super) fn change(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        self.value(method, path, body, TokenKind::Admin)
    }

    /// The event stream, which lasts as long as the daemon: what is kept after the event of that id, and what happens from now on.
    pub(super) fn events(&self, after: Option<&str>) -> Result<Events<Stream>, Failure> {
        let body = self.send("GET", "/v1/events", None, TokenKind::ReadOnly, None, after)?;
        Ok(Events::new(BufReader::new(body.into_reader())))
    }

    /// Changes something, and gives the answer as it comes, for as long as that takes.
    pub(super) fn changing(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<BufReader<ureq::BodyReader<'static>>, Failure> {
        let answer = self.send("POST", path, Some(body), TokenKind::Admin, None, None)?;
        Ok(BufReader::new(answer.into_reader()))
    }

    /// The address of the status page. The token is in its fragment, which browsers keep to themselves.
    pub(super) fn page_url(&self) -> Result<Zeroizing<String>, Failure> {
        let address = self.daemon()?;
        let bearer = self.dir.token(TokenKind::ReadOnly)?.bearer();
        let token = bearer.strip_prefix("Bearer ").unwrap_or_default();
        Ok(Zeroizing::new(format!("http://{address}/#token={token}")))
    }

    /// Where the daemon answers, if it runs.
    fn daemon(&self) -> Result<SocketAddr, Failure> {
        let address = self
            .dir
            .admin_address()?
            .ok_or_else(|| self.no_daemon("there is no admin.addr in it"))?;
        if !self.dir.is_occupied() {
            // Whoever listens there now is not to have our token.
            return Err(self.no_daemon("its daemon has ended without a word"));
        }
        Ok(address)
    }

    fn value(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        token: TokenKind,
    ) -> Result<Value, Failure> {
        let mut answer = self.send(method, path, body, token, Some(ANSWER), None)?;
        // A roster of 200,000 peers takes some 80 MB; ureq's own bound is 10.
        answer
            .with_config()
            .limit(1 << 30)
            .read_json()
            .map_err(|error| match error {
                ureq::Error::Timeout(_) => silent(&self.dir, path),
                error => garbled(path, &error.to_string()),
            })
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        token: TokenKind,
        answer_within: Option<Duration>,
        after: Option<&str>,
    ) -> Result<Body, Failure> {
        let address = self.daemon()?;
        let token = self.dir.token(token)?;
        // Straight to the daemon: a proxy of the environment has no business with its token.
        let config = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0);
        let config = config
            .timeout_connect(Some(CONNECT))
            .timeout_global(answer_within);
        let agent: Agent = config.build().into();
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{address}{path}"));
        let mut request = request.header("authorization", token.bearer().as_str());
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let sent = match body {
            Some(body) => {
                let request = request
                    .header("content-type", "application/json")
                    .body(body.to_string());
                agent.run(request.map_err(|error| garbled(path, &error.to_string()))?)
            }
            None => agent.run(
                request
                    .body(())
                    .map_err(|error| garbled(path, &error.to_string()))?,
            ),
        };
        let answer = sent.map_err(|error| match error {
            ureq::Error::Io(_)
            | ureq::Error::ConnectionFailed
            | ureq::Error::Timeout(ureq::Timeout::Connect) => self.no_daemon(&format!(
                "nothing answers at {address}, which its admin.addr names ({error})"
            )),
            ureq::Error::Timeout(_) => silent(&self.dir, path),
            error => garbled(path, &error.to_string()),
        })?;
        let success = answer.status().is_success();
        let status = answer.status();
        let mut answer = answer.into_body();
        if success {
            return Ok(answer);
        }
        let said = answer
            .read_json::<Value>()
            .ok()
            .and_then(|mut said| said.get_mut("error").map(Value::take));
        match said.and_then(|error| serde_json::from_value::<Problem>(error).ok()) {
            Some(problem) => Err(Failure {
                exit: Exit::Failed,
                problem,
            }),
            None => Err(garbled(path, &format!("status {status}"))),
        }
    }

    fn no_daemon(&self, why: &str) -> Failure {
        let place = self.dir.path().display().to_string();
        let problem = Problem::new(
            format!("no daemon runs there: {why}"),
            place,
            "start it with `pilotlight run`, or name its data directory with --data-dir",
        );
        Failure {
            exit: Exit::NoDaemon,
            problem,
        }
    }
}

fn silent(dir: &DataDir, path: &str) -> Failure {
    Failure::failed(
        format!(
            "the daemon of {} did not answer within {} s: it hangs or is overloaded",
            dir.path().display(),
            ANSWER.as_secs()
        ),
        path,
        "try again; if it stays, see the daemon's log, and whether its process is stopped",
    )
}

fn garbled(path: &str, why: &str) -> Failure {
    Failure::failed(
        format!("the daemon's answer makes no sense: {why}"),
        path,
        "check that the daemon is of this version, and its log",
    )
}
