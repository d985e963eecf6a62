//! What an administrator does to one user.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use crate::domain::audit::Actor;
use crate::domain::auth::{Caller, Role, User, UserFilter};
use crate::domain::ledger::{METADATA_BYTES_MAX, Source};
use crate::domain::page::Paging;
use crate::domain::unit::{Timestamp, TokenId, UserId};
use crate::domain::{Error, Result};
use crate::service::auth::account::{self, By, Changes, New};
use crate::service::auth::{link::Link, token};
use crate::service::erasure::{self, Receipt};
use crate::service::idempotency::{self, Key};
use crate::service::ledger::{self as entries, Fact};
use crate::store::Reader;
use crate::web::answer::{once, page_limit, respond};
use crate::web::auth::{TokensAnswer, new_password, parse_paging, with_secret};
use crate::web::extract::{Body, Client, MaybeKey, Path, Query};
use crate::web::input::{self, Fields};
use crate::web::problem::Answer;
use crate::web::state::{AppState, Known};
use crate::web::usage::{LedgerAnswer, RecordAnswer, StatsAnswer, parse_amount, parse_days, parse_listing};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::web) struct UserAnswer {
    id: UserId,
    email: Option<String>,
    role: &'static str,
    tier: String,
    disabled: bool,
    disabled_at: Option<Timestamp>,
    created_at: Timestamp,
}

