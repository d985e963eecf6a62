//! Usage: how much, of how much, and the writes that make it.

use serde_json::{Value, json};

use super::operation::{Operation, delete, get, post};
use super::schema::{
    Told, answer, body, count, date, flag, free_object, id, list, list_of, named, number, or_null, time, whole, words,
};
use super::shared::{AT, ID, LATER, OTHER_ID, id_of, limit, next_cursor, percentage, resource, resource_by_hand};
use crate::domain::ledger::{BATCH_MAX, METADATA_BYTES_MAX, METADATA_DEPTH_MAX};
use crate::domain::quota::{RESERVATION_TTL_S, RESERVATION_TTL_S_MAX};
use crate::domain::unit::AMOUNT_MAX;
use crate::web::usage::DAYS;

/// The heading.
pub(super) const GROUP: (&str, &str) = (
    "Usage",
    "What was used of tokens, minutes and storage, what is left of the limits, and the writes that make it: facts, and \
     reservations that promise quota before it is used.",
);

/// Metadata of entries, settlements and runs.
pub(super) fn metadata() -> Value {
    free_object(METADATA_BYTES_MAX, METADATA_DEPTH_MAX)
}

/// Why a write is refused for the quota.
pub(super) const QUOTA: &str = "`quota_exceeded`: the limit would be passed. Retry-After is there where waiting helps.";

/// The parameter of a look back.
pub(super) fn days(operation: Operation) -> Operation {
    operation.asks("days", "Days to look back, today included.", whole(DAYS).default(30))
}

/// The parameters of a listing of the ledger.
pub(super) fn listing(operation: Operation) -> Operation {
    operation
        .asks("resourceType", "Of this resource alone.", resource())
        .asks("from", "Recorded at this instant or later.", time())
        .asks("to", "Recorded before this instant.", time())
        .paged()
}

/// The calls.
pub(super) fn operations() -> Vec<Operation> {
    let mut all = questions();
    all.extend(records());
    all.extend(reservations());
    all
}

fn questions() -> Vec<Operation> {
    let standing = json!({"used": 450, "limit": 1_000, "percentage": 45.0, "reserved": 0, "resetsAt": LATER});
    let storage = json!({
        "used": 6_750, "limit": 1_073_741_824, "percentage": 0.0, "reserved": 0, "humanReadable": "6.59 KB",
    });
    let minutes = json!({"used": 12, "limit": 60, "percentage": 20.0, "reserved": 3, "resetsAt": LATER});
    vec![
        days(get("/usage/stats", "getStats", "All three resources at a glance"))
            .about("`amount` is the sum of the days looked back on, `percentage` that of the present window.")
            .answers(200, "The figures.", "Stats", stats()),
        get("/usage/tokens", "getTokens", "Tokens of the day").answers(200, "Where it stands.", "Standing", standing),
        get("/usage/storage", "getStorage", "Bytes of memories held").answers(
            200,
            "Where it stands.",
            "Standing",
            storage,
        ),
        get("/usage/agent-minutes", "getAgentMinutes", "Minutes of agents of the month").answers(
            200,
            "Where it stands.",
            "Standing",
            minutes,
        ),
        post("/usage/check-quota", "checkQuota", "Would an amount fit")
            .about("A question: it promises nothing. For a promise, reserve.")
            .takes("Amount", json!({"resourceType": "llm_tokens", "amount": 200}))
            .answers(
                200,
                "Whether it would fit; also where it would not.",
                "QuotaCheck",
                json!({
                    "hasQuota": true, "message": "Quota available", "used": 450, "reserved": 0, "limit": 1_000,
                    "remaining": 550, "resetsAt": LATER,
                }),
            ),
        days(get("/usage/timeseries/{resource}", "getTimeseries", "Day by day").of_names(
            "resource",
            "The resource.",
            resource(),
        ))
        .about("An element for every day, oldest first, ending today. For `memory_storage` also the level at the day's end.")
        .answers(
            200,
            "The days.",
            "Timeseries",
            json!([{"date": "2025-11-08", "amount": 0}, {"date": "2025-11-09", "amount": 450}]),
        ),
        get("/usage/tier", "getTier", "The caller's tier").answers(
            200,
            "The tier.",
            "Tier",
            json!({"userId": ID, "tier": "basic"}),
        ),
        listing(get("/usage/ledger", "listLedger", "Entries of the ledger"))
            .about("Newest first, in the order in which they were recorded.")
            .answers(200, "A page.", "Ledger", ledger()),
    ]
}

