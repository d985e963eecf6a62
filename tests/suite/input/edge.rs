//! Around every request: ids, methods, paths, HEAD.

use serde_json::json;

use crate::suite::support::TestApp;

#[tokio::test]
async fn an_answer_has_the_callers_request_id_where_it_is_a_good_one() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    let long = "x".repeat(65);
    for (path, status) in [("/usage/tokens", 200), ("/usage/stats?days=0", 422), ("/nowhere", 404), ("/healthz", 200)] {
        for good in ["a", "A-1_b.c", &long[1..]] {
            let reply =
                app.call_with("GET", path, Some(&user.token), None, &[("X-Request-Id", good)]).await.expect(status);
            assert_eq!(reply.header("x-request-id"), good);
            assert!(status == 200 || reply.json["requestId"] == good, "{}", reply.text);
        }
        let mut seen = vec![String::new()];
        for bad in ["", "a b", "a/b", "ab\u{7f}", &long, "<script>"] {
            let headers = [("X-Request-Id", bad)];
            let headers = if bad.contains('\u{7f}') { &headers[1..] } else { &headers };
            let reply = app.call_with("GET", path, Some(&user.token), None, headers).await.expect(status);
            let id = reply.header("x-request-id").to_owned();
            assert!(id.len() == 32 && !seen.contains(&id), "{bad:?} gave {id:?}");
            seen.push(id);
        }
    }
}

#[tokio::test]
async fn a_path_that_is_none_and_a_method_that_is_not_taken_are_problems() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    for path in
        ["/nowhere", "/api/nowhere", "/usage/", "/usage/tokens/", "/api", "/api/", "/usage/ledger/x", "//usage/tokens"]
    {
        let reply = app.ask(&user.token, path).await.expect(404);
        assert_eq!((reply.code(), reply.header("content-type")), ("not_found", "application/problem+json"), "{path}");
    }
    for (method, path, allow) in [
        ("PUT", "/usage/tokens", "GET,HEAD"),
        ("DELETE", "/usage/record", "POST"),
        ("GET", "/api/usage/record", "POST"),
        ("PATCH", "/usage/reservations", "GET,HEAD,POST"),
        ("POST", "/healthz", "GET,HEAD"),
    ] {
        let reply = app.call(method, path, Some(&user.token), Some(json!({}))).await.expect(405);
        assert_eq!((reply.code(), reply.header("content-type")), ("method_not_allowed", "application/problem+json"));
        let mut allowed: Vec<&str> = reply.header("allow").split(',').map(str::trim).collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), allow, "{method} {path}");
    }
}

#[tokio::test]
async fn a_path_that_is_no_text_names_nothing() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    let admin = app.admin("admin@example.org").await;
    for path in ["/usage/timeseries/%ff", "/memory/%ff", "/api/memory/%c3%28", "/assets/%ff"] {
        let reply = app.ask(&user.token, path).await.expect(404);
        assert_eq!((reply.code(), reply.header("content-type")), ("not_found", "application/problem+json"), "{path}");
    }
    app.drop_at(&user.token, "/usage/reservations/%ff").await.expect(404);
    app.ask(&admin.token, "/api/admin/users/%ff").await.expect(404);
    app.drop_at(&admin.token, "/api/admin/users/%ff/tokens/%fe").await.expect(404);
    // A query that is no text either.
    for query in ["days=%ff", "%ff=1", "days=%00"] {
        app.ask(&user.token, &format!("/usage/stats?{query}")).await.expect(422);
    }
}

#[tokio::test]
async fn head_answers_as_get_without_a_body() {
    let app = TestApp::new();
    let user = app.user("a@example.org", "basic").await;
    for (path, status) in
        [("/usage/tokens", 200), ("/usage/stats?days=0", 422), ("/nowhere", 404), ("/usage/record", 405)]
    {
        let get = app.ask(&user.token, path).await.expect(status);
        let head = app.call("HEAD", path, Some(&user.token), None).await.expect(status);
        assert_eq!((head.text.as_str(), head.header("content-type")), ("", get.header("content-type")), "{path}");
    }
    app.call("HEAD", "/usage/tokens", None, None).await.expect(401);
}
