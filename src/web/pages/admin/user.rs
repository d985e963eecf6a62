//! The pages of one user, and what their forms do: all of it by the same functions as `/api/admin`.

use axum::extract::State;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::json;

use super::{Pages, WORD, pages, standings};
use crate::clock::new_request_id;
use crate::domain::agent::Run;
use crate::domain::auth::{ApiToken, User, email_key};
use crate::domain::ledger::{Entry, ResourceType};
use crate::domain::page::Paging;
use crate::domain::quota::Standing;
use crate::domain::unit::{Timestamp, UserId};
use crate::domain::{Error, Fault, Result};
use crate::service::agent;
use crate::service::auth::{account, token};
use crate::service::idempotency::Key;
use crate::service::ledger::{self, Fact, Listing};
use crate::view::admin::entries::{Correction, Ledger};
use crate::view::admin::user::{self as view, ErasePage, LinkPage, NewUserPage, Tokens, UserPage};
use crate::view::agent::Runs;
use crate::view::layout::{Frame, Who};
use crate::web::admin::user::{
    Wanted, alter, book, erase, make, parse_id, reset, revoke, take_changes, take_correction, take_password,
};
use crate::web::extract::{Client, IdempotencyKey, Path, Query};
use crate::web::input::{self, Fields};
use crate::web::pages::form::Form;
use crate::web::pages::{Administrator, page, see, who};
use crate::web::problem::{Answer, Failure};
use crate::web::state::{AppState, Known};

/// Entries of a page.
const ENTRIES: usize = 10;
/// Tokens of a page.
const TOKENS: usize = 25;

/// What a page says after an act, by the word that leads to it.
fn told(word: &str) -> Option<&'static str> {
    Some(match word {
        "created" => "The user was added.",
        "changed" => "The change was made and holds from now on.",
        "password" => "The password was set. All sessions ended and all API tokens are revoked.",
        "revoked" => "The token was revoked.",
        "corrected" => "The correction was booked.",
        _ => return None,
    })
}

fn done(id: UserId, word: &str) -> Response {
    see(&format!("/admin/users/{id}?done={word}"))
}

/// What was wrong with a form, by field; what contradicts the present state is a fault of `field`. What is no fault of the
/// one who filled it in gets a page of its own.
fn faults_of(error: Error, field: &str) -> Result<(StatusCode, Vec<Fault>), Failure> {
    match error {
        Error::Invalid(faults) => Ok((StatusCode::UNPROCESSABLE_ENTITY, faults)),
        Error::Conflict { detail, .. } => Ok((StatusCode::CONFLICT, vec![Fault::new(field, detail)])),
        other => Err(Failure(other)),
    }
}

async fn visitor(state: &AppState, known: &Known) -> Result<(Who, Timestamp)> {
    state.read(known, |reader, caller| Ok((who(caller), reader.now()))).await
}

fn frame<'a>(state: &AppState, who: &'a Who, now: Timestamp) -> Frame<'a> {
    Frame { who, now, zone: state.quota.calendar.zone_name() }
}

/// `GET /admin/users/new`
pub(in crate::web) async fn new_user(
    State(state): State<AppState>,
    Administrator(known): Administrator,
    query: Query,
) -> Answer {
    query.0.finish(|| Some(()))?;
    let (who, now) = visitor(&state, &known).await?;
    let (frame, tier) = (frame(&state, &who, now), state.config.auth.default_tier.as_str());
    let tiers = &state.quota.tiers;
    let markup = view::new_user(&NewUserPage { frame, tiers, email: "", role: "user", tier, faults: &[] });
    Ok(page(StatusCode::OK, markup))
}

/// `POST /admin/users`
pub(in crate::web) async fn create_user(
    State(state): State<AppState>,
    Administrator(known): Administrator,
    client: Client,
    Form(mut fields): Form,
) -> Answer {
    fields.drop_blank();
    let (email, role, tier) = (fields.peek("email"), fields.peek("role"), fields.peek("tier"));
    let made = match Wanted::take(fields, &state) {
        Ok(wanted) => make(&state, &known, client, wanted).await,
        Err(error) => Err(error),
    };
    match made {
        Ok((user, None)) => Ok(done(user.id, "created")),
        Ok((user, Some(address))) => link_page(&state, &known, StatusCode::CREATED, &user, &address).await,
        Err(error) => {
            let (status, faults) = faults_of(error, "email")?;
            let (who, now) = visitor(&state, &known).await?;
            let (frame, tiers) = (frame(&state, &who, now), &state.quota.tiers);
            let form = NewUserPage { frame, tiers, email: &email, role: &role, tier: &tier, faults: &faults };
            Ok(page(status, view::new_user(&form)))
        }
    }
}

