//! Administration.

use serde_json::{Value, json};

use super::Terms;
use super::auth::{new_password, role, token};
use super::operation::{Operation, delete, get, patch, post};
use super::schema::{
    Told, answer, body, count, date, flag, list, named, number, one_of, or_null, text, time, whole, words,
};
use super::shared::{AT, ID, OTHER_ID, id_of, next_cursor, resource};
use super::usage::{days, ledger, listing, record, recorded, stats};
use crate::domain::gateway::figures::FaultKind;
use crate::domain::ledger::{METADATA_BYTES_MAX, ResourceType};

/// The heading.
pub(super) const GROUP: (&str, &str) = (
    "Administration",
    "Users, their tokens and their ledger, figures over all users, and the audit log, into which each act is written.",
);

/// Of whom.
const USER: &str = "The user.";
/// What a stolen admin token must not do.
const SESSION: &str = "`scope_required`; or `session_required`: to create or raise an admin, or to change an admin's password or e-mail, takes a session.";
/// Erased users stay so.
const ERASED: &str = "`erased`: the user was erased.";

/// The calls.
pub(super) fn operations(terms: &Terms) -> Vec<Operation> {
    let mut all = users(terms);
    all.extend(of_user());
    all.extend(figures());
    all
}

fn user() -> Value {
    json!({
        "id": ID, "email": "ada@example.org", "role": "user", "tier": "basic", "disabled": false, "disabledAt": null,
        "createdAt": AT,
    })
}

fn users(terms: &Terms) -> Vec<Operation> {
    let mut made = user();
    made["passwordLink"] = json!("/setup?token=...");
    let list = get("/api/admin/users", "listUsers", "List users");
    vec![
        list.asks("q", "Part of the e-mail address or of the id.", text(1..=254))
            .asks("tier", "Of this tier alone.", text(1..=64))
            .asks("role", "Of this role alone.", role())
            .asks("disabled", "Only those that are disabled, or only those that are not.", flag())
            .paged()
            .answers(200, "A page, newest first.", "UserAccounts", json!({"users": [user()], "nextCursor": null})),
        post("/api/admin/users", "createUser", "Make a user")
            .about("Without a password the answer holds a link to choose one, which works once and for 24 hours.")
            .takes("NewUser", json!({"email": "ada@example.org", "tier": terms.default_tier}))
            .answers(201, "The user.", "NewUserAccount", made)
            .fails(403, SESSION)
            .fails(409, "`email_taken`: another user has this e-mail address."),
        get("/api/admin/users/{id}", "getUser", "One user").of("id", USER).answers(200, "The user.", "UserAccount", user()).fails(410, ERASED),
        patch("/api/admin/users/{id}", "changeUser", "Change a user")
            .of("id", USER)
            .about("What is not named stays. A user that is disabled is let in nowhere, and its sessions, streams and runs end.")
            .takes("UserChanges", json!({"tier": terms.default_tier, "disabled": false}))
            .answers(200, "The user as it is now.", "UserAccount", user())
            .fails(403, SESSION)
            .fails(409, "`email_taken`; or `last_admin`: the last enabled admin can be neither lowered nor disabled.")
            .fails(410, ERASED),
        delete("/api/admin/users/{id}", "eraseUser", "Erase a user")
            .of("id", USER)
            .about("For good: everything of the user's is deleted and overwritten. To keep a user out, disable it instead.")
            .must_ask("erase", "Must be true.", one_of(["true"]))
            .answers(200, "What was erased.", "Erasure", json!({"id": ID, "erased": {"memories": 12, "entries": 340}}))
            .fails(409, "`last_admin`: the last enabled admin cannot be erased.")
            .fails(410, ERASED),
        post("/api/admin/users/{id}/password", "resetPassword", "Reset a password")
            .of("id", USER)
            .about("All sessions and tokens of the user end.")
            .may_take("PasswordReset", json!({}))
            .answers(200, "No password was named: the link to choose one.", "PasswordLink", json!({"passwordLink": "/setup?token=..."}))
            .answers_nothing(204, "The password is the one that was named.")
            .fails(403, SESSION)
            .fails(409, "`user_disabled`: the user is disabled, and no password was named.")
            .fails(410, ERASED),
    ]
}

