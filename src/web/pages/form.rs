//! Form posts: only those that a page of this box sends.

use axum::extract::{FromRequest, Request};
use http::HeaderMap;
use http::Uri;
use http::header::{CONTENT_TYPE, HOST, ORIGIN, REFERER};

use crate::domain::{Error, Result};
use crate::web::extract::{read_body, refuse_encoded};
use crate::web::input::Fields;
use crate::web::problem::Failure;
use crate::web::state::AppState;

/// The fields of a form that was posted from a page of ours.
pub(in crate::web) struct Form(pub(super) Fields);

impl FromRequest<AppState> for Form {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Failure> {
        if !is_ours(request.headers(), request.uri(), state.config.server.public_url.as_deref()) {
            let detail = "the form was not sent by a page of this server (Origin)";
            return Err(Error::forbidden("foreign_origin", detail).into());
        }
        refuse_encoded(request.headers())?;
        let media = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = media.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") && !essence.is_empty() {
            let detail = "the body must be application/x-www-form-urlencoded";
            return Err(Error::UnsupportedMediaType(detail.to_owned()).into());
        }
        let bytes = read_body(request, state.config.server.body_bytes_max).await?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::invalid("body", "must be UTF-8"))?;
        Ok(Self(Fields::of_query(Some(text))?))
    }
}

/// Whether a post comes from a page of ours: by Origin, which browsers send with every post; where it is missing, by what
/// else a browser says. Who says nothing at all is no browser, and so cannot be made to post by another site's page (the
/// rule of Go's `http.CrossOriginProtection`).
fn is_ours(headers: &HeaderMap, uri: &Uri, public_url: Option<&str>) -> bool {
    // What cannot be read is there all the same, and no address of ours.
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
    let host = text(HOST).or_else(|| uri.authority().map(http::uri::Authority::as_str));
    let matches = |origin: &str| match public_url {
        Some(public_url) => {
            let ours = origin_of(public_url).map(without_default_port);
            ours.is_some_and(|ours| ours.eq_ignore_ascii_case(without_default_port(origin)))
        }
        None => origin
            .split_once("://")
            .is_some_and(|(_, theirs)| host.is_some_and(|ours| ours.eq_ignore_ascii_case(theirs))),
    };
    if let Some(origin) = text(ORIGIN) {
        return matches(origin);
    }
    match headers.get("sec-fetch-site") {
        Some(site) => site.as_bytes() == b"same-origin",
        None => text(REFERER).is_none_or(|referer| origin_of(referer).is_some_and(matches)),
    }
}

/// An origin as browsers write it: the port that its scheme has anyhow is left out.
fn without_default_port(origin: &str) -> &str {
    let port = if origin.starts_with("https://") { ":443" } else { ":80" };
    origin.strip_suffix(port).unwrap_or(origin)
}

/// Scheme and authority of a URL.
fn origin_of(url: &str) -> Option<&str> {
    let authority = url.find("://")? + 3;
    let rest = url.get(authority..)?;
    let end = rest.find(['/', '?', '#']).map_or(url.len(), |end| authority + end);
    url.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(pairs: &[(&'static str, &'static str)], public_url: Option<&str>) -> bool {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
        is_ours(&pairs.collect(), &Uri::from_static("/login"), public_url)
    }

    #[test]
    fn a_form_is_ours_by_origin_and_host() {
        let host = ("host", "box.test:8080");
        assert!(ours(&[host, ("origin", "http://box.test:8080")], None));
        for foreign in ["http://box.test", "http://evil.test:8080", "null", ""] {
            assert!(!ours(&[host, ("origin", foreign)], None), "{foreign}");
        }
        assert!(ours(&[host], None));
        assert!(!ours(&[host, ("referer", "about:blank")], None));
        assert!(ours(&[host, ("sec-fetch-site", "same-origin")], None));
        assert!(!ours(&[host, ("sec-fetch-site", "cross-site"), ("referer", "http://box.test:8080/login")], None));
        assert!(ours(&[host, ("referer", "http://box.test:8080/login")], None));
        assert!(!ours(&[host, ("referer", "http://evil.test/http://box.test:8080/")], None));
        for name in [ORIGIN, REFERER] {
            let unreadable = http::HeaderValue::from_bytes(b"http://ev\xe9l.test/").unwrap();
            let headers = HeaderMap::from_iter([(HOST, "box.test:8080".parse().unwrap()), (name, unreadable)]);
            assert!(!is_ours(&headers, &Uri::from_static("/login"), None));
        }
    }

    #[test]
    fn a_public_url_is_the_only_origin() {
        let public_url = Some("https://box.example.org/base");
        let host = ("host", "10.0.0.1:8080");
        assert!(ours(&[host, ("origin", "https://box.example.org")], public_url));
        assert!(!ours(&[host, ("origin", "http://10.0.0.1:8080")], public_url));
        assert!(ours(&[host, ("origin", "https://box.example.org")], Some("https://box.example.org:443")));
        assert!(ours(&[host, ("origin", "https://box.example.org:443")], public_url));
        assert!(!ours(&[host, ("origin", "https://box.example.org:80")], public_url));
        assert!(!ours(&[host, ("origin", "http://box.example.org")], public_url));
    }
}