/// The page that shows a link this once.
async fn link_page(state: &AppState, known: &Known, status: StatusCode, user: &User, address: &str) -> Answer {
    let (who, now) = visitor(state, known).await?;
    let done = if status == StatusCode::CREATED {
        "The user was added."
    } else {
        "The old password no longer works. All sessions ended and all API tokens are revoked."
    };
    let markup = view::link(&LinkPage { frame: frame(state, &who, now), user, address, done });
    Ok(page(status, markup))
}

/// What a form held, to be shown again.
#[derive(Default)]
struct Typed {
    email: Option<String>,
    resource: String,
    amount: String,
    reason: String,
    reverses: String,
}

impl Typed {
    fn correction(fields: &Fields) -> Self {
        Self {
            email: None,
            resource: fields.peek("resourceType"),
            amount: fields.peek("amount"),
            reason: fields.peek("reason"),
            reverses: fields.peek("reverses"),
        }
    }
}

/// Which part of a user's lists is shown.
#[derive(Default)]
struct Asked {
    resource: Option<ResourceType>,
    cursor: String,
    tokens: String,
}

/// What the page of a user shows, as it was read.
struct Found {
    who: Who,
    now: Timestamp,
    is_own: bool,
    user: User,
    standings: Vec<Standing>,
    runs: (Vec<Run>, i64),
    tokens: (Vec<ApiToken>, Pages),
    ledger: (Vec<Entry>, Pages),
}

async fn find(state: &AppState, known: &Known, id: UserId, asked: &Asked) -> Result<Found> {
    let cursor = |text: &String| (!text.is_empty()).then(|| text.clone());
    let listing =
        Listing { resource: asked.resource, cursor: cursor(&asked.cursor), limit: ENTRIES, ..Listing::default() };
    let paging = Paging::new(TOKENS, cursor(&asked.tokens).as_deref())?;
    let policy = state.quota.clone();
    let read = state.read(known, move |reader, caller| {
        let user = account::load(reader, id)?;
        let standings = standings(reader, &policy, user.holder())?;
        let runs = agent::newest(reader, user.key)?;
        let tokens = token::list(reader, user.key, false, paging)?;
        let entries = ledger::list_entries(reader, &policy, user.key, &listing)?;
        Ok((who(caller), reader.now(), caller.user.key == user.key, user, (standings, runs), tokens, entries))
    });
    let (who, now, is_own, user, (standings, runs), tokens, entries) = read.await?;
    let path = format!("/admin/users/{id}");
    let resource = [("resource", asked.resource.map_or("", ResourceType::as_str))];
    let token_pages = pages(&path, &[], ("tokens", &asked.tokens), tokens.next.as_deref(), "#h-tokens");
    let next = entries.next_cursor.as_deref();
    let entry_pages = pages(&path, &resource, ("cursor", &asked.cursor), next, "#h-ledger");
    let (tokens, ledger) = ((tokens.items, token_pages), (entries.entries, entry_pages));
    Ok(Found { who, now, is_own, user, standings, runs, tokens, ledger })
}

/// The page of a user with the part `asked` for of its lists, what was `done`, and a form that was filled in wrongly.
fn user_page(
    state: &AppState,
    found: &Found,
    asked: &Asked,
    done: Option<&str>,
    typed: &Typed,
    faults: &[Fault],
) -> maud::Markup {
    let once = new_request_id();
    view::user(&UserPage {
        frame: frame(state, &found.who, found.now),
        user: &found.user,
        is_own: found.is_own,
        tiers: &state.quota.tiers,
        standings: &found.standings,
        runs: Runs { newest: &found.runs.0, count: found.runs.1 },
        tokens: Tokens { items: &found.tokens.0, pages: &found.tokens.1 },
        ledger: Ledger { entries: &found.ledger.0, resource: asked.resource, pages: &found.ledger.1 },
        correction: Correction {
            once: &once,
            resource: &typed.resource,
            amount: &typed.amount,
            reason: &typed.reason,
            reverses: &typed.reverses,
        },
        email: typed.email.as_deref().or(found.user.email.as_deref()).unwrap_or_default(),
        done,
        faults,
    })
}

