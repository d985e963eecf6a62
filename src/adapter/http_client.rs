//! The HTTP client for requests to the outside.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

/// A client that trusts the certificate authorities built into the binary, so that it works in a
/// container without any, and `authorities` beside them, and follows no redirects: the answer to a request with a key in its
/// header must come from the host that the key is for.
///
/// # Errors
///
/// When the TLS provider cannot be set up, or one of `authorities` is none.
pub(super) fn builder(authorities: &[CertificateDer<'static>]) -> Result<reqwest::ClientBuilder, rustls::Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        // Where requests go is the configuration's to say, not the environment's.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("tallybox/", env!("CARGO_PKG_VERSION"))))
}
