//! Requests of ours go where the configuration says, by TLS of our own, and nowhere else. See also `gateway/tls.rs` and
//! `embedding_remote.rs`.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::suite::calls::id_of;
use crate::suite::cli::{Server, command, run};
use crate::suite::gateway::fake::{Act, Fake, answer};
use crate::suite::support::TestApp;

#[tokio::test]
async fn an_answer_that_sends_elsewhere_is_an_upstream_that_failed() {
    let elsewhere = Fake::start().await;
    for status in [301, 302, 303, 307, 308] {
        let fake = Fake::start().await;
        fake.always(Act::Redirect(status, elsewhere.url.clone()));
        let app = TestApp::with_config(&format!(
            "[[gateway.upstreams]]\nname = 'one'\nbase_url = '{}'\napi_key = 'sk-operator'\nmodels = ['*']\n",
            fake.url
        ));
        let user = app.user("a@example.org", "basic").await;
        let chat = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5});
        let reply = app.tell(&user.token, "/v1/chat/completions", chat).await.expect(502);
        assert!(!reply.text.contains(&elsewhere.url) && !reply.headers.contains_key("location"), "{}", reply.text);
        assert_eq!((fake.seen().len(), elsewhere.seen().len()), (1, 0), "{status}");
        assert_eq!(app.tokens(&user).await, (0, 0));
    }
}

/// Everything that a request could name to be fetched or asked instead.
#[tokio::test]
async fn no_request_names_where_ours_go() {
    let (fake, other) = (Fake::start().await, Fake::start().await);
    fake.always(Act::Whole(200, answer("here", 1, 1).to_string()));
    let app = TestApp::with_config(&format!(
        "[[gateway.upstreams]]\nname = 'one'\nbase_url = '{}'\napi_key = 'sk-operator'\nmodels = ['*']\n",
        fake.url
    ));
    let user = app.user("a@example.org", "basic").await;
    let authority = other.url.trim_start_matches("http://").trim_end_matches("/v1").to_owned();
    let image = json!([{"type": "image_url", "image_url": {"url": format!("{}/secret.png", other.url)}}]);
    for (content, model) in [
        (json!("hello"), other.url.as_str()),
        (json!("hello"), "../../v2/admin"),
        (json!("hello"), "x@evil.example/"),
        (image, "m"),
    ] {
        let chat = json!({"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 5,
            "base_url": other.url, "api_base": other.url});
        let headers = [("host", authority.as_str()), ("x-upstream", &other.url), ("x-forwarded-host", &authority)];
        app.tell_with(&user.token, "/v1/chat/completions", chat, &headers).await;
    }
    let memory = json!({"type": "n", "input_context": format!("see {}", other.url)});
    let stored = id_of(&app.tell(&user.token, "/memory/store", memory).await.expect(201));
    app.ask(&user.token, &format!("/memory/{stored}")).await.expect(200);
    assert!(other.seen().is_empty(), "{:?}", other.seen());
    for seen in fake.seen() {
        assert!(seen.head.starts_with("post /v1/chat/completions http/1.1\r\n"), "{}", seen.head);
        assert!(!seen.head.contains(&authority), "{}", seen.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_the_environment_names_is_not_asked() {
    let fake = Fake::start().await;
    fake.always(Act::Whole(200, answer("here", 1, 1).to_string()));
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in proxy.incoming() {
            let mut bytes = [0; 64];
            let count = stream.unwrap().read(&mut bytes).unwrap_or(0);
            hears.lock().unwrap().push(bytes[..count].to_vec());
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.toml");
    let toml = format!("[[gateway.upstreams]]\nname = 'one'\nbase_url = '{}'\nmodels = ['*']\n", fake.url);
    std::fs::write(&config, toml).unwrap();
    run(directory.path(), &["user", "add", "a@example.org", "--tier", "basic"]);
    let token = run(directory.path(), &["token", "create", "--user", "a@example.org", "--name", "t"]);
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--config", config.to_str().unwrap()];
    let mut serve = command(directory.path(), &arguments);
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        serve.env(name, &address);
    }
    let server = tokio::task::spawn_blocking(move || Server::start(serve)).await.unwrap();
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5});
    // Whoever comes first installs it; no connection of this test is encrypted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/v1/chat/completions", server.url);
    let asked = client.post(url).bearer_auth(token).json(&chat).send().await.unwrap();
    assert_eq!(asked.status(), 200);
    assert_eq!(fake.seen().len(), 1);
    assert!(heard.lock().unwrap().is_empty(), "the proxy was asked");
}

/// All TLS is rustls': no other implementation is built in.
#[test]
fn no_other_tls_than_rustls_is_built_in() {
    let lock = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    let names: BTreeSet<&str> =
        lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    assert!(names.contains("rustls") && names.contains("webpki-roots"));
    for other in ["openssl", "openssl-sys", "native-tls", "hyper-tls", "boring", "mbedtls"] {
        assert!(!names.contains(other), "{other} is built in");
    }
}
