//! Reading, changing and deleting one.

use serde_json::json;

use super::{World, link, texts};
use crate::suite::support::form;

const FIELDS: [(&str, &str); 5] =
    [("input_context", "hello"), ("type", "note"), ("tags", ""), ("tier", "ltm"), ("session", "")];

fn fields<'f>(changes: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    let changed = |name: &str| changes.iter().find(|(other, _)| *other == name).copied();
    let kept = FIELDS.into_iter().map(|field| changed(field.0).unwrap_or(field));
    kept.chain(changes.iter().filter(|(name, _)| !FIELDS.iter().any(|field| field.0 == *name)).copied()).collect()
}

#[tokio::test]
async fn a_memory_is_shown_with_all_that_is_known_of_it() {
    let world = World::new("").await;
    let long = format!("{}\nlast line", vec!["word"; 130].join(" "));
    let id = world
        .store(json!({
            "type": "fact", "input_context": long, "tier": "stm", "tags": ["a", "b"], "session": "s 1",
            "metadata": {"source": "phone", "turn": 3}, "timestamp": "2026-03-09T08:00:00Z",
        }))
        .await;
    let near = world.note("word").await;
    let page = world.page(&format!("/memories/{id}?back=%2Fmemories%3Ftag%3Da")).await.expect(200).text;
    for told in [
        id.as_str(),
        "short term",
        ">fact<",
        "word\nlast line",
        "3, each of a window of the text",
        "9 Mar 2026, 08:00",
        "10 Mar 2026, 12:00",
        "11 Mar 2026, 12:00",
        "{\n  &quot;source&quot;: &quot;phone&quot;,\n  &quot;turn&quot;: 3\n}",
        "5.34 KB, 5,465 bytes",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
    assert_eq!(link(&page, "<bdi>s 1</bdi>"), "/memories?session=s+1");
    assert_eq!(link(&page, "Back to the list"), "/memories?tag=a");
    assert_eq!(texts(&page), ["word"]);
    assert_eq!(link(&page, "Open"), format!("/memories/{near}?back=%2Fmemories%3Ftag%3Da"));
    let listed = world.page("/memories?tag=a").await.expect(200).text;
    assert!(texts(&listed)[0].len() <= 600 && !listed.contains("last line"));
    assert_eq!(link(&listed, "Read all of it"), format!("/memories/{id}?back=%2Fmemories%3Ftag%3Da"));
}

#[tokio::test]
async fn a_change_is_booked_and_moves_the_memory() {
    let world = World::new("").await;
    let id = world.note("hello").await;
    let path = format!("/memories/{id}");
    let fields = fields(&[
        ("input_context", "hello again,\r\nand again"),
        ("type", "fact"),
        ("tags", " a, b ,,a"),
        ("tier", "itm"),
        ("session", "s"),
        ("back", "/memories?tag=a"),
    ]);
    let reply = world.post(&path, &fields).await.expect(303);
    assert_eq!(reply.header("location"), format!("{path}?back=%2Fmemories%3Ftag%3Da&done=saved"));
    assert!(world.page(reply.header("location")).await.expect(200).text.contains("The changes are saved."));
    let memory = world.json(&format!("/memory/{id}")).await;
    assert_eq!(memory["input_context"], "hello again,\nand again");
    assert_eq!((&memory["type"], &memory["tier"], &memory["session"]), (&json!("fact"), &json!("itm"), &json!("s")));
    assert_eq!(memory["tags"], json!(["a", "b"]));
    let size = 22 + 1_536 + 162 + 9;
    assert_eq!(memory["size_bytes"], size);
    assert_eq!(world.json("/usage/storage").await["used"], size);
    assert_eq!(world.json("/memory/usage").await["memory_counts"]["itm"], 1);
    let found = world.page("/memories?q=again").await.expect(200).text;
    assert!(found.contains("<mark>again</mark>"), "{found}");
    let bare = [("input_context", "hello"), ("type", "fact"), ("tags", ""), ("tier", "ltm"), ("session", "")];
    world.post(&path, &bare).await.expect(303);
    let memory = world.json(&format!("/memory/{id}")).await;
    assert_eq!((&memory["tags"], &memory["session"]), (&json!([]), &json!(null)));
    assert!(tallybox::service::check::run(world.app.app.store()).unwrap().is_empty());
}

#[tokio::test]
async fn what_a_browser_does_to_line_breaks_and_commas_is_no_change() {
    let world = World::new("").await;
    let text = "\n a\r\nb\rc\n";
    let id = world
        .store(json!({"type": "two\nlines", "input_context": text, "tags": ["a,b", "c\nd"], "session": "s\nt"}))
        .await;
    let before = world.json(&format!("/memory/{id}")).await;
    let page = world.page(&format!("/memories/{id}")).await.expect(200).text;
    assert!(page.contains(">\n\n a\r\nb\rc\n</textarea>"), "{page}");
    let sent = [
        ("input_context", "\r\n a\r\nb\r\nc\r\n"),
        ("type", "twolines"),
        ("tags", "a,b, cd"),
        ("tier", "ltm"),
        ("session", "st"),
    ];
    world.post(&format!("/memories/{id}"), &sent).await.expect(303);
    assert_eq!(world.json(&format!("/memory/{id}")).await, before);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_what_was_typed_stays() {
    let world = World::new("[tiers.basic]\nmemory_storage_bytes = 4000").await;
    let id = world.note("hello").await;
    let path = format!("/memories/{id}");
    let large = "x ".repeat(2_000);
    let fields_of_large = fields(&[("input_context", large.as_str()), ("tags", "kept"), ("back", "/memories?tag=a")]);
    let reply = world.post(&path, &fields_of_large).await.expect(429);
    assert!(reply.header("content-type").starts_with("text/html"));
    for told in ["Nothing was changed: it needs", "of the 3.91 KB", &large, r#"value="kept""#, "/memories?tag=a"] {
        assert!(reply.text.contains(told), "{told}: {}", reply.text);
    }
    assert_eq!(world.json(&format!("/memory/{id}")).await["input_context"], "hello");
    for (changes, told) in [
        (vec![("input_context", "")], "must be a text of 1 to"),
        (vec![("type", "")], "must be a text of 1 to 64 characters"),
        (vec![("tags", "a, b\0")], "must be a list of at most 32 texts"),
        (vec![("tier", "xtm")], "must be one of stm, itm, ltm"),
        (vec![("colour", "red")], "colour is not a known field."),
    ] {
        let reply = world.post(&path, &fields(&changes)).await.expect(422);
        assert!(reply.text.contains(told), "{told}: {}", reply.text);
    }
    world.post(&path, &[("type", "note")]).await.expect(422);
}

#[tokio::test]
async fn a_deletion_asks_first_and_looking_never_deletes() {
    let world = World::new("").await;
    let id = world.note("hello").await;
    let path = format!("/memories/{id}/delete");
    for _ in 0..2 {
        let page = world.page(&path).await.expect(200).text;
        assert!(page.contains("Delete this memory?") && page.contains("hello"), "{page}");
        assert_eq!(link(&page, "Keep it"), format!("/memories/{id}"));
    }
    world.json(&format!("/memory/{id}")).await;
    let reply = world.post(&path, &[("back", "https://evil.example/memories")]).await.expect(303);
    assert_eq!(reply.header("location"), "/memories?done=deleted");
    assert_eq!(world.json("/usage/storage").await["used"], 0);
    world.page(&path).await.expect(404);
    world.post(&path, &[]).await.expect(404);
}

#[tokio::test]
async fn another_users_memory_is_like_none_and_another_sites_form_does_nothing() {
    let world = World::new("").await;
    let own = world.note("hello").await;
    let other = world.app.user("b@example.org", "basic").await;
    let theirs = json!({"type": "n", "input_context": "theirs"});
    let stored = world.app.call("POST", "/memory/store", Some(&other.token), Some(theirs)).await.expect(201);
    let theirs = stored.json["id"].as_str().unwrap();
    for id in [theirs, "00000000-0000-7000-8000-000000000000", "nothing", "%3Cscript%3E"] {
        for act in ["", "/delete"] {
            let page = world.page(&format!("/memories/{id}{act}")).await.expect(404);
            assert!(page.text.contains("One mark is missing") && !page.text.contains("<script>"), "{}", page.text);
            world.post(&format!("/memories/{id}{act}"), &fields(&[])[..0]).await.expect(404);
        }
    }
    for (act, sent) in [("", fields(&[("type", "forged")])), ("/delete", Vec::new())] {
        let mut forged = form(&format!("/memories/{own}{act}"), Some(&world.cookie), &sent);
        forged.headers_mut().insert("origin", "http://evil.example".parse().unwrap());
        world.app.send(forged).await.expect(403);
        let signed_out = form(&format!("/memories/{own}{act}"), None, &sent);
        assert!(world.app.send(signed_out).await.expect(303).header("location").starts_with("/login"));
    }
    assert_eq!(world.json(&format!("/memory/{own}")).await["type"], "note");
}