impl From<User> for UserAnswer {
    fn from(user: User) -> Self {
        Self {
            id: user.id,
            email: user.email,
            role: user.role.as_str(),
            tier: user.tier,
            disabled: user.disabled_at.is_some(),
            disabled_at: user.disabled_at,
            created_at: user.created_at,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::web) struct UsersAnswer {
    users: Vec<UserAnswer>,
    next_cursor: Option<String>,
}

/// The id of a user, as a path has it.
pub(in crate::web) fn parse_id(id: &str) -> Result<UserId> {
    UserId::parse(id).ok_or(Error::NotFound("the user"))
}

/// `user` or `admin`.
pub(in crate::web) fn role(value: Value) -> Result<Role, input::Why> {
    value.as_str().and_then(Role::parse).ok_or_else(|| "must be user or admin".to_owned())
}

/// A tier of the configuration.
fn known_tier(state: &AppState) -> impl Fn(Value) -> Result<String, input::Why> {
    |value| match value {
        Value::String(tier) if state.quota.tiers.has(&tier) => Ok(tier),
        _ => Err(format!("must be one of {}", state.quota.tiers.names())),
    }
}

/// Who acts, for the audit log.
fn by(state: &AppState, caller: &Caller, client: Client) -> By {
    let clock = state.store.clock().clone();
    let by_token = !caller.is_session();
    By { actor: Actor::User(caller.user.key), by_token, address: Some(client.0.to_string()), clock }
}

/// A stolen admin token makes no second admin: what would give one takes a session.
fn require_session(caller: &Caller) -> Result<()> {
    if caller.is_session() {
        return Ok(());
    }
    let detail = "to create or raise an admin, or to change an admin's password or e-mail, takes a session";
    Err(Error::forbidden("session_required", detail))
}

/// Which users are asked for, `limit` at once.
pub(in crate::web) fn take_filter(mut fields: Fields, limit: usize) -> Result<(UserFilter, Paging)> {
    let filter = UserFilter {
        text: fields.optional("q", input::text(1..=254)),
        tier: fields.optional("tier", input::text(1..=64)),
        role: fields.optional("role", role),
        disabled: fields.optional("disabled", input::flag_text),
    };
    let cursor = fields.optional("cursor", input::text(1..=255));
    let paging = fields.absorb(Paging::new(limit, cursor.as_deref()))?;
    fields.finish(|| Some((filter, paging?)))
}

/// `GET /api/admin/users`
pub(in crate::web) async fn list(
    State(state): State<AppState>,
    known: Known,
    query: Query,
) -> Answer<Json<UsersAnswer>> {
    let mut fields = query.0;
    let limit = page_limit(&mut fields);
    let (filter, paging) = take_filter(fields, limit)?;
    let page = state.read(&known, move |reader, _| account::list(reader, &filter, paging)).await?;
    let page = page.map(UserAnswer::from);
    Ok(Json(UsersAnswer { users: page.items, next_cursor: page.next }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WithLink {
    #[serde(flatten)]
    user: UserAnswer,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_link: Option<String>,
}

/// A user that shall be made, as a body or a form tells it.
pub(in crate::web) struct Wanted {
    email: String,
    role: Role,
    tier: String,
    password: Option<String>,
}

impl Wanted {
    /// Reads the fields.
    pub(in crate::web) fn take(mut fields: Fields, state: &AppState) -> Result<Self> {
        let email = fields.required("email", input::email);
        let role = fields.optional("role", role).unwrap_or(Role::User);
        let tier = fields.optional("tier", known_tier(state)).unwrap_or_else(|| state.config.auth.default_tier.clone());
        let password = fields.optional("password", new_password);
        fields.finish(|| Some(Self { email: email?, role, tier, password }))
    }
}

/// Makes a user; without a password also the address of the link to choose one.
pub(in crate::web) async fn make(
    state: &AppState,
    known: &Known,
    client: Client,
    wanted: Wanted,
) -> Result<(User, Option<String>)> {
    let Wanted { email, role, tier, password } = wanted;
    let needs_session = move |caller: &Caller| if role == Role::Admin { require_session(caller) } else { Ok(()) };
    needs_session(known.caller())?;
    let password_hash = match password {
        Some(password) => Some(state.passwords.hash(password).await?),
        None => None,
    };
    let new = New { email: Some(email), role, tier, password_hash };
    let (policy, state_there) = (state.quota.clone(), state.clone());
    let made = state.write(known, move |writer, caller| {
        needs_session(caller)?;
        account::create(writer, &by(&state_there, caller, client), &policy.tiers, &new)
    });
    let (user, link) = made.await?;
    Ok((user, link.map(|link| address(state, &link))))
}

/// `POST /api/admin/users`
pub(in crate::web) async fn create(
    State(state): State<AppState>,
    known: Known,
    client: Client,
    body: Body,
) -> Answer<Response> {
    let wanted = Wanted::take(body.fields()?, &state)?;
    let (user, password_link) = make(&state, &known, client, wanted).await?;
    Ok(with_secret(StatusCode::CREATED, WithLink { user: user.into(), password_link }))
}

fn address(state: &AppState, link: &Link) -> String {
    link.address(state.config.server.public_url.as_deref())
}

/// `GET /api/admin/users/{id}`
pub(in crate::web) async fn get(
    State(state): State<AppState>,
    known: Known,
    Path(id): Path<String>,
) -> Answer<Json<UserAnswer>> {
    let id = parse_id(&id)?;
    let user = state.read(&known, move |reader, _| account::load(reader, id)).await?;
    Ok(Json(user.into()))
}

/// What shall change of a user, as a body or a form tells it.
pub(in crate::web) fn take_changes(mut fields: Fields, state: &AppState) -> Result<Changes> {
    let changes = Changes {
        email: fields.optional("email", input::email),
        role: fields.optional("role", role),
        tier: fields.optional("tier", known_tier(state)),
        disabled: fields.optional("disabled", input::flag),
    };
    fields.finish(|| Some(changes))
}

/// Changes a user.
pub(in crate::web) async fn alter(
    state: &AppState,
    known: &Known,
    client: Client,
    id: UserId,
    changes: Changes,
) -> Result<User> {
    let (policy, state_there) = (state.quota.clone(), state.clone());
    let changed = state.write(known, move |writer, caller| {
        let user = account::load(writer, id)?;
        let raises = changes.role == Some(Role::Admin) && user.role != Role::Admin;
        if raises || (user.role == Role::Admin && changes.email.is_some()) {
            require_session(caller)?;
        }
        account::change(writer, &by(&state_there, caller, client), &policy.tiers, &user, &changes)
    });
    changed.await
}

/// `PATCH /api/admin/users/{id}`
pub(in crate::web) async fn update(
    State(state): State<AppState>,
    known: Known,
    client: Client,
    Path(id): Path<String>,
    body: Body,
) -> Answer<Json<UserAnswer>> {
    let changes = take_changes(body.fields()?, &state)?;
    Ok(Json(alter(&state, &known, client, parse_id(&id)?, changes).await?.into()))
}

/// Erases a user.
pub(in crate::web) async fn erase(state: &AppState, known: &Known, client: Client, id: UserId) -> Result<Receipt> {
    let state_there = state.clone();
    let begun =
        state.write(known, move |writer, caller| erasure::begin_by_id(writer, &by(&state_there, caller, client), id));
    erasure::finish(&state.store, begun.await?).await
}

/// `DELETE /api/admin/users/{id}?erase=true`
pub(in crate::web) async fn delete(
    State(state): State<AppState>,
    known: Known,
    client: Client,
    Path(id): Path<String>,
    query: Query,
) -> Answer<Response> {
    let mut fields = query.0;
    let is_sure = fields.optional("erase", input::flag_text).unwrap_or(false);
    if !is_sure {
        fields.fault("erase", "must be true: a user is erased for good; to disable one, PATCH disabled");
    }
    fields.finish(|| Some(()))?;
    let id = parse_id(&id)?;
    let receipt = erase(&state, &known, client, id).await?;
    let erased: serde_json::Map<String, Value> =
        receipt.counts.into_iter().map(|(what, count)| (what, Value::from(count))).collect();
    Ok(Json(json!({"id": id, "erased": erased})).into_response())
}

/// The password that a body or a form names; none: a link shall be made.
pub(in crate::web) fn take_password(mut fields: Fields) -> Result<Option<String>> {
    let password = fields.optional("newPassword", new_password);
    fields.finish(|| Some(password))
}

/// Resets a password; without a new one gives the address of the link to choose one.
pub(in crate::web) async fn reset(
    state: &AppState,
    known: &Known,
    client: Client,
    id: UserId,
    password: Option<String>,
) -> Result<Option<String>> {
    let needs_session = move |reader: &Reader<'_>, caller: &Caller| {
        let user = account::load(reader, id)?;
        if user.role == Role::Admin {
            require_session(caller)?;
        }
        Ok(user)
    };
    state.read(known, move |reader, caller| needs_session(reader, caller)).await?;
    let hash = match password {
        Some(password) => Some(state.passwords.hash(password).await?),
        None => None,
    };
    let state_there = state.clone();
    let link = state.write(known, move |writer, caller| {
        let user = needs_session(writer, caller)?;
        account::reset_password(writer, &by(&state_there, caller, client), &user, hash.as_deref())
    });
    Ok(link.await?.map(|link| address(state, &link)))
}

/// `POST /api/admin/users/{id}/password`
pub(in crate::web) async fn reset_password(
    State(state): State<AppState>,
    known: Known,
    client: Client,
    Path(id): Path<String>,
    body: Body,
) -> Answer<Response> {
    let password = take_password(body.fields_or_none()?)?;
    match reset(&state, &known, client, parse_id(&id)?, password).await? {
        Some(address) => Ok(with_secret(StatusCode::OK, json!({"passwordLink": address}))),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

/// `GET /api/admin/users/{id}/usage`
pub(in crate::web) async fn usage(
    State(state): State<AppState>,
    known: Known,
    Path(id): Path<String>,
    query: Query,
) -> Answer<Json<StatsAnswer>> {
    let days = parse_days(query)?;
    let id = parse_id(&id)?;
    let policy = state.quota.clone();
    let answer = state.read(&known, move |reader, _| {
        let user = account::load(reader, id)?;
        let stats = entries::stats(reader, &policy, user.holder(), days)?;
        Ok(StatsAnswer::of(user.id, days, &stats))
    });
    Ok(Json(answer.await?))
}

/// `GET /api/admin/users/{id}/ledger`
pub(in crate::web) async fn ledger(
    State(state): State<AppState>,
    known: Known,
    Path(id): Path<String>,
    query: Query,
) -> Answer<Json<LedgerAnswer>> {
    let listing = parse_listing(query)?;
    let id = parse_id(&id)?;
    let policy = state.quota.clone();
    let page = state.read(&known, move |reader, _| {
        let user = account::load(reader, id)?;
        entries::list_entries(reader, &policy, user.key, &listing)
    });
    Ok(Json(page.await?.into()))
}

/// A correction as a body or a form tells it: by the rules of a record, with its reason.
pub(in crate::web) fn take_correction(mut fields: Fields) -> Result<Fact> {
    let reason = fields.required("reason", input::text(1..=METADATA_BYTES_MAX / 8));
    let amount = parse_amount(&mut fields);
    let (fact, reason) = fields.finish(|| amount.zip(reason))?;
    Ok(Fact { metadata: Some(json!({"reason": reason})), ..fact })
}

/// Books a correction, once a key.
pub(in crate::web) async fn book(
    state: &AppState,
    known: &Known,
    client: Client,
    id: UserId,
    key: Option<Key>,
    fact: Fact,
) -> Answer<Response> {
    let (policy, state_there) = (state.quota.clone(), state.clone());
    let answer = state.write(known, move |writer, caller| {
        let answer = once(writer, caller, key.as_ref(), |writer, caller| {
            let user = account::load(writer, id)?;
            let by = by(&state_there, caller, client);
            let (entry, standing) = entries::record(writer, &policy, user.holder(), &fact, Source::Correction)?;
            account::note_correction(writer, &by, &user, &entry)?;
            Ok((StatusCode::CREATED, RecordAnswer::of(&entry, &standing)))
        })?;
        if let Some(key) = &key {
            idempotency::note_subject(writer, caller.user.key, key, id)?;
        }
        Ok(answer)
    });
    Ok(respond(answer.await?))
}

/// `POST /api/admin/users/{id}/ledger`
pub(in crate::web) async fn correct(
    State(state): State<AppState>,
    known: Known,
    client: Client,
    Path(id): Path<String>,
    key: MaybeKey,
    body: Body,
) -> Answer<Response> {
    let key = key.with(&body)?;
    let fact = take_correction(body.fields()?)?;
    book(&state, &known, client, parse_id(&id)?, key, fact).await
}

/// `GET /api/admin/users/{id}/tokens`
pub(in crate::web) async fn list_tokens(
    State(state): State<AppState>,
    known: Known,
    Path(id): Path<String>,
    query: Query,
) -> Answer<Json<TokensAnswer>> {
    let paging = parse_paging(query.0)?;
    let id = parse_id(&id)?;
    let page = state.read(&known, move |reader, _| {
        let user = account::load(reader, id)?;
        token::list(reader, user.key, false, paging)
    });
    Ok(Json(page.await?.into()))
}

/// Revokes a token of a user.
pub(in crate::web) async fn revoke(
    state: &AppState,
    known: &Known,
    client: Client,
    id: UserId,
    token: &str,
) -> Result<()> {
    let token = TokenId::parse(token).ok_or(Error::NotFound("the token"))?;
    let state_there = state.clone();
    let revoked = state.write(known, move |writer, caller| {
        let user = account::load(writer, id)?;
        token::revoke_for(writer, &by(&state_there, caller, client), Some(user.key), token)
    });
    revoked.await
}

/// `DELETE /api/admin/users/{id}/tokens/{tokenId}`
pub(in crate::web) async fn revoke_token(
    State(state): State<AppState>,
    known: Known,
    client: Client,
    Path((id, token)): Path<(String, String)>,
) -> Answer<StatusCode> {
    revoke(&state, &known, client, parse_id(&id)?, &token).await?;
    Ok(StatusCode::NO_CONTENT)
}
