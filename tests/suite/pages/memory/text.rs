//! What users write is text on every page, whatever it looks like.

use serde_json::json;

use super::World;

const CORPUS: [&str; 12] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "<a href=\"javascript:alert(1)\">x</a>",
    "</textarea><script>alert(1)</script>",
    "</title><svg onload=alert(1)>",
    "&lt;u&gt;&#60;i&#62;",
    "<!-- --><![CDATA[x]]>",
    "{{7*7}}${7*7}<%= 7 %>",
    "gnp\u{202e}exe.\u{2066}x",
    "</pre><iframe srcdoc='x'>",
];

/// What may stand between `<` and `>` on a page of ours: only what our views write.
#[track_caller]
fn holds_only_ours(page: &str, path: &str) {
    for foreign in ["<script>", "<img", "<iframe", "<!--", "<![", "<u>", "<i>", "href=\"javascript"] {
        assert!(!page.contains(foreign), "{foreign} on {path}: {page}");
    }
    for attribute in [" onerror=", " onmouseover=", " srcdoc=", " onload="] {
        for (at, _) in page.match_indices(attribute) {
            let before = &page[..at];
            let is_text = before.rfind('>') > before.rfind('<') || before.matches('"').count() % 2 == 1;
            assert!(is_text, "{attribute} on {path}: {page}");
        }
    }
    assert!(page.matches("</textarea>").count() <= 1 && page.matches("</title>").count() == 1, "{path}: {page}");
    assert!(!page.contains("style="), "{path}");
}

#[tokio::test]
async fn markup_in_a_memory_stays_inert_on_every_page() {
    let world = World::new("").await;
    let mut paths = vec!["/memories".to_owned()];
    for hostile in CORPUS {
        let id = world
            .store(json!({
                "type": hostile, "input_context": hostile, "tags": [hostile, format!("{hostile},")], "session": hostile,
                "metadata": {hostile: hostile},
            }))
            .await;
        let query = serde_urlencoded::to_string([("q", hostile), ("tag", hostile), ("type", hostile)]).unwrap();
        let lost = serde_urlencoded::to_string([("session", hostile), ("tag", "nope"), ("from", hostile)]).unwrap();
        let back = serde_urlencoded::to_string([("back", format!("/memories?tag={hostile}"))]).unwrap();
        paths.extend([
            format!("/memories?{query}"),
            format!("/memories?{lost}"),
            format!("/memories/{id}"),
            format!("/memories/{id}?{back}"),
            format!("/memories/{id}/delete?{back}"),
        ]);
        let typed =
            [("input_context", hostile), ("type", hostile), ("tags", hostile), ("tier", hostile), ("session", hostile)];
        let refused = world.post(&format!("/memories/{id}"), &typed).await.expect(422).text;
        holds_only_ours(&refused, "a refused form");
    }
    for path in &paths {
        let page = world.page(path).await;
        assert!(matches!(page.status, 200 | 422), "{path}: {}", page.status);
        holds_only_ours(&page.text, path);
    }
    let page = world.page("/memories").await.expect(200).text;
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
    assert!(page.contains("&amp;lt;u&amp;gt;&amp;#60;i&amp;#62;"), "{page}");
}

#[tokio::test]
async fn what_turns_the_direction_of_writing_stays_within_its_element() {
    let world = World::new("").await;
    let turned = "gnp\u{202e}exe";
    let memory = json!({"type": turned, "input_context": turned, "tags": [turned], "session": turned});
    let id = world.store(memory).await;
    for path in ["/memories".to_owned(), format!("/memories/{id}"), format!("/memories/{id}/delete")] {
        let page = world.page(&path).await.expect(200).text;
        for (at, _) in page.match_indices('\u{202e}') {
            let tag = page[..at].rsplit_once('<').unwrap().1;
            let isolates = ["bdi", "p class=\"memory-text\"", "option", "textarea", "input", "pre"];
            assert!(isolates.iter().any(|element| tag.starts_with(element)), "{path}: <{tag}");
        }
    }
}