/// `GET /admin/users/{id}`
pub(in crate::web) async fn user(
    State(state): State<AppState>,
    Administrator(known): Administrator,
    Path(id): Path<String>,
    query: Query,
) -> Answer {
    let mut fields = query.0;
    fields.drop_blank();
    // A link beside an entry fills in the form that takes it back.
    let typed = Typed::correction(&fields);
    for name in ["resourceType", "amount", "reason", "reverses"] {
        fields.optional(name, input::text(0..=254));
    }
    let word = fields.optional("done", input::text(WORD)).unwrap_or_default();
    let asked = Asked {
        resource: fields.optional("resource", input::resource),
        cursor: fields.optional("cursor", input::text(1..=255)).unwrap_or_default(),
        tokens: fields.optional("tokens", input::text(1..=255)).unwrap_or_default(),
    };
    fields.finish(|| Some(()))?;
    let found = find(&state, &known, parse_id(&id)?, &asked).await?;
    Ok(page(StatusCode::OK, user_page(&state, &found, &asked, told(&word), &typed, &[])))
}

/// The page of a user again, with what was wrong with one of its forms.
async fn shown_again(
    state: &AppState,
    known: &Known,
    id: UserId,
    (status, faults): (StatusCode, Vec<Fault>),
    typed: Typed,
) -> Answer {
    let asked = Asked::default();
    let found = find(state, known, id, &asked).await?;
    Ok(page(status, user_page(state, &found, &asked, None, &typed, &faults)))
}

/// `POST /admin/users/{id}`
pub(in crate::web) async fn change_user(
    State(state): State<AppState>,
    Administrator(known): Administrator,
    client: Client,
    Path(id): Path<String>,
    Form(mut fields): Form,
) -> Answer {
    let id = parse_id(&id)?;
    // Each form of the page changes one thing: whatever contradicts that is a fault of its field.
    let form = ["email", "role", "tier", "disabled"].into_iter().find(|name| fields.has(name)).unwrap_or("email");
    let typed = Typed { email: fields.has("email").then(|| fields.peek("email")), ..Typed::default() };
    fields.untext("disabled");
    let changed = match take_changes(fields, &state) {
        Ok(changes) => alter(&state, &known, client, id, changes).await,
        Err(error) => Err(error),
    };
    match changed {
        Ok(_) => Ok(done(id, "changed")),
        Err(error) => shown_again(&state, &known, id, faults_of(error, form)?, typed).await,
    }
}

/// `GET /admin/users/{id}/password` and `.../ledger`: where a form's answer is opened anew, the page that holds the form.
pub(in crate::web) async fn back_to_user(_: Administrator, Path(id): Path<String>) -> Answer {
    Ok(see(&format!("/admin/users/{}", parse_id(&id)?)))
}

/// `POST /admin/users/{id}/password`
pub(in crate::web) async fn reset_password(
    State(state): State<AppState>,
    Administrator(known): Administrator,
    client: Client,
    Path(id): Path<String>,
    Form(mut fields): Form,
) -> Answer {
    let id = parse_id(&id)?;
    fields.drop_blank();
    let given = match take_password(fields) {
        Ok(password) => reset(&state, &known, client, id, password).await,
        Err(error) => Err(error),
    };
    match given {
        Ok(None) => Ok(done(id, "password")),
        Ok(Some(address)) if known.caller().user.id == id => {
            // Whoever resets their own password this way has just been signed out: the link is all that is left to them.
            let user = known.caller();
            let (who, now) = (who(user), state.now());
            let text = "Your old password no longer works, and you are signed out.";
            let link = LinkPage { frame: frame(&state, &who, now), user: &user.user, address: &address, done: text };
            Ok(page(StatusCode::OK, view::link(&link)))
        }
        Ok(Some(address)) => {
            let user = state.read(&known, move |reader, _| account::load(reader, id)).await?;
            link_page(&state, &known, StatusCode::OK, &user, &address).await
        }
        Err(error) => shown_again(&state, &known, id, faults_of(error, "newPassword")?, Typed::default()).await,
    }
}