fn of_user() -> Vec<Operation> {
    vec![
        days(get("/api/admin/users/{id}/usage", "getStatsOfUser", "A user's usage").of("id", USER))
            .answers(200, "As GET /usage/stats.", "Stats", stats())
            .fails(410, ERASED),
        listing(get("/api/admin/users/{id}/ledger", "listLedgerOfUser", "A user's ledger").of("id", USER))
            .answers(200, "As GET /usage/ledger.", "Ledger", ledger())
            .fails(410, ERASED),
        post("/api/admin/users/{id}/ledger", "correctLedger", "Correct a user's ledger")
            .of("id", USER)
            .about("An entry with its reason, by the rules of POST /usage/record.")
            .idempotent()
            .takes(
                "Correction",
                json!({"resourceType": "llm_tokens", "amount": -50, "reverses": OTHER_ID, "reason": "billed twice"}),
            )
            .answers(201, "It is written.", "Recorded", recorded())
            .fails(409, "`day_closed`: the day of the entry to take back has been closed.")
            .fails(410, ERASED),
        get("/api/admin/users/{id}/tokens", "listTokensOfUser", "A user's tokens")
            .of("id", USER)
            .paged()
            .answers(200, "As GET /auth/tokens.", "Tokens", json!({"tokens": [token()], "nextCursor": null}))
            .fails(410, ERASED),
        delete("/api/admin/users/{id}/tokens/{token_id}", "revokeTokenOfUser", "Revoke a user's token")
            .of("id", USER)
            .of("token_id", "The token.")
            .answers_nothing(204, "It opens nothing any more.")
            .fails(410, ERASED),
    ]
}

fn figures() -> Vec<Operation> {
    let total = json!({
        "userId": ID, "email": "ada@example.org", "tier": "basic", "resourceType": "llm_tokens", "amount": 45_000,
    });
    let act = json!({
        "id": 7, "at": AT, "actor": {"kind": "user", "id": ID, "email": "root@example.org"}, "action": "user.change",
        "subject": {"id": OTHER_ID, "email": "ada@example.org"}, "before": {"tier": "basic"}, "after": {"tier": "pro"},
        "address": "192.0.2.7",
    });
    let about_from = "The first day, or an instant in it; absent: 30 days in all.";
    vec![
        get("/api/admin/usage", "getTotals", "Totals per user and resource")
            .about("Where `Accept: text/csv` asks for it, one table of all, without pages.")
            .asks("from", about_from, day())
            .asks("to", "The last day; absent: today. At most ten years after `from`.", day())
            .paged()
            .answers(
                200,
                "A page, or the table.",
                "Totals",
                json!({
                    "from": "2025-10-11", "to": "2025-11-09", "totals": [total], "nextCursor": null,
                }),
            )
            .answers_as(
                200,
                "A page, or the table.",
                "text/csv",
                words(),
                json!("userId,email,tier,resourceType,amount\r\n"),
            ),
        days(get("/api/admin/overview", "getOverview", "The whole box at a glance")).answers(
            200,
            "The figures.",
            "Overview",
            overview(&total),
        ),
        get("/api/admin/audit", "listActs", "The audit log").paged().answers(
            200,
            "A page, newest first.",
            "Acts",
            json!({"acts": [act], "nextCursor": null}),
        ),
    ]
}

/// A day, or an instant in it.
fn day() -> Value {
    json!({"anyOf": [date(), time()]})
}

fn overview(total: &Value) -> Value {
    json!({
        "days": 30,
        "users": {"total": 3, "enabled": 3, "admins": 1},
        "totals": {"llm_tokens": 45_000, "memory_storage": 524_288_000, "agent_minutes": 12},
        "topUsers": [total],
        "recentRefusals": [
            {"userId": ID, "email": "ada@example.org", "resourceType": "llm_tokens", "hour": AT, "count": 4},
        ],
        "upstreams": [{
            "name": "local", "isConfigured": true, "calls": 120, "errors": 1,
            "errorsByKind": FaultKind::ALL.iter().map(|kind| (kind.as_str().to_owned(), json!(0))).collect::<serde_json::Map<_, _>>(),
            "durationMs": {"p50": 800, "p99": 4_200}, "firstTokenMs": {"p50": 200, "p99": 900},
            "today": {"calls": 12, "errors": 0},
        }],
        "sizes": {"databaseBytes": 1_048_576, "walBytes": 32_768, "ledgerEntries": 340, "memories": 12},
        "version": crate::VERSION,
        "uptimeSeconds": 86_400,
        "timestamp": AT,
    })
}

