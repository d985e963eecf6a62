//! Sessions, the caller's own password, and its API tokens.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::answer::page_limit;
use super::extract::{Body, Client, Path, Query};
use super::input::{self, Fields};
use super::problem::Answer;
use super::state::{AppState, Known};
use crate::domain::auth::{ApiToken, Scopes, User, check_password, parse_scopes};
use crate::domain::page::{Page, Paging};
use crate::domain::unit::{Timestamp, TokenId, UserId};
use crate::domain::{Error, Result};
use crate::service::auth::session::Session;
use crate::service::auth::token::{EXPIRES_DAYS, NAME_CHARACTERS, NewToken};
use crate::service::auth::{account, session, token};

/// A password that is only compared may be of any length up to here.
pub(super) const COMPARED_CHARACTERS: std::ops::RangeInclusive<usize> = 0..=1_024;
/// Longest e-mail address that is looked up.
pub(super) const EMAIL_CHARACTERS: std::ops::RangeInclusive<usize> = 1..=254;

/// What is shown to log in.
pub(super) struct Login {
    pub(super) email: String,
    pub(super) password: String,
    /// The session of the same browser, which ends.
    pub(super) replaces: Option<[u8; 32]>,
}

impl Login {
    /// Reads the fields `email` and `password`.
    pub(super) fn take(fields: &mut Fields, replaces: Option<[u8; 32]>) -> Option<Self> {
        let email = fields.required("email", input::text(EMAIL_CHARACTERS));
        let password = fields.required("password", input::text(COMPARED_CHARACTERS));
        Some(Self { email: email?, password: password?, replaces })
    }
}

/// Logs in: the same work and the same answer for an unknown address as for a wrong password.
pub(super) async fn log_in(state: &AppState, client: IpAddr, login: Login) -> Result<Session> {
    let Login { email, password, replaces } = login;
    let looked_up = email.clone();
    let candidate = state.store.read(move |reader| session::find_candidate(reader, &looked_up)).await?;
    let (user, hash) = candidate.map_or((None, None), |(user, hash)| (Some(user), hash));
    verify(state, client, &email, password, hash.clone()).await?;
    let (Some(user), Some(proved)) = (user, hash) else { return Err(Error::WrongPassword) };
    state.store.write(move |writer| session::log_in(writer, &user, &proved, replaces)).await
}

