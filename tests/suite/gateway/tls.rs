//! Upstreams behind TLS, found by their name.

use std::convert::Infallible;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::fake::{Fake, answer, chunk};
use super::{TIERS, hello};
use crate::suite::support::{Reply, TestApp, TestUser, request};

/// Who vouches for certificates, and its own in a file.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: NamedTempFile,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of the tests");
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(own.pem().as_bytes()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    fn vouch(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }
}

/// A request as it came: by which version of HTTP, and with which key.
type Seen = (Version, String);

/// An upstream behind TLS, which answers the way the model is called.
struct Secure {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
    _task: JoinSet<()>,
}

impl Secure {
    /// Shows a certificate for `name`, and speaks these protocols. `elsewhere` is where it redirects to.
    async fn start(authority: &Authority, name: &str, protocols: &[&str], elsewhere: &str) -> Self {
        let (certificate, key) = authority.vouch(name);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let (log, count, elsewhere) = (Arc::clone(&seen), Arc::clone(&connections), elsewhere.to_owned());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, log, count) = (acceptor.clone(), Arc::clone(&log), Arc::clone(&count));
                let elsewhere = elsewhere.clone();
                open.spawn(async move {
                    // A client that does not believe who we are hangs up here.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    *count.lock().unwrap() += 1;
                    let service =
                        hyper::service::service_fn(move |request| reply(request, Arc::clone(&log), elsewhere.clone()));
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, seen, connections, _task: task }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// An application that has it as its one upstream.
    async fn app(&self, more: &str) -> (TestApp, TestUser) {
        let url = format!("https://localhost:{}/v1", self.port);
        let app = TestApp::with_config(&format!("{TIERS}{}{more}\n", super::upstream("secure", &url, "*")));
        let user = app.user("a@example.org", "pro").await;
        (app, user)
    }
}

async fn reply(
    request: Request<hyper::body::Incoming>,
    log: Arc<Mutex<Vec<Seen>>>,
    elsewhere: String,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let version = request.version();
    let key = request.headers()["authorization"].to_str().unwrap().to_owned();
    let body: Value = serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
    log.lock().unwrap().push((version, key));
    if body["user"] == "elsewhere" {
        let moved = http::Response::builder().status(307).header("location", elsewhere);
        return Ok(moved.body(Full::default()).unwrap());
    }
    if body["stream"] != true {
        let text = answer("Well then.", 9, 4).to_string();
        return Ok(http::Response::builder().header("content-type", "application/json").body(text.into()).unwrap());
    }
    let words = if body["user"] == "long" { 4_000 } else { 3 };
    let choices = json!([{"index": 0, "delta": {"content": "word ".repeat(20)}, "finish_reason": null}]);
    let mut text = format!("data: {}\n\n", chunk(&choices, &Value::Null)).repeat(words);
    text.push_str("data: [DONE]\n\n");
    Ok(http::Response::builder().header("content-type", "text/event-stream").body(text.into()).unwrap())
}

async fn ask(app: &TestApp, user: &TestUser, more: &Value) -> Reply {
    app.tell(&user.token, "/v1/chat/completions", hello(more)).await
}

fn trusts(authority: &Authority) -> String {
    format!("ca_file = '{}'", authority.file.path().display())
}

#[tokio::test]
async fn an_upstream_with_a_certificate_of_ones_own_authority_is_asked_by_either_http() {
    let authority = Authority::new();
    for (protocols, version) in
        [(&["h2", "http/1.1"][..], Version::HTTP_2), (&["http/1.1"], Version::HTTP_11), (&[], Version::HTTP_11)]
    {
        let secure = Secure::start(&authority, "localhost", protocols, "").await;
        let (app, user) = secure.app(&trusts(&authority)).await;
        let said = ask(&app, &user, &json!({})).await.expect(200);
        assert_eq!(said.json, answer("Well then.", 9, 4));
        let streamed = ask(&app, &user, &json!({"stream": true})).await.expect(200);
        assert_eq!(streamed.text.matches("word word").count() / 10, 3);
        assert!(streamed.text.ends_with("data: [DONE]\n\n"));
        assert_eq!(secure.seen(), vec![(version, "Bearer sk-operator".to_owned()); 2], "{protocols:?}");
        assert_eq!(*secure.connections.lock().unwrap(), 1, "the connection was not used again");
        assert_eq!(app.tokens(&user).await.1, 0);
        app.proves();
    }
}

#[tokio::test]
async fn who_cannot_prove_itself_is_told_nothing() {
    let (ours, strange) = (Authority::new(), Authority::new());
    for (name, authority, more) in [
        ("an authority that nobody named", &strange, String::new()),
        ("another authority than the one named", &strange, trusts(&ours)),
        ("the certificate of another host", &ours, trusts(&ours)),
    ] {
        let host = if name.contains("host") { "elsewhere.example" } else { "localhost" };
        let secure = Secure::start(authority, host, &["h2", "http/1.1"], "").await;
        let (app, user) = secure.app(&more).await;
        for more in [json!({}), json!({"stream": true})] {
            let reply = ask(&app, &user, &more).await.expect(502);
            let error = &reply.json["error"];
            assert_eq!(error["code"], "upstream_untrusted", "{name}: {}", reply.text);
            assert_eq!(error["message"], "the certificate of the model's server is not trusted", "{name}");
        }
        assert_eq!((secure.seen(), app.tokens(&user).await), (Vec::new(), (0, 0)), "{name}");
    }
}

#[tokio::test]
async fn https_is_never_spoken_in_the_clear() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/v1", listener.local_addr().unwrap().port());
    let mut plain: JoinSet<Vec<Vec<u8>>> = JoinSet::new();
    plain.spawn(async move {
        let mut heard = Vec::new();
        loop {
            // After the second call it has heard what there is to hear.
            let Ok(accepted) = timeout(Duration::from_secs(2), listener.accept()).await else { return heard };
            let mut stream = accepted.unwrap().0;
            let mut bytes = vec![0; 4_096];
            let count = stream.read(&mut bytes).await.unwrap();
            heard.push(bytes[..count].to_vec());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
        }
    });
    let app = TestApp::with_config(&format!("{TIERS}{}", super::upstream("plain", &url, "*")));
    let user = app.user("a@example.org", "basic").await;
    for more in [json!({}), json!({"stream": true})] {
        let reply = ask(&app, &user, &more).await.expect(502);
        assert_eq!(reply.json["error"]["code"], "upstream_unreachable");
    }
    let heard = plain.join_next().await.unwrap().unwrap();
    assert_eq!(heard.len(), 2);
    for bytes in heard {
        // A greeting of TLS, and nothing of the call.
        assert_eq!(bytes[0], 22, "{}", String::from_utf8_lossy(&bytes));
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("sk-operator") && !text.contains("How are you"));
    }
    assert_eq!(app.tokens(&user).await, (0, 0));
}

