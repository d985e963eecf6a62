//! What operators and their tools ask.

use serde_json::{Value, json};

use super::operation::{Operation, get};
use super::schema::{Told, answer, one_of, or_null, whole, words};

/// The heading.
pub(super) const GROUP: (&str, &str) = ("Operations", "Whether the server is alive and ready, and what it measures.");

/// The calls.
pub(super) fn operations() -> Vec<Operation> {
    let (version, build) = (crate::VERSION, crate::BUILD);
    let readiness = |status: &str, disk: &str| {
        json!({
            "status": status, "version": version, "build": build, "schema": crate::store::SCHEMA_VERSION,
            "checks": {"writes": "ok", "disk": disk, "schema": "ok"},
        })
    };
    vec![
        get("/healthz", "getHealth", "Is the process alive").answers(
            200,
            "It answers.",
            "Health",
            json!({"status": "ok", "version": version, "build": build}),
        ),
        get("/readyz", "getReadiness", "Can a write be committed, and is there room for more")
            .answers(
                200,
                "It can.",
                "Readiness",
                readiness("ready", "ok"),
            )
            .answers(
                503,
                "It cannot: the disk is full, broken or read-only, or the writer is stuck.",
                "Readiness",
                readiness("unavailable", "1024 bytes are free on the disk of the data directory, fewer than 67108864 (server.disk_free_bytes_min)"),
            ),
        get("/metrics", "getMetrics", "Everything that is measured")
            .about(
                "In the text format of Prometheus. With `metrics.access` it can be open or off, and with `metrics.listen` \
                 it has a listener of its own instead.",
            )
            .answers_as(
                200,
                "The metrics.",
                "text/plain",
                words(),
                json!("# HELP tallybox_reservations_open Holds that are neither settled nor released.\n# TYPE tallybox_reservations_open gauge\ntallybox_reservations_open 0\n"),
            )
            .never(422),
    ]
}

/// What they answer.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let version = || words().about("The version of the program.");
    let build = || or_null(words()).about("The commit that it was built from, where that is known.");
    let check = || words().about("`ok`, or what is wrong.");
    vec![
        ("Health", answer().has("status", one_of(["ok"])).has("version", version()).has("build", build()).done()),
        (
            "Readiness",
            answer()
                .has("status", one_of(["ready", "unavailable"]))
                .has("version", version())
                .has("build", build())
                .has("checks", answer().has("writes", check()).has("disk", check()).has("schema", check()).done())
                .has("schema", whole(1..=1_000_000).about("The version of the schema of the database."))
                .done(),
        ),
    ]
}
