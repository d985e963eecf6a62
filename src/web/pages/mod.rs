//! Pages for people: the session cookie, form posts and where they come from, and the headers that protect a page.

pub(super) mod account;
pub(super) mod admin;
pub(super) mod assets;
pub(super) mod door;
mod form;
pub(super) mod memory;
pub(super) mod usage;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, COOKIE, HOST, LOCATION, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use maud::Markup;

use super::extract::is_https;
use super::input::{self, Fields};
use super::problem::{Failure, Problem};
use super::state::{AppState, Known};
use crate::domain::Error;
use crate::domain::auth::{Caller, SESSION_LIFE_MS, Scope};
use crate::service::auth::{Bearer, Presented};
use crate::view::error as view;
use crate::view::layout::{Frame, Who};

/// The cookie that holds a session.
const COOKIE_NAME: &str = "tallybox_session";
/// Where a visitor goes who names no other place.
const HOME: &str = "/usage";

/// The headers that every page carries: nothing is loaded from elsewhere, framed, guessed or kept.
pub(super) fn protect(headers: &mut HeaderMap) {
    const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; form-action 'self'; \
                          base-uri 'none'; frame-ancestors 'none'";
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

/// A page as a response.
fn page(status: StatusCode, markup: Markup) -> Response {
    let mut response = (status, markup.into_string()).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    protect(response.headers_mut());
    response
}

/// The sentence that the query's `said` stands for: what the act that led here has done.
fn said(fields: &mut Fields, table: &'static [(&'static str, &'static str)]) -> Option<&'static str> {
    let code = fields.optional("said", input::text(1..=32))?;
    table.iter().find(|(known, _)| *known == code).map(|(_, words)| *words)
}

/// 303: the browser goes on to `path`, which is one of ours.
fn see(path: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let location = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static(HOME));
    response.headers_mut().insert(LOCATION, location);
    protect(response.headers_mut());
    response
}

/// Marks the answer of a page's route: its failures are shown as pages whatever the client says it accepts.
#[derive(Clone, Copy, Debug)]
pub(super) struct IsPage;

/// The page of a failure, in the frame of whoever is signed in.
pub(super) fn error_page(
    state: &AppState,
    problem: &Problem,
    who: Option<&Who>,
    path: &str,
    request_id: &str,
) -> Markup {
    let frame = who.map(|who| Frame { who, now: state.now(), zone: state.quota.calendar.zone_name() });
    view::ErrorPage {
        status: problem.status.as_u16(),
        code: problem.code,
        detail: &problem.detail,
        path,
        request_id,
        frame,
    }
    .render()
}

/// What a page's route does with the answer of its handler: who is not signed in is sent to the door first.
pub(super) fn finish(method: &Method, uri: &Uri, mut response: Response) -> Response {
    let signed_out = response.status() == StatusCode::UNAUTHORIZED && response.extensions().get::<Problem>().is_some();
    if !signed_out {
        response.extensions_mut().insert(IsPage);
        return response;
    }
    let back = if matches!(*method, Method::GET | Method::HEAD) { uri.path_and_query() } else { None };
    let next = serde_urlencoded::to_string([("next", back.map_or(HOME, |back| back.as_str()))]);
    see(&format!("/login?{}", next.unwrap_or_default()))
}

/// Who looks at a page: the session of the cookie.
pub(super) struct Visitor(pub(super) Known);

impl FromRequestParts<AppState> for Visitor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        Ok(Self(visitor(&parts.headers, state, None).await?))
    }
}

/// An administrator who looks at a page: the session of the cookie, 403 for anyone else's.
pub(super) struct Administrator(pub(super) Known);

impl FromRequestParts<AppState> for Administrator {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        Ok(Self(visitor(&parts.headers, state, Some(Scope::Admin)).await?))
    }
}

async fn visitor(headers: &HeaderMap, state: &AppState, scope: Option<Scope>) -> Result<Known, Failure> {
    let bearer = session_of(headers).ok_or(Error::Unauthenticated)?;
    let presented = Presented { bearer: Some(bearer), ..Presented::default() };
    Ok(state.admit(presented, scope).await?)
}

/// Who a page is for, as its margin names them.
fn who(caller: &Caller) -> Who {
    let user = &caller.user;
    let name = user.email.clone().unwrap_or_else(|| user.id.to_string());
    Who { name, tier: caller.tier().to_owned(), role: user.role }
}

/// Who a page of a failure is for; none where nobody is signed in.
pub(super) async fn who_asks(headers: &HeaderMap, state: &AppState) -> Option<Who> {
    visitor(headers, state, None).await.ok().map(|known| who(known.caller()))
}

/// The session that the cookie names; an API token in its place opens nothing.
fn session_of(headers: &HeaderMap) -> Option<Bearer> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let secret = pairs.find_map(|(name, secret)| (name == COOKIE_NAME).then_some(secret))?;
    Bearer::parse(secret).filter(|bearer| bearer.is_session)
}

/// Whether a browser reached us by TLS, so that the cookie must never travel without.
#[derive(Clone, Copy)]
pub(super) struct Tls(bool);

impl FromRequestParts<AppState> for Tls {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        Ok(Self(is_https(&parts.headers, &parts.extensions, &state.config.server)))
    }
}

/// Puts a session into the cookie, or takes it out.
fn set_cookie(response: &mut Response, secret: Option<&str>, tls: Tls) {
    let secure = if tls.0 { "; Secure" } else { "" };
    let seconds = if secret.is_some() { SESSION_LIFE_MS / 1_000 } else { 0 };
    let secret = secret.unwrap_or_default();
    let cookie = format!("{COOKIE_NAME}={secret}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}

/// `GET /`
pub(super) async fn root() -> Response {
    see(HOME)
}

/// `next` where it is a place of ours, else home.
fn local(next: Option<&str>) -> &str {
    local_or(next, HOME)
}

/// `next` where it is a place of ours, else `other`. A browser takes `//host`, `/\host` and `/<tab>/host` for other hosts.
fn local_or<'n>(next: Option<&'n str>, other: &'n str) -> &'n str {
    let is_local = |next: &&str| {
        next.starts_with('/')
            && !next.starts_with("//")
            && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    next.filter(is_local).unwrap_or(other)
}

/// Where programs find this server, for a command to copy: as configured, else as the browser reached us.
pub(super) struct Address(String);

impl FromRequestParts<AppState> for Address {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        let server = &state.config.server;
        if let Some(public_url) = &server.public_url {
            return Ok(Self(public_url.trim_end_matches('/').to_owned()));
        }
        let is_plain = |host: &&str| {
            !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte))
        };
        let named = parts.headers.get(HOST).and_then(|value| value.to_str().ok());
        let host = named.or_else(|| parts.uri.authority().map(http::uri::Authority::as_str)).filter(is_plain);
        let scheme = if is_https(&parts.headers, &parts.extensions, server) { "https" } else { "http" };
        Ok(Self(format!("{scheme}://{}", host.map_or_else(|| server.listen.to_string(), str::to_owned))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_leads_nowhere_else() {
        for good in ["/usage", "/memories?q=a%20b&page=2", "/"] {
            assert_eq!(local(Some(good)), good);
        }
        for bad in
            ["", "//evil.example", "/\\evil.example", "/\t/evil.example", "https://evil.example", "usage", "/a b"]
        {
            assert_eq!(local(Some(bad)), HOME, "{bad:?}");
        }
        assert_eq!(local(None), HOME);
    }
}