/// What makes a form that is sent twice book once: its own value together with what it says.
fn key_of(once: &str, id: UserId, fact: &Fact) -> Key {
    let body = json!([fact.resource.as_str(), fact.amount, fact.reverses, fact.metadata]);
    let key = IdempotencyKey { key: String::new(), route: format!("POST /admin/users/{id}/ledger {once}") };
    let payload = key.payload(&body);
    Key { key: format!("page-{}", URL_SAFE_NO_PAD.encode(payload)), payload }
}

/// `POST /admin/users/{id}/ledger`
pub(in crate::web) async fn correct_ledger(
    State(state): State<AppState>,
    Administrator(known): Administrator,
    client: Client,
    Path(id): Path<String>,
    Form(mut fields): Form,
) -> Answer {
    let id = parse_id(&id)?;
    fields.drop_blank();
    let typed = Typed::correction(&fields);
    let once = fields.optional("once", input::text(1..=64));
    fields.untext("amount");
    let booked = match take_correction(fields) {
        Ok(fact) => {
            let key = once.map(|once| key_of(&once, id, &fact));
            book(&state, &known, client, id, key, fact).await
        }
        Err(error) => Err(Failure(error)),
    };
    match booked {
        Ok(_) => Ok(done(id, "corrected")),
        Err(Failure(error)) => shown_again(&state, &known, id, faults_of(error, "reverses")?, typed).await,
    }
}

/// `POST /admin/users/{id}/tokens/{token_id}/revoke`
pub(in crate::web) async fn revoke_token(
    State(state): State<AppState>,
    Administrator(known): Administrator,
    client: Client,
    Path((id, token)): Path<(String, String)>,
    Form(fields): Form,
) -> Answer {
    fields.finish(|| Some(()))?;
    let id = parse_id(&id)?;
    revoke(&state, &known, client, id, &token).await?;
    Ok(done(id, "revoked"))
}

async fn erase_page(
    state: &AppState,
    known: &Known,
    id: UserId,
    typed: &str,
    (status, faults): (StatusCode, Vec<Fault>),
) -> Answer {
    let read =
        state.read(known, move |reader, caller| Ok((who(caller), reader.now(), account::load(reader, id)?))).await?;
    let (who, now, user) = read;
    let form = ErasePage { frame: frame(state, &who, now), user: &user, typed, faults: &faults };
    Ok(page(status, view::erase(&form)))
}

/// `GET /admin/users/{id}/erase`
pub(in crate::web) async fn confirm_erasure(
    State(state): State<AppState>,
    Administrator(known): Administrator,
    Path(id): Path<String>,
    query: Query,
) -> Answer {
    query.0.finish(|| Some(()))?;
    erase_page(&state, &known, parse_id(&id)?, "", (StatusCode::OK, Vec::new())).await
}

/// `POST /admin/users/{id}/erase`
pub(in crate::web) async fn erase_user(
    State(state): State<AppState>,
    Administrator(known): Administrator,
    client: Client,
    Path(id): Path<String>,
    Form(mut fields): Form,
) -> Answer {
    let id = parse_id(&id)?;
    let typed = fields.peek("confirm");
    let confirm = fields.required("confirm", input::text(1..=254));
    let user = state.read(&known, move |reader, _| account::load(reader, id)).await?;
    if let Some(confirm) = &confirm {
        let is_email = user.email.as_deref().is_some_and(|email| email_key(email) == email_key(confirm));
        if !is_email && UserId::parse(confirm.trim()) != Some(id) {
            fields.fault("confirm", "is neither the email nor the id of this user");
        }
    }
    let erased = match fields.finish(|| Some(())) {
        Ok(()) => erase(&state, &known, client, id).await,
        Err(error) => Err(error),
    };
    match erased {
        Ok(_) => Ok(see("/admin?done=erased")),
        Err(error) => erase_page(&state, &known, id, &typed, faults_of(error, "confirm")?).await,
    }
}
