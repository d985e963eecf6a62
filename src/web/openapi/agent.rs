//! Runs of agents.

use serde_json::{Value, json};

use super::operation::{Operation, get, post};
use super::schema::{Told, answer, body, list, named, one_of, or_null, text, time, whole, words};
use super::shared::{AT, ID, LATER, id_of, next_cursor};
use super::usage::{QUOTA, metadata};
use crate::domain::agent::{EndReason, MAX_MINUTES, NAME_CHARACTERS};

/// The heading.
pub(super) const GROUP: (&str, &str) = (
    "Agents",
    "Runs of agents: each begun minute counts. A run lives as long as its heartbeats come and what it may use is left.",
);

/// The calls.
pub(super) fn operations() -> Vec<Operation> {
    let ended = || {
        let mut run = run();
        run["status"] = json!("ended");
        run["heldUntil"] = Value::Null;
        run["endedAt"] = json!(AT);
        run["endReason"] = json!("stopped");
        run
    };
    vec![
        post("/agents/runs", "startRun", "Begin a run")
            .idempotent()
            .may_take("NewRun", json!({"name": "nightly", "maxMinutes": 30}))
            .answers(201, "It runs.", "Run", run())
            .fails(429, QUOTA),
        get("/agents/runs", "listRuns", "List runs").paged().answers(
            200,
            "A page, newest first.",
            "Runs",
            json!({"runs": [run()], "nextCursor": null}),
        ),
        get("/agents/runs/{id}", "getRun", "One run").of("id", "The run.").answers(200, "The run.", "Run", run()),
        post("/agents/runs/{id}/heartbeat", "beatRun", "A sign of life")
            .of("id", "The run.")
            .may_take("Nothing", json!({}))
            .answers(200, "It goes on.", "Run", run())
            .fails(409, "`run_ended`: it has ended.")
            .fails(429, "`quota_exceeded`: nothing more can be held; it goes on until `heldUntil` and ends there."),
        post("/agents/runs/{id}/stop", "stopRun", "End a run")
            .of("id", "The run.")
            .about("A run that has ended is answered as it ended.")
            .may_take("Nothing", json!({}))
            .answers(200, "It has ended.", "Run", ended()),
    ]
}

fn run() -> Value {
    json!({
        "id": ID, "name": "nightly", "metadata": null, "tier": "basic", "status": "running", "startedAt": AT,
        "lastSeenAt": AT, "minutes": 1, "maxMinutes": 30, "heldUntil": LATER, "endedAt": null, "endReason": null,
    })
}

/// What they take and answer.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        (
            "NewRun",
            body()
                .may("name", text(NAME_CHARACTERS))
                .may("metadata", metadata())
                .may("maxMinutes", whole(MAX_MINUTES).about("Absent: as many as the quota bears."))
                .done(),
        ),
        (
            "Run",
            answer()
                .has("id", id_of("The run."))
                .has("name", or_null(words()))
                .has("metadata", json!({"type": ["object", "null"], "additionalProperties": true}))
                .has("tier", words().about("The tier it was begun with, whose limits it keeps."))
                .has("status", one_of(["running", "ended"]))
                .has("startedAt", time())
                .has("lastSeenAt", time())
                .has("minutes", whole(1..=i64::MAX).about("Minutes that have begun."))
                .has("maxMinutes", or_null(whole(MAX_MINUTES)))
                .has("heldUntil", or_null(time()).about("It reaches no further without another heartbeat."))
                .has("endedAt", or_null(time()))
                .has("endReason", or_null(one_of(EndReason::ALL.map(EndReason::as_str))))
                .done(),
        ),
        ("Runs", answer().has("runs", list(named("Run"))).has("nextCursor", next_cursor()).done()),
    ]
}
