//! A planned absence of the signer over HTTP: `POST /v1/signer/lapse` with `drain`, and the node's word.
//!
//! The answer is a stream of lines, one JSON object each: `planned`, what is `pending` as it changes, and at last `lapsed` or `error`.
//! The plan lives as long as the request: a client that leaves, or that dies without a word, withdraws it, and everything is as it was.

use super::access::Refusal;
use super::handlers::{Answer, Asked, bad, read, report_of, stopped};
use super::server::Admin;
use super::{error::Problem, events, views};
use crate::limits;
use crate::supervisor::{NoWord, Pending, PlanError, PlannedAbsence};
use crate::telemetry::EventStream;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

const PLACE: &str = "/v1/signer/lapse";

/// How a lapse is wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wish {
    /// Planned: reports what is pending, and waits for the node's word.
    pub(super) drain: bool,
    /// The caller gives the word.
    yes: bool,
    /// How long to wait for it.
    timeout_s: Option<u64>,
}

impl Wish {
    pub(super) fn read(body: Result<Bytes, BytesRejection>) -> Result<Self, Refusal> {
        if body.as_ref().is_ok_and(Bytes::is_empty) {
            return Ok(Self::default());
        }
        let wish: Self = read(body, r#"{"drain":true,"timeout_s":600}, or nothing"#)?;
        if !wish.drain && (wish.yes || wish.timeout_s.is_some()) {
            return Err(bad(
                "yes and timeout_s are for a planned absence",
                "the body",
                r#"add "drain":true, or send nothing"#,
            ));
        }
        wish.timeout()?;
        Ok(wish)
    }

    fn timeout(&self) -> Result<Duration, Refusal> {
        let asked = self.timeout_s.map(Duration::from_secs);
        match asked {
            None => Ok(limits::ABSENCE_WAIT),
            Some(span) if span.is_zero() || span > limits::ABSENCE_WAIT_MAX => Err(bad(
                "the node's word can be waited for for 1 second at least and a day at most",
                "field timeout_s",
                format!("give 1 to {}", limits::ABSENCE_WAIT_MAX.as_secs()),
            )),
            Some(span) => Ok(span),
        }
    }
}

/// Plans the absence, and answers with a stream that lasts as long as it is planned.
pub(super) async fn plan(admin: &Arc<Admin>, wish: Wish) -> Answer {
    let wait = wish.timeout()?;
    // Subscribed before: the report cannot be missed.
    let events = admin.supervisor.events();
    let absence = admin
        .supervisor
        .plan_absence()
        .await
        .map_err(|error| unplanned(&error))?;
    let (lines, frames) = mpsc::channel(limits::ADMIN_EVENTS);
    let conductor = Conductor {
        admin: Arc::clone(admin),
        lines,
        wait,
    };
    tokio::spawn(conductor.conduct(absence, wish.yes, events));
    Ok(events::body(frames, "application/x-ndjson"))
}

/// What waits for the node's word, for one request.
struct Conductor {
    admin: Arc<Admin>,
    lines: mpsc::Sender<Bytes>,
    wait: Duration,
}

impl Conductor {
    async fn conduct(self, mut absence: PlannedAbsence, yes: bool, events: EventStream) {
        let planned = json!({
            "planned": absence.number(), "epoch": absence.epoch().get(), "timeout_s": self.wait.as_secs(),
            "pending": views::pending(absence.pending()),
        });
        if !self.say(&planned).await {
            return;
        }
        if !yes && let Err(problem) = self.word(&mut absence).await {
            // Nobody reads it if the client has left. The plan goes first: who has read this finds it gone.
            drop(absence);
            if let Some(problem) = problem {
                let _ = self.say(&json!({ "error": problem })).await;
            }
            return;
        }
        let last = match absence.lapse() {
            Some(lapse) => match report_of(events, lapse.epoch).await {
                Some(report) => json!({ "lapsed": views::lapse(&report) }),
                // The reaper went with the supervisor; the fence was up all the same.
                None => {
                    json!({ "lapsed": { "epoch": lapse.epoch.get(), "reason": lapse.reason.as_str() } })
                }
            },
            None => json!({ "error": gone() }),
        };
        let _ = self.say(&last).await;
    }