fn records() -> Vec<Operation> {
    vec![
        post("/usage/record", "recordUsage", "Record a fact")
            .about(
                "A fact is written even above the limit, unless `enforce` asks for the limit to hold. With `reverses` it \
                 takes back part of an earlier entry, which needs `act-as`.",
            )
            .idempotent()
            .takes("Record", json!({"resourceType": "llm_tokens", "amount": 450, "metadata": {"model": "gpt-4o"}}))
            .answers(201, "It is written.", "Recorded", recorded())
            .fails(403, "`scope_required`; or `reversal_forbidden`: nobody takes back its own usage.")
            .fails(409, "`day_closed`: the day of the entry to take back has been closed.")
            .fails(429, QUOTA),
        post("/usage/record/batch", "recordBatch", "Record many facts")
            .about("All or nothing. Each is decided after those before it.")
            .idempotent()
            .takes("RecordBatch", json!({"entries": [{"resourceType": "agent_minutes", "amount": 3}]}))
            .answers(201, "All are written, in order.", "RecordedBatch", json!({"entries": [recorded()]}))
            .fails(403, "`scope_required`; or `reversal_forbidden`: nobody takes back its own usage.")
            .fails(409, "`day_closed`: the day of an entry to take back has been closed.")
            .fails(429, "`quota_exceeded`: an element that enforces its limit would pass it; `index` says which."),
    ]
}

fn reservations() -> Vec<Operation> {
    let hold = json!({"id": ID, "resourceType": "llm_tokens", "amount": 200, "expiresAt": AT});
    let mut open = hold.clone();
    open["kind"] = json!("reservation");
    open["madeAt"] = json!(AT);
    let settled = json!({
        "id": OTHER_ID, "resourceType": "llm_tokens", "amount": 180, "timestamp": AT, "metadata": null, "reverses": null,
        "recordedAt": AT, "overrun": false, "late": false,
    });
    vec![
        post("/usage/reservations", "reserve", "Reserve an amount")
            .about("What is held is promised: settle it with what was used, or release it.")
            .idempotent()
            .takes("NewReservation", json!({"resourceType": "llm_tokens", "amount": 200, "ttlSeconds": 300}))
            .answers(201, "It is held.", "Reservation", hold)
            .fails(429, QUOTA),
        get("/usage/reservations", "listReservations", "Open reservations")
            .paged()
            .about("Newest first; also those of agent runs and of calls of the gateway, by their `kind`.")
            .answers(200, "A page.", "Reservations", json!({"reservations": [open], "nextCursor": null})),
        post("/usage/reservations/{id}/settle", "settleReservation", "Settle a reservation")
            .of("id", "The reservation.")
            .about(
                "Records what was used, whatever was held. The same settlement again answers the same. After it expired a \
                 reservation can still be settled, within 30 days of its making.",
            )
            .idempotent()
            .takes("Settlement", json!({"amount": 180}))
            .answers(200, "It is settled. Where the amount is 0 there is no entry, and its fields are null.", "Settled", settled)
            .fails(409, "`already_settled` otherwise, `already_released`, `reservation_too_old`, or `not_the_maker`."),
        delete("/usage/reservations/{id}", "releaseReservation", "Release a reservation")
            .of("id", "The reservation.")
            .about("Gives it back unused. To release it again answers the same.")
            .answers_nothing(204, "It is released.")
            .fails(409, "`already_settled`, or `not_the_maker`."),
    ]
}

/// Figures, for examples.
pub(super) fn stats() -> Value {
    json!({
        "userId": ID,
        "period": "last_30_days",
        "breakdown": [
            {"resourceType": "llm_tokens", "amount": 45_000, "humanReadable": "45,000 tokens", "percentage": 90.0},
            {"resourceType": "memory_storage", "amount": 524_288_000, "humanReadable": "500.00 MB", "percentage": 4.88},
            {"resourceType": "agent_minutes", "amount": 12, "humanReadable": "12 minutes", "percentage": 20.0},
        ],
        "limits": {"llmTokensDay": 50_000, "memoryStorageBytes": 10_737_418_240_u64, "agentMinutesMonth": 60},
        "warnings": ["llm_tokens at 90.0% of quota"],
        "timestamp": AT,
    })
}

/// A page of the ledger, for examples.
pub(super) fn ledger() -> Value {
    let entry = json!({
        "id": ID, "resourceType": "llm_tokens", "amount": 450, "timestamp": AT, "metadata": {"model": "gpt-4o"},
        "reverses": null, "recordedAt": AT,
    });
    json!({"entries": [entry], "nextCursor": null})
}

/// A recorded fact, for examples.
pub(super) fn recorded() -> Value {
    json!({
        "id": ID, "resourceType": "llm_tokens", "amount": 450, "timestamp": AT,
        "quota": {"used": 450, "limit": 1_000, "percentage": 45.0},
    })
}

/// What they take and answer.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let mut all = question_schemas();
    all.extend(write_schemas());
    all
}

