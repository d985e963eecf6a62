//! Browsing and searching.

use serde_json::json;

use super::{World, link, texts};

fn numbers(range: impl Iterator<Item = usize>) -> Vec<String> {
    range.map(|number| format!("note {number}.")).collect()
}

#[tokio::test]
async fn a_list_keeps_its_place_while_memories_come_and_go() {
    let world = World::new("").await;
    let ids = world.notes(50).await;
    let first = world.page("/memories").await.expect(200).text;
    assert_eq!(texts(&first), numbers((31..=50).rev()));
    assert!(!first.contains(">Newest<"));
    let older = link(&first, "Older 20");
    assert_eq!(texts(&world.page(&older).await.expect(200).text), numbers((11..=30).rev()));
    world.note("another one").await;
    for gone in [&ids[30], &ids[20]] {
        world.post(&format!("/memories/{gone}/delete"), &[]).await.expect(303);
    }
    let second = world.page(&older).await.expect(200).text;
    assert_eq!(texts(&second), numbers((10..=30).rev().filter(|number| *number != 21)));
    let last = world.page(&link(&second, "Older 20")).await.expect(200).text;
    assert_eq!(texts(&last), numbers((1..=9).rev()));
    assert!(!last.contains(">Older 20<"));
    let again = world.page(&link(&last, "Newer 20")).await.expect(200).text;
    assert_eq!(texts(&again), texts(&second));
    assert_eq!(link(&again, "Older 20"), link(&second, "Older 20"));
    let top = world.page(&link(&again, "Newer 20")).await.expect(200).text;
    assert_eq!(texts(&top)[1..], numbers((32..=50).rev()));
    assert_eq!(link(&top, "Newest"), "/memories");
    // Where fewer than a page are newer, the newest are shown.
    let newest = world.page(&link(&top, "Newer 20")).await.expect(200).text;
    assert_eq!(texts(&newest), texts(&world.page("/memories").await.expect(200).text));
}