    /// Waits for the word, and tells meanwhile what is pending. `Err(None)`: the client has left.
    async fn word(&self, absence: &mut PlannedAbsence) -> Result<(), Option<Problem>> {
        let over = Instant::now() + self.wait;
        let mut stop = self.admin.stop.clone();
        let mut shown = absence.pending().clone();
        let mut said = Instant::now();
        loop {
            tokio::select! {
                biased;
                word = absence.word() => return word.map_err(|no| Some(unsaid(&no))),
                () = self.lines.closed() => return Err(None),
                _ = stop.wait_for(|stop| *stop) => return Err(Some(Problem::new(
                    "the daemon stops", PLACE, "start it again",
                ))),
                () = tokio::time::sleep_until(over) => return Err(Some(self.late())),
                () = tokio::time::sleep(limits::ABSENCE_LOOK) => {}
            }
            let now = self.admin.supervisor.pending().await.map_err(|_| None)?;
            // Now and then in any case: it finds out whether the client's machine is still there.
            if now != shown || said.elapsed() >= limits::ADMIN_EVENTS_KEEPALIVE {
                (shown, said) = (now, Instant::now());
                if !self.tell(&shown).await {
                    return Err(None);
                }
            }
        }
    }

    async fn tell(&self, pending: &Pending) -> bool {
        self.say(&json!({ "pending": views::pending(pending) }))
            .await
    }

    async fn say(&self, line: &Value) -> bool {
        self.lines
            .send(Bytes::from(format!("{line}\n")))
            .await
            .is_ok()
    }

    fn late(&self) -> Problem {
        Problem::new(
            format!(
                "the node has not given its word within {} s; the signer session goes on",
                self.wait.as_secs()
            ),
            PLACE,
            "settle what is pending and try again; `--yes` gives the word in the node's stead",
        )
    }
}

fn gone() -> Problem {
    Problem::new(
        NoWord::SignerAway.to_string(),
        PLACE,
        "nothing: there is nothing left to end",
    )
}

fn unsaid(no: &NoWord) -> Problem {
    match no {
        NoWord::Refused(_) => Problem::new(
            format!("{no}; the signer session goes on"),
            PLACE,
            "settle what is pending and try again; `--yes` goes ahead against the node's word",
        ),
        NoWord::SignerAway => gone(),
    }
}

fn unplanned(error: &PlanError) -> Refusal {
    let (status, to_do) = match error {
        PlanError::SignerAway => (
            StatusCode::CONFLICT,
            "nothing: there is nothing to cancel".to_owned(),
        ),
        PlanError::Planned { number } => (
            StatusCode::CONFLICT,
            format!("interrupt that one, or give its word: `pilotlight signer agree {number}`"),
        ),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "start the daemon again".to_owned(),
        ),
    };
    Refusal::new(status, error.to_string(), PLACE, to_do)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    absence: u64,
    go: bool,
    why: Option<String>,
}

/// The node gives its word.
pub(super) async fn word(State(admin): Asked, body: Result<Bytes, BytesRejection>) -> Answer {
    let word: Word = read(
        body,
        r#"{"absence":1,"go":true}, or {"absence":1,"go":false,"why":"…"}"#,
    )?;
    let planned = admin.supervisor.planned_absence();
    let Some(request) = planned.filter(|request| request.number() == word.absence) else {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            format!("absence {} is not planned", word.absence),
            "field absence",
            "see planned_absence of /v1/info",
        ));
    };
    let first = if word.go {
        request.go_ahead()
    } else {
        request.refuse(word.why.as_deref().unwrap_or("no reason was given"))
    };
    if !first {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            format!("the word on absence {} was given before", word.absence),
            "/v1/signer/word",
            "nothing: the first word counts",
        ));
    }
    Ok(Json(json!({ "absence": word.absence, "go": word.go })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chain {
    height: Option<u32>,
    own_update_at: Option<u64>,
}

/// Heights from here on are times (BOLT 2, Bitcoin's lock times).
pub(super) const HEIGHT_END: u32 = 500_000_000;

/// What the node says of the chain and of its own updates.
pub(super) async fn chain(State(admin): Asked, body: Result<Bytes, BytesRejection>) -> Answer {
    let chain: Chain = read(body, r#"{"height":850000,"own_update_at":1767225600}"#)?;
    if chain.height.is_none() && chain.own_update_at.is_none() {
        return Err(bad(
            "nothing is said",
            "the body",
            "give height, own_update_at, or both",
        ));
    }
    if chain.height.is_some_and(|height| height >= HEIGHT_END) {
        return Err(bad(
            "this is no block height: it is above 499999999",
            "field height",
            "give the height of the newest block",
        ));
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let ahead = |at: u64| {
        at > now
            .as_secs()
            .saturating_add(limits::OWN_UPDATE_AHEAD.as_secs())
    };
    if chain.own_update_at.is_some_and(ahead) {
        return Err(bad(
            "this time is in the future",
            "field own_update_at",
            "give whole seconds since 1970, not milliseconds, and check the clocks",
        ));
    }
    if let Some(height) = chain.height {
        admin
            .supervisor
            .set_block_height(height)
            .await
            .map_err(stopped)?;
    }
    if let Some(at) = chain.own_update_at {
        admin.supervisor.set_own_update(Duration::from_secs(at));
    }
    Ok(Json(views::chain(&admin.supervisor.snapshot())).into_response())
}