fn question_schemas() -> Vec<(&'static str, Value)> {
    let row = answer()
        .has("resourceType", resource())
        .has("amount", number())
        .has("humanReadable", words())
        .has("percentage", percentage());
    let limits =
        answer().has("llmTokensDay", limit()).has("memoryStorageBytes", limit()).has("agentMinutesMonth", limit());
    let entry = answer()
        .has("id", id_of("The entry."))
        .has("resourceType", resource())
        .has("amount", number().about("Negative where it takes back."))
        .has("timestamp", time().about("When it happened."))
        .has("metadata", json!({"type": ["object", "null"], "additionalProperties": true}))
        .has("reverses", or_null(id()).about("The entry it takes back."))
        .has("recordedAt", time().about("When it was written."));
    vec![
        (
            "Stats",
            answer()
                .has("userId", id())
                .has("period", words().about("As `last_30_days`."))
                .has("breakdown", list(row.done()))
                .has("limits", limits.done())
                .has("warnings", list(words()).about("A line for each resource at 80 % or more."))
                .has("timestamp", time())
                .done(),
        ),
        (
            "Standing",
            answer()
                .has("used", number())
                .has("limit", limit())
                .has("percentage", percentage())
                .has("reserved", count())
                .may("resetsAt", time().about("When the window ends; absent for a level."))
                .may("humanReadable", words().about("Of storage."))
                .done(),
        ),
        (
            "QuotaCheck",
            answer()
                .has("hasQuota", flag())
                .has("message", words())
                .has("used", number())
                .has("reserved", count())
                .has("limit", limit())
                .has("remaining", number().about("-1: unlimited."))
                .may("resetsAt", time())
                .done(),
        ),
        (
            "Timeseries",
            list(
                answer()
                    .has("date", date())
                    .has("amount", number())
                    .may("total", number().about("The level at the day's end."))
                    .done(),
            ),
        ),
        ("Tier", answer().has("userId", id()).has("tier", words()).done()),
        ("LedgerEntry", entry.done()),
        ("Ledger", answer().has("entries", list(named("LedgerEntry"))).has("nextCursor", next_cursor()).done()),
    ]
}

/// The two forms of a record, with further fields for both: a fact, and what takes one back.
pub(super) fn record(further: impl Fn(super::schema::Object) -> super::schema::Object, is_fact_timed: bool) -> Value {
    let null = || json!({"type": "null"});
    let fact = further(body().has("resourceType", resource_by_hand()).has("amount", whole(1..=AMOUNT_MAX)));
    let reversal = further(body().has("resourceType", resource_by_hand()).has("amount", whole(-AMOUNT_MAX..=-1)).has(
        "reverses",
        id_of("A positive entry of the same user and resource. All that takes it back never exceeds it."),
    ));
    let (fact, reversal) = if is_fact_timed {
        let about = "At most 35 days back and 5 minutes ahead; absent: now.";
        (
            fact.may("timestamp", time().about(about)),
            reversal.may("timestamp", null().about("It is booked when its entry was.")),
        )
    } else {
        (fact, reversal)
    };
    let fact = fact.may("reverses", null().about("Given with a negative amount alone."));
    let mut both = json!({"oneOf": [fact.done(), reversal.done()]});
    both["oneOf"][0]["title"] = json!("A fact");
    both["oneOf"][1]["title"] = json!("What takes one back");
    both
}

fn write_schemas() -> Vec<(&'static str, Value)> {
    let hold = || {
        answer()
            .has("id", id_of("The reservation."))
            .has("resourceType", resource())
            .has("amount", count())
            .has("expiresAt", or_null(time()).about("Null where it does not expire."))
    };
    let quota = answer().has("used", number()).has("limit", limit()).has("percentage", percentage());
    vec![
        ("Amount", body().has("resourceType", resource()).has("amount", whole(1..=AMOUNT_MAX)).done()),
        (
            "Record",
            record(
                |object| {
                    object.may("metadata", metadata()).may(
                        "enforce",
                        flag().default(false).about("Refuse it with 429 where the limit would be passed."),
                    )
                },
                true,
            ),
        ),
        ("RecordBatch", body().has("entries", list_of(named("Record"), 1..=BATCH_MAX)).done()),
        (
            "Recorded",
            answer()
                .has("id", id_of("The entry."))
                .has("resourceType", resource())
                .has("amount", number())
                .has("timestamp", time())
                .has("quota", quota.done())
                .done(),
        ),
        ("RecordedBatch", answer().has("entries", list(named("Recorded"))).done()),
        (
            "NewReservation",
            body()
                .has("resourceType", resource_by_hand())
                .has("amount", whole(1..=AMOUNT_MAX))
                .may("ttlSeconds", whole(1..=RESERVATION_TTL_S_MAX).default(RESERVATION_TTL_S))
                .done(),
        ),
        ("Reservation", hold().done()),
        (
            "Reservations",
            answer()
                .has("reservations", list(hold().has("kind", words()).has("madeAt", time()).done()))
                .has("nextCursor", next_cursor())
                .done(),
        ),
        ("Settlement", body().has("amount", whole(0..=AMOUNT_MAX)).may("metadata", metadata()).done()),
        (
            "Settled",
            answer()
                .has("id", or_null(id()).about("The entry."))
                .has("resourceType", resource())
                .has("amount", count())
                .has("timestamp", or_null(time()))
                .has("metadata", json!({"type": ["object", "null"], "additionalProperties": true}))
                .has("reverses", json!({"type": "null"}))
                .has("recordedAt", or_null(time()))
                .has("overrun", flag().about("More was used than was held."))
                .has("late", flag().about("The reservation had expired."))
                .done(),
        ),
    ]
}