/// What they take and answer.
pub(super) fn schemas(terms: &Terms) -> Vec<(&'static str, Value)> {
    let mut all = user_schemas(terms);
    all.extend(figure_schemas());
    all
}

fn email() -> Value {
    json!({"type": "string", "format": "email", "minLength": 3, "maxLength": 254})
}

fn user_schemas(terms: &Terms) -> Vec<(&'static str, Value)> {
    let tier = || one_of(terms.tiers.iter().map(String::as_str)).about("A tier of the configuration.");
    let account = || {
        answer()
            .has("id", id_of(USER))
            .has("email", or_null(words()))
            .has("role", role())
            .has("tier", words())
            .has("disabled", flag())
            .has("disabledAt", or_null(time()))
            .has("createdAt", time())
    };
    let link = || words().about("Where the user chooses a password: works once and for 24 hours.");
    vec![
        ("UserAccount", account().done()),
        ("NewUserAccount", account().may("passwordLink", link()).done()),
        ("UserAccounts", answer().has("users", list(named("UserAccount"))).has("nextCursor", next_cursor()).done()),
        (
            "NewUser",
            body()
                .has("email", email())
                .may("role", role().default("user"))
                .may("tier", tier().default(terms.default_tier.as_str()))
                .may("password", new_password())
                .done(),
        ),
        (
            "UserChanges",
            body().may("email", email()).may("role", role()).may("tier", tier()).may("disabled", flag()).done(),
        ),
        (
            "Erasure",
            answer()
                .has("id", id_of(USER))
                .has(
                    "erased",
                    json!({"type": "object", "additionalProperties": count()}).about("How many rows of what."),
                )
                .done(),
        ),
        ("PasswordReset", body().may("newPassword", new_password()).done()),
        ("PasswordLink", answer().has("passwordLink", link()).done()),
        ("Correction", record(|object| object.has("reason", text(1..=METADATA_BYTES_MAX / 8)), false)),
    ]
}

fn figure_schemas() -> Vec<(&'static str, Value)> {
    let person = || answer().has("userId", id_of(USER)).has("email", or_null(words()));
    let total = person().has("tier", words()).has("resourceType", resource()).has("amount", number());
    let refusal = person().has("resourceType", resource()).has("hour", time()).has("count", count());
    let times = || answer().has("p50", or_null(count())).has("p99", or_null(count())).done();
    let kinds = FaultKind::ALL.iter().fold(answer(), |kinds, kind| kinds.has(kind.as_str(), count()));
    let upstream = answer()
        .has("name", words())
        .has("isConfigured", flag())
        .has("calls", count())
        .has("errors", count())
        .has("errorsByKind", kinds.done())
        .has("durationMs", times())
        .has("firstTokenMs", times())
        .has("today", answer().has("calls", count()).has("errors", count()).done());
    let totals = ResourceType::ALL.iter().fold(answer(), |totals, resource| totals.has(resource.as_str(), number()));
    let sizes = answer()
        .has("databaseBytes", count())
        .has("walBytes", count())
        .has("ledgerEntries", count())
        .has("memories", count());
    let actor = answer()
        .has("kind", words().about("As `user` or `command_line`."))
        .has("id", or_null(id_of(USER)))
        .has("email", or_null(words()));
    let subject = answer().has("id", id_of(USER)).has("email", or_null(words()));
    let act = answer()
        .has("id", whole(1..=i64::MAX))
        .has("at", time())
        .has("actor", actor.done())
        .has("action", words().about("As `user.create`."))
        .has("subject", or_null(subject.done()))
        .has("before", json!({}))
        .has("after", json!({}))
        .has("address", or_null(words()));
    vec![
        ("Total", total.done()),
        (
            "Totals",
            answer()
                .has("from", date())
                .has("to", date())
                .has("totals", list(named("Total")))
                .has("nextCursor", next_cursor())
                .done(),
        ),
        (
            "Overview",
            answer()
                .has("days", count())
                .has("users", answer().has("total", count()).has("enabled", count()).has("admins", count()).done())
                .has("totals", totals.done())
                .has("topUsers", list(named("Total")))
                .has("recentRefusals", list(refusal.done()))
                .has("upstreams", list(upstream.done()))
                .has("sizes", sizes.done())
                .has("version", words())
                .has("uptimeSeconds", count())
                .has("timestamp", time())
                .done(),
        ),
        ("Acts", answer().has("acts", list(act.done())).has("nextCursor", next_cursor()).done()),
    ]
}