/// Compares a password with `hash`, counting failures from `client` for `email`.
async fn verify(state: &AppState, client: IpAddr, email: &str, password: String, hash: Option<String>) -> Result<()> {
    let still = || state.attempts.check(client, email, state.now());
    still()?;
    if state.passwords.verify(password, hash, still).await? {
        Ok(())
    } else {
        Err(state.attempts.fail(client, email, state.now()))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoginAnswer {
    token: String,
    expires_at: Timestamp,
    user: UserAnswer,
}

#[derive(Serialize)]
struct UserAnswer {
    id: UserId,
    email: Option<String>,
    role: &'static str,
    tier: String,
}

impl From<User> for UserAnswer {
    fn from(user: User) -> Self {
        Self { id: user.id, email: user.email, role: user.role.as_str(), tier: user.tier }
    }
}

/// An answer that holds a secret is kept by nobody on the way.
pub(super) fn with_secret(status: StatusCode, body: impl Serialize) -> Response {
    let mut response = (status, Json(body)).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `POST /auth/login`
pub(super) async fn login(State(state): State<AppState>, Client(client): Client, body: Body) -> Answer {
    let mut fields = body.fields()?;
    let login = Login::take(&mut fields, None);
    let login = fields.finish(|| login)?;
    let Session { secret, expires_at, user } = log_in(&state, client, login).await?;
    Ok(with_secret(StatusCode::OK, LoginAnswer { token: secret, expires_at, user: user.into() }))
}

/// `POST /auth/logout`
pub(super) async fn logout(State(state): State<AppState>, known: Known, body: Body) -> Answer<StatusCode> {
    body.fields_or_none()?.finish(|| Some(()))?;
    let hash = known.bearer_hash().ok_or(Error::Unauthenticated)?;
    state.write(&known, move |writer, _| session::log_out(writer, &hash)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize)]
pub(super) struct MeAnswer {
    #[serde(flatten)]
    user: UserAnswer,
    scopes: Vec<&'static str>,
}

/// `GET /auth/me`
pub(super) async fn me(State(state): State<AppState>, known: Known, query: Query) -> Answer<Json<MeAnswer>> {
    query.0.finish(|| Some(()))?;
    let answer = state
        .read(&known, |_, caller| Ok(MeAnswer { user: caller.user.clone().into(), scopes: caller.scopes.names() }));
    Ok(Json(answer.await?))
}

/// `POST /auth/password`
pub(super) async fn password(
    State(state): State<AppState>,
    known: Known,
    Client(client): Client,
    body: Body,
) -> Answer<StatusCode> {
    let mut fields = body.fields()?;
    let current = fields.required("currentPassword", input::text(COMPARED_CHARACTERS));
    let new = fields.required("newPassword", new_password);
    let revoke_tokens = fields.optional("revokeTokens", input::flag).unwrap_or(false);
    let change = fields.finish(|| Some(PasswordChange { current: current?, new: new?, revoke_tokens }))?;
    change_password(&state, &known, client, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A change of the caller's own password.
pub(super) struct PasswordChange {
    pub(super) current: String,
    pub(super) new: String,
    pub(super) revoke_tokens: bool,
}

/// Changes the caller's own password, which is proved first.
pub(super) async fn change_password(
    state: &AppState,
    known: &Known,
    client: IpAddr,
    change: PasswordChange,
) -> Result<()> {
    let PasswordChange { current, new, revoke_tokens } = change;
    let hash = state.read(known, |reader, caller| account::password_of(reader, caller.user.key)).await?;
    let email = known.caller().user.email.clone().unwrap_or_default();
    verify(state, client, &email, current, hash.clone()).await?;
    let proved = hash.ok_or(Error::WrongPassword)?;
    let new_hash = state.passwords.hash(new).await?;
    let change = state.write(known, move |writer, caller| {
        account::change_own_password(writer, caller, &proved, &new_hash, revoke_tokens)
    });
    change.await
}

/// A password to be set.
pub(super) fn new_password(value: Value) -> Result<String, input::Why> {
    let Value::String(password) = value else { return Err("must be a text".to_owned()) };
    match check_password(&password, "") {
        Ok(()) => Ok(password),
        Err(Error::Invalid(faults)) => Err(faults.into_iter().map(|fault| fault.message).collect()),
        Err(other) => Err(other.to_string()),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenAnswer {
    id: TokenId,
    name: String,
    scopes: Vec<&'static str>,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
}

impl From<ApiToken> for TokenAnswer {
    fn from(token: ApiToken) -> Self {
        Self {
            id: token.id,
            name: token.name,
            scopes: token.scopes.names(),
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokensAnswer {
    tokens: Vec<TokenAnswer>,
    next_cursor: Option<String>,
}

impl From<Page<ApiToken>> for TokensAnswer {
    fn from(page: Page<ApiToken>) -> Self {
        let page = page.map(TokenAnswer::from);
        Self { tokens: page.items, next_cursor: page.next }
    }
}

/// `GET /auth/tokens`
pub(super) async fn list_tokens(
    State(state): State<AppState>,
    known: Known,
    query: Query,
) -> Answer<Json<TokensAnswer>> {
    let paging = parse_paging(query.0)?;
    let page = state.read(&known, move |reader, caller| token::list(reader, caller.user.key, false, paging)).await?;
    Ok(Json(page.into()))
}

/// A query that asks for a page and nothing else.
pub(super) fn parse_paging(mut fields: Fields) -> Result<Paging> {
    let limit = page_limit(&mut fields);
    let cursor = fields.optional("cursor", input::text(1..=255));
    let paging = fields.absorb(Paging::new(limit, cursor.as_deref()))?;
    fields.finish(|| paging)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewTokenAnswer {
    #[serde(flatten)]
    listed: TokenAnswer,
    token: String,
}

/// `POST /auth/tokens`
pub(super) async fn create_token(State(state): State<AppState>, known: Known, body: Body) -> Answer {
    let mut fields = body.fields()?;
    let name = fields.required("name", token_name);
    let scopes = fields.optional("scopes", scopes);
    let expires_in_days = fields.optional("expiresInDays", input::integer(EXPIRES_DAYS));
    let new = fields.finish(|| Some(NewToken { name: name?, scopes, expires_in_days }))?;
    let new = Arc::new(new);
    let made = state.write(&known, move |writer, caller| token::create(writer, &caller.user, &new)).await?;
    let (listed, secret) = (made.0.into(), made.1);
    Ok(with_secret(StatusCode::CREATED, NewTokenAnswer { listed, token: secret }))
}

/// The name of a token.
pub(super) fn token_name(value: Value) -> Result<String, input::Why> {
    let name = input::text(NAME_CHARACTERS)(value)?;
    if name.chars().any(char::is_control) { Err("must have no control characters".to_owned()) } else { Ok(name) }
}

fn scopes(value: Value) -> Result<Scopes, input::Why> {
    let names = input::list(1..=16)(value)?;
    let names: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
    let names = names.ok_or_else(|| "must be a list of texts".to_owned())?;
    match parse_scopes(names, "") {
        Ok(scopes) => Ok(scopes),
        Err(Error::Invalid(faults)) => Err(faults.into_iter().map(|fault| fault.message).collect()),
        Err(other) => Err(other.to_string()),
    }
}

/// `DELETE /auth/tokens/{id}`
pub(super) async fn revoke_token(
    State(state): State<AppState>,
    known: Known,
    Path(id): Path<String>,
) -> Answer<StatusCode> {
    let id = TokenId::parse(&id).ok_or(Error::NotFound("the token"))?;
    state.write(&known, move |writer, caller| token::revoke(writer, caller.user.key, id)).await?;
    Ok(StatusCode::NO_CONTENT)
}
