//! The page of one's usage.

use serde_json::{Value, json};

use super::{TestApp, cookie, page};
use crate::suite::calls::id_of;

async fn record(
    app: &TestApp,
    token: &str,
    resource: &str,
    amount: i64,
    timestamp: Option<&str>,
    enforce: bool,
) -> u16 {
    let mut body = json!({"resourceType": resource, "amount": amount, "enforce": enforce});
    if let Some(timestamp) = timestamp {
        body["timestamp"] = json!(timestamp);
    }
    app.call("POST", "/usage/record", Some(token), Some(body)).await.status
}

/// What stands between `from` and the next `to`.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = text.split_once(from).expect(from);
    rest.split_once(to).map_or(rest, |(inner, _)| inner)
}

#[tokio::test]
async fn the_three_colours_and_their_words() {
    let app = TestApp::with_config("[dashboard]\nupgrade_url = 'https://example.org/plans'");
    let user = app.user_with_password("a@example.org", "basic").await;
    let cookie = cookie(&app, "a@example.org").await;
    let calm = page(&app, "/usage", &cookie).await.expect(200).text;
    assert!(!calm.contains("Warnings") && !calm.contains("id=\"upgrade\""), "{calm}");
    assert_eq!(record(&app, &user.token, "llm_tokens", 39_999, None, false).await, 201);
    let text = page(&app, "/usage", &cookie).await.expect(200).text;
    assert!(text.contains(r#"class="gauge is-ok" aria-labelledby="gauge-llm_tokens""#), "{text}");
    assert_eq!(record(&app, &user.token, "llm_tokens", 1, None, false).await, 201);
    assert_eq!(record(&app, &user.token, "agent_minutes", 67, None, false).await, 201);
    let text = page(&app, "/usage", &cookie).await.expect(200).text;
    assert!(text.contains(r#"class="gauge is-warn" aria-labelledby="gauge-llm_tokens""#), "{text}");
    assert!(text.contains(r#"class="gauge is-stop" aria-labelledby="gauge-agent_minutes""#), "{text}");
    let warnings = between(&text, "aria-label=\"Warnings\"", "</section>");
    assert!(warnings.find("Agent minutes are at 111").unwrap() < warnings.find("LLM tokens are at 80").unwrap());
    assert!(warnings.contains("https://example.org/plans") && text.contains("Move to pro"), "{warnings}");
}

#[tokio::test]
async fn what_is_not_in_the_tier_is_told_in_one_way() {
    let app = TestApp::new();
    let user = app.user_with_password("a@example.org", "free_trial").await;
    let cookie = cookie(&app, "a@example.org").await;
    let empty = page(&app, "/usage", &cookie).await.expect(200).text;
    assert!(empty.contains("No usage yet") && empty.contains("/account#tokens") && !empty.contains("class=\"plot\""));
    assert_eq!(record(&app, &user.token, "llm_tokens", 10, None, false).await, 201);
    assert_eq!(record(&app, &user.token, "agent_minutes", 5, None, true).await, 429);
    app.pass().await;
    let text = page(&app, "/usage", &cookie).await.expect(200).text;
    let gauge = between(&text, "gauge-agent_minutes", "</section>");
    assert!(gauge.contains("not in this tier") && gauge.contains("Requests are refused"), "{gauge}");
    for contradiction in ["role=\"meter\"", "i-ok", "Left", "Resets", " of 0", "\u{202f}%"] {
        assert!(!gauge.contains(contradiction), "{contradiction}: {gauge}");
    }
    assert!(
        text.contains("gauge is-stop\" aria-labelledby=\"gauge-agent_minutes") && !text.contains("Warnings"),
        "{text}"
    );
    let chart = between(&text, "Agent minutes, added up by month</h3>", "</figure>");
    assert!(chart.contains("Not in this tier. 1 request was refused.") && !chart.contains("class=\"plot\""), "{chart}");
    // What is used all the same, as before a tier was lowered, is past the limit.
    assert_eq!(record(&app, &user.token, "agent_minutes", 5, None, false).await, 201);
    let text = page(&app, "/usage", &cookie).await.expect(200).text;
    assert!(text.contains("Warnings") && text.contains("aria-valuenow=\"0\""), "{text}");
}

#[tokio::test]
async fn the_range_holds_for_history_and_breakdown() {
    let app = TestApp::new();
    let user = app.user_with_password("a@example.org", "basic").await;
    let cookie = cookie(&app, "a@example.org").await;
    record(&app, &user.token, "llm_tokens", 700, Some("2026-02-20T10:00:00Z"), false).await;
    record(&app, &user.token, "llm_tokens", 30, None, false).await;
    for (days, sum, bars) in [("7", "30 tokens", 1), ("30", "730 tokens", 2), ("90", "730 tokens", 2)] {
        let text = page(&app, &format!("/usage?days={days}"), &cookie).await.expect(200).text;
        let breakdown = between(&text, "h-breakdown\">Breakdown", "</table>");
        assert!(breakdown.contains(sum), "{days}: {breakdown}");
        let chart = between(&text, "LLM tokens per day</h3>", "</figure>");
        assert_eq!(chart.matches("class=\"bar\" x=").count(), bars, "{days}: {chart}");
        assert_eq!(chart.matches("<title>").count().to_string(), days);
        assert!(text.contains(&format!("?days={days}#history\" aria-current=\"true\"")));
    }
    page(&app, "/usage?days=31", &cookie).await.expect(422);
}

#[tokio::test]
async fn what_is_held_and_what_was_refused_is_shown_on_its_day() {
    let app = TestApp::new();
    let user = app.user_with_password("a@example.org", "basic").await;
    let cookie = cookie(&app, "a@example.org").await;
    let hold = json!({"resourceType": "llm_tokens", "amount": 1_200});
    app.call("POST", "/usage/reservations", Some(&user.token), Some(hold)).await.expect(201);
    for _ in 0..3 {
        assert_eq!(record(&app, &user.token, "llm_tokens", 60_000, None, true).await, 429);
    }
    app.pass().await;
    let text = page(&app, "/usage?days=7", &cookie).await.expect(200).text;
    let chart = between(&text, "LLM tokens per day</h3>", "</figure>");
    assert!(chart.contains("3 requests refused; 1,200 reserved; day not over"), "{chart}");
    assert!(between(&text, "gauge-llm_tokens", "</section>").contains("1,200 tokens"));
    let other = between(&text, "Agent minutes, added up by month</h3>", "</figure>");
    assert!(!other.contains("refused;"), "{other}");
}

#[tokio::test]
async fn months_are_added_up_from_their_first_day() {
    let app = TestApp::new();
    let user = app.user_with_password("a@example.org", "basic").await;
    let cookie = cookie(&app, "a@example.org").await;
    // The clock stands at 10 March: the week begins on the 4th, what was used on the 1st is brought forward.
    for (day, amount) in [("02-27", 20), ("03-01", 5), ("03-05", 7)] {
        record(&app, &user.token, "agent_minutes", amount, Some(&format!("2026-{day}T10:00:00Z")), false).await;
    }
    let week = page(&app, "/usage?days=7", &cookie).await.expect(200).text;
    assert!(week.contains("Wed 4 Mar: 0 minutes used, 5 of 60 this month"), "{week}");
    assert!(week.contains("Thu 5 Mar: 7 minutes used, 12 of 60 this month"), "{week}");
    let month = page(&app, "/usage?days=30", &cookie).await.expect(200).text;
    assert!(month.contains("Sat 28 Feb: 0 minutes used, 20 of 60 this month"), "{month}");
    assert!(month.contains("Sun 1 Mar: 5 minutes used, 5 of 60 this month"), "{month}");
}

#[tokio::test]
async fn tokens_are_told_by_model_and_what_is_taken_back_is_less() {
    let app = TestApp::new();
    let user = app.user_with_password("a@example.org", "basic").await;
    let admin = app.admin("root@example.org").await;
    let cookie = cookie(&app, "a@example.org").await;
    let none = page(&app, "/usage", &cookie).await.expect(200).text;
    assert!(!none.contains("By model"), "{none}");
    let chat = json!({"model": "chat-large", "promptTokens": 600, "completionTokens": 100});
    let mut first = String::new();
    for (amount, metadata) in [
        (700, chat.clone()),
        (300, chat),
        (250, json!({"model": "embed <b>text</b>", "promptTokens": 9_999_999})),
        (50, json!({"model": 7})),
        (20, json!({"model": "x".repeat(129)})),
    ] {
        let body = json!({"resourceType": "llm_tokens", "amount": amount, "metadata": metadata});
        let made = app.call("POST", "/usage/record", Some(&user.token), Some(body)).await.expect(201).json;
        first = if first.is_empty() { made["id"].as_str().unwrap().to_owned() } else { first };
    }
    let path = format!("/api/admin/users/{}/ledger", user.id);
    let back = json!({"resourceType": "llm_tokens", "amount": -200, "reason": "counted twice", "reverses": first});
    app.call("POST", &path, Some(&admin.token), Some(back)).await.expect(201);
    let text = page(&app, "/usage?days=7", &cookie).await.expect(200).text;
    let table = between(&text, "h-models\">By model", "</table>");
    let row = |name: &str| between(table, &format!("\"row\">{name}</th>"), "</tr>").to_owned();
    let figures = |name: &str| {
        let row = row(name);
        row.split("</td>").filter_map(|cell| cell.rsplit_once('>')).map(|(_, text)| text.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(figures("chat-large")[..4], ["2", "900", "200", "800"], "{table}");
    assert_eq!(figures("embed &lt;b&gt;text&lt;/b&gt;")[..4], ["1", "250", "0", "250"], "{table}");
    assert_eq!(figures("No model named")[..4], ["–", "–", "–", "70"], "{table}");
    assert_eq!(figures("Total")[..4], ["3", "1,150", "200", "1,120"], "{table}");
    let found = tallybox::service::check::run(app.app.store()).unwrap();
    assert!(found.is_empty(), "{found:#?}");
}

#[tokio::test]
async fn the_newest_runs_are_told_with_how_they_ended_to_their_user_and_to_an_admin() {
    let app = TestApp::new();
    let user = app.user_with_password("a@example.org", "pro").await;
    let admin = app.admin("root@example.org").await;
    let (own, admins) = (cookie(&app, "a@example.org").await, cookie(&app, &admin.email).await);
    let as_admin = format!("/admin/users/{}", user.id);
    for (path, cookie) in [("/usage", &own), (&as_admin, &admins)] {
        let none = page(&app, path, cookie).await.expect(200).text;
        assert!(!none.contains("Agent runs"), "{path}: {none}");
    }
    let start = async |body: Value| id_of(&app.tell(&user.token, "/agents/runs", body).await.expect(201));
    for number in 0..9 {
        start(json!({"name": format!("old {number}"), "maxMinutes": 1})).await;
    }
    start(json!({"name": "<b>silent</b>"})).await;
    app.clock.advance_millis(5 * 60_000);
    app.pass().await;
    let stopped = start(json!({"name": "told to stop"})).await;
    app.clock.advance_millis(61_000);
    app.tell(&user.token, &format!("/agents/runs/{stopped}/stop"), json!({})).await.expect(200);
    start(json!({})).await;
    app.clock.advance_millis(1_000);
    for (path, cookie) in [("/usage", &own), (&as_admin, &admins)] {
        let text = page(&app, path, cookie).await.expect(200).text;
        assert!(text.contains("The newest 10 of 12"), "{path}: {text}");
        let table = between(&text, "h-runs\">Agent runs", "</table>");
        let rows: Vec<_> = table.split("<tr").skip(2).collect();
        assert_eq!(rows.len(), 10, "{path}: {table}");
        for (row, words) in rows.iter().zip([
            ["Unnamed", "Running", "10 Mar 2026, 12:06", ">1<span class=\"sub\">of 3 held"],
            ["told to stop", ">Stopped<", "10 Mar 2026, 12:06", ">2</td>"],
            ["&lt;b&gt;silent&lt;/b&gt;", "No heartbeat", "10 Mar 2026, 12:00", ">1</td>"],
            ["old 8", "Its most minutes used", "10 Mar 2026, 12:00", ">1</td>"],
        ]) {
            assert!(words.iter().all(|word| row.contains(word)), "{path}: {words:?} in {row}");
        }
    }
}