#[tokio::test]
async fn the_next_upstream_is_asked_where_one_cannot_prove_itself() {
    let secure = Secure::start(&Authority::new(), "localhost", &["h2"], "").await;
    let second = Fake::start().await;
    second.always(super::fake::Act::Whole(200, answer("From the second.", 9, 4).to_string()));
    let (app, user) = secure.app(&format!("\n{}", super::upstream("second", &second.url, "*"))).await;
    let reply = ask(&app, &user, &json!({})).await.expect(200);
    assert_eq!(reply.json["choices"][0]["message"]["content"], "From the second.");
    assert!(secure.seen().is_empty());
}

#[tokio::test]
async fn a_redirect_leads_nowhere() {
    let authority = Authority::new();
    let other = Fake::start().await;
    let secure = Secure::start(&authority, "localhost", &["h2", "http/1.1"], &other.url).await;
    let (app, user) = secure.app(&trusts(&authority)).await;
    let reply = ask(&app, &user, &json!({"user": "elsewhere"})).await.expect(502);
    assert_eq!(reply.json["error"]["code"], "upstream_failed");
    assert!(!reply.text.contains(&other.url) && !reply.headers.contains_key("location"));
    assert_eq!((secure.seen().len(), other.seen().len()), (1, 0), "the key and the prompt went elsewhere");
    assert_eq!(app.tokens(&user).await, (0, 0));
}

/// All calls to a host share one connection of HTTP/2, and with it what may be under way on it.
#[tokio::test]
async fn callers_who_take_nothing_do_not_hold_up_the_others() {
    let authority = Authority::new();
    let secure = Secure::start(&authority, "localhost", &["h2"], "").await;
    let (app, user) = secure.app(&trusts(&authority)).await;
    let mut stalled: Vec<Response<Body>> = Vec::new();
    for _ in 0..12 {
        let body = Some(hello(&json!({"stream": true, "user": "long"})));
        let request = request("POST", "/v1/chat/completions", Some(&user.token), body, &[]);
        let mut response = app.app.router().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        response.body_mut().frame().await.unwrap().unwrap();
        stalled.push(response);
    }
    ask(&app, &user, &json!({"stream": true})).await.expect(200);
    ask(&app, &user, &json!({})).await.expect(200);
    assert_eq!(*secure.connections.lock().unwrap(), 1);
}