#[tokio::test]
async fn filters_narrow_a_list_and_stay_on_the_way_through_it() {
    let world = World::new("[quota]\ntimezone = 'Pacific/Auckland'").await;
    for number in 1..=30 {
        let memory = json!({
            "type": if number % 2 == 0 { "even" } else { "odd" }, "input_context": format!("note {number}."),
            "tier": (["stm", "itm", "ltm"][number % 3]), "tags": if number <= 25 { json!(["a b", "c"]) } else { json!([]) },
            "session": if number == 7 { json!("s&t") } else { json!(null) },
            "timestamp": format!("2026-01-{number:02}T11:00:00Z"),
        });
        world.store(memory).await;
    }
    let of = async |query: &str| texts(&world.page(&format!("/memories?{query}")).await.expect(200).text);
    assert_eq!(of("type=even&tier=stm").await, numbers([30, 24, 18, 12, 6].into_iter()));
    assert_eq!(of("tier=stm&tier=itm&tag=c").await.len(), 17);
    assert_eq!(of("tier=stm&tier=itm&tier=ltm&type=&tag=&from=&to=&q=").await.len(), 20);
    assert_eq!(of("session=s%26t").await, ["note 7."]);
    // 11:00 UTC is midnight in Auckland's summer: what happened then lies in the next day.
    assert_eq!(of("from=2026-01-11&to=2026-01-13").await, numbers((10..=12).rev()));
    let first = world.page("/memories?tag=a+b&to=2026-02-01").await.expect(200).text;
    assert_eq!(texts(&first), numbers((6..=25).rev()));
    assert!(first.contains("Times say when it happened, in Pacific/Auckland."), "{first}");
    assert!(first.contains("26 Jan 2026, 00:00"), "{first}");
    let older = link(&first, "Older 20");
    assert!(older.starts_with("/memories?tag=a+b&to=2026-02-01&cursor="), "{older}");
    assert_eq!(texts(&world.page(&older).await.expect(200).text), numbers((1..=5).rev()));
    for kind in ["even", "odd"] {
        assert!(first.contains(&format!(r#"<option value="{kind}">"#)));
    }
    let by_tag = link(&first, "<bdi>c</bdi>");
    assert_eq!(by_tag, "/memories?tag=c&to=2026-02-01");
}

#[tokio::test]
async fn a_search_shows_both_parts_of_the_score_and_marks_the_words() {
    let world = World::new("").await;
    for text in ["The ferry to Ullapool leaves early.", "Ferries are slow.", "The boiler was serviced."] {
        world.note(text).await;
    }
    let found = world.page("/memories?q=When+does+the+ferry+leave%3F").await.expect(200).text;
    assert_eq!(texts(&found)[0], "The ferry to Ullapool leaves early.");
    assert!(found.contains("The <mark>ferry</mark> to Ullapool <mark>leaves</mark> early."), "{found}");
    assert!(found.contains("<mark>Ferries</mark> are slow."), "{found}");
    let row = found.split(r#"<li class="result">"#).nth(1).unwrap();
    assert!(row.contains("<dt>semantic</dt>") && row.contains("<dt>keyword</dt>"), "{row}");
    assert!(row.contains(r#"<rect class="key-part" width="100.0%""#) && row.contains("<b>1.00</b>"), "{row}");
    assert!(found.contains(r#"name="q" type="search""#) && found.contains(r#"value="When does the ferry leave?""#));
    assert!(found.contains("3 matches") && found.contains("1 to 3 of 3"));
    let silent = world.page("/memories?q=%3F").await.expect(200).text;
    assert!(silent.contains("semantic") && !silent.contains("<dt>keyword</dt>"), "{silent}");
}

#[tokio::test]
async fn the_pages_of_a_search_follow_each_other_and_end() {
    let world = World::new("").await;
    world.notes(45).await;
    let first = world.page("/memories?q=note&type=note").await.expect(200).text;
    assert!(first.contains("45 matches") && first.contains("1 to 20 of 45"));
    let next = link(&first, "Next 20");
    assert_eq!(next, "/memories?q=note&type=note&page=2");
    let second = world.page(&next).await.expect(200).text;
    let third = world.page(&link(&second, "Next 5")).await.expect(200).text;
    assert!(third.contains("41 to 45 of 45") && !third.contains(">Next"));
    let mut all = [texts(&first), texts(&second), texts(&third)].concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 45);
    assert_eq!(texts(&world.page("/memories?q=note&page=99").await.expect(200).text), texts(&third));
    assert_eq!(link(&second, "Previous 20"), "/memories?q=note&type=note");
    // From a page of the search to a memory, through its deletion, and back.
    let of_one = link(&second, "Open");
    let shown = world.page(&of_one).await.expect(200).text;
    assert_eq!(link(&shown, "Back to the list"), next);
    let asked = world.page(&link(&shown, "Delete")).await.expect(200).text;
    assert!(asked.contains(r#"name="back" value="/memories?q=note&amp;type=note&amp;page=2""#), "{asked}");
    let path = of_one.split('?').next().unwrap();
    let gone = world.post(&format!("{path}/delete"), &[("back", &next)]).await.expect(303);
    assert_eq!(gone.header("location"), format!("{next}&done=deleted"));
    let after = world.page(gone.header("location")).await.expect(200).text;
    assert!(after.contains("The memory is deleted.") && after.contains("21 to 40 of 44"));
    assert!(!link(&after, "Next 4").contains("done"));
}

#[tokio::test]
async fn what_is_kept_stands_at_the_head() {
    let world = World::new("").await;
    for tier in ["stm", "itm", "ltm", "ltm"] {
        world.store(json!({"type": "n", "input_context": "12345", "tier": tier})).await;
    }
    let page = world.page("/memories").await.expect(200).text;
    assert!(page.contains("4 kept, 6.65 KB of 10.00 GB"), "{page}");
    let sums: Vec<&str> = page.split("<dl class=\"tier-sums\"").nth(1).unwrap().split("<dd>").skip(1).collect();
    let starts = ["1<span>1.66 KB<", "1<span>1.66 KB<", "2<span>3.33 KB<"];
    assert!(sums.iter().zip(starts).all(|(sum, start)| sum.starts_with(start)), "{sums:?}");
    world.app.clock.advance_millis(25 * 3_600_000);
    let page = world.page("/memories").await.expect(200).text;
    assert!(page.contains("3 kept, 4.99 KB of 10.00 GB"), "{page}");
}

#[tokio::test]
async fn where_nothing_is_stored_there_is_no_search_but_a_command_to_copy() {
    let world = World::new("").await;
    for path in ["/memories", "/memories?q=x&tag=y"] {
        let page = world.page(path).await.expect(200).text;
        assert!(page.contains("None kept yet, 0 B of 10.00 GB") && !page.contains("role=\"search\""), "{page}");
        assert!(page.contains("curl http://box.test/memory/store \\\n") && page.contains("$TALLYBOX_TOKEN"), "{page}");
        assert_eq!(link(&page, "Create an API token"), "/account#tokens");
    }
    let evil = [("cookie", world.cookie.as_str()), ("host", "a;rm -rf ~;'\"")];
    let page = world.app.call_with("GET", "/memories", None, None, &evil).await.expect(200).text;
    assert!(page.contains("curl http://127.0.0.1:8080/memory/store") && !page.contains("rm -rf"), "{page}");
    let public = World::new("[server]\npublic_url = 'https://box.example.org/base/'").await;
    let page = public.page("/memories").await.expect(200).text;
    assert!(page.contains("curl https://box.example.org/base/memory/store"), "{page}");
}

#[tokio::test]
async fn where_nothing_matches_the_filters_are_named_and_each_can_be_dropped() {
    let world = World::new("").await;
    world.note("one").await;
    for query in ["tag=nope&type=note&from=2020-01-01", "q=one&tag=nope&type=note&from=2020-01-01"] {
        let page = world.page(&format!("/memories?{query}")).await.expect(200).text;
        assert!(page.contains("No matches") && page.contains("role=\"search\""), "{page}");
        assert!(page.contains("tag <bdi>nope</bdi>") && page.contains("type <bdi>note</bdi>"), "{page}");
        let without = link(&page, r#"Drop<span class="vh"> the filter tag</span>"#);
        assert!(!without.contains("tag=") && without.contains("type=note"), "{without}");
        assert_eq!(texts(&world.page(&without).await.expect(200).text), ["one"]);
        assert_eq!(texts(&world.page(&link(&page, "Drop all filters")).await.expect(200).text), ["one"]);
    }
}

#[tokio::test]
async fn a_question_that_is_not_understood_is_shown_again() {
    let world = World::new("").await;
    world.note("one").await;
    for (query, told) in [
        ("from=yesterday&tag=keep", "must be a date such as <span class=\"nowrap\">2025-11-24</span>"),
        ("from=2026-02-02&to=2026-02-01&tag=keep", "must not lie before the first day"),
        ("from=2026-02-30&tag=keep", "must be a date"),
        ("tier=xtm&tag=keep", "tier must be one of stm, itm, ltm"),
        ("cursor=7&tag=keep", "cursor is not a place of a list"),
        ("cursor=00000000-0000-7000-8000-000000000000&tag=keep", "cursor is not a place of a list"),
        ("colour=red&tag=keep", "colour is not a known field"),
        ("page=0&tag=keep", "page must be a whole number"),
        ("tag=keep&type=%00", "must not contain NUL"),
    ] {
        let page = world.page(&format!("/memories?{query}")).await.expect(422).text;
        assert!(page.contains(told), "{query}: {page}");
        assert!(page.contains(r#"value="keep""#), "{query}");
    }
}

#[tokio::test]
async fn a_page_of_memories_shows_nobody_elses() {
    let world = World::new("").await;
    world.note("mine").await;
    let other = world.app.user("b@example.org", "basic").await;
    let theirs = json!({"type": "secret", "input_context": "theirs"});
    world.app.call("POST", "/memory/store", Some(&other.token), Some(theirs)).await.expect(201);
    for path in ["/memories", "/memories?q=theirs", "/memories?type=secret", "/memories?newer=not-one"] {
        let page = world.page(path).await.text;
        assert!(!page.contains(">theirs<") && !page.contains("<option value=\"secret\">"), "{path}: {page}");
    }
    world.app.call("GET", "/memories", None, None).await.expect(303);
}
