//! The page of a user's own account.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::form::Form;
use super::{Address, Visitor, page, said, see, who};
use crate::domain::auth::{ApiToken, Scope, Scopes, User};
use crate::domain::page::{Page, Paging};
use crate::domain::unit::TokenId;
use crate::domain::{Error, Fault};
use crate::service::auth::token::{self, NewToken};
use crate::view::account::{AccountPage, EXPIRIES, Said, TokenForm, scope_field};
use crate::view::layout::{Frame, Who};
use crate::web::auth::{PasswordChange, change_password, new_password, token_name};
use crate::web::extract::{Client, Path, Query};
use crate::web::input::{self, Fields};
use crate::web::problem::Answer;
use crate::web::state::{AppState, Known};

/// Tokens on a page.
const TOKENS: usize = 50;
/// What is said after an act, by the code that leads back to the page.
const SAID: [(&str, &str); 2] = [
    ("password", "The password is changed. Your other sessions have ended."),
    ("revoked", "The token is revoked. Whatever used it is refused from now on."),
];

/// What the page is made of.
struct Account {
    who: Who,
    user: User,
    tokens: Page<ApiToken>,
}

async fn load(state: &AppState, known: &Known, paging: Paging) -> Result<Account, Error> {
    let load = state.read(known, move |reader, caller| {
        let tokens = token::list(reader, caller.user.key, false, paging)?;
        Ok(Account { who: who(caller), user: caller.user.clone(), tokens })
    });
    load.await
}

fn render(state: &AppState, address: &str, account: &Account, status: StatusCode, said: Said<'_>) -> Response {
    let markup = AccountPage {
        frame: Frame { who: &account.who, now: state.now(), zone: state.quota.calendar.zone_name() },
        user: &account.user,
        limits: state.quota.tiers.limits(&account.user.tier),
        tokens: &account.tokens,
        base_url: address,
        said,
    };
    page(status, markup.render())
}

/// Whether a box was ticked.
fn ticked(fields: &mut Fields, name: &str) -> bool {
    fields.optional(name, input::text(0..=8)).is_some()
}

/// `GET /account`
pub(in crate::web) async fn account(
    State(state): State<AppState>,
    Visitor(known): Visitor,
    Address(address): Address,
    query: Query,
) -> Answer {
    let mut fields = query.0;
    let words = said(&mut fields, &SAID);
    let cursor = fields.optional("cursor", input::text(1..=255));
    let paging = fields.absorb(Paging::new(TOKENS, cursor.as_deref()))?;
    let account = load(&state, &known, fields.finish(|| paging)?).await?;
    Ok(render(&state, &address, &account, StatusCode::OK, words.map_or(Said::Nothing, Said::Done)))
}

/// `GET /account/password` and `GET /account/tokens`: where a form's answer is opened anew, the page that holds the form.
pub(in crate::web) async fn back(_: Visitor) -> Response {
    see("/account")
}

/// `POST /account/password`
pub(in crate::web) async fn password(
    State(state): State<AppState>,
    Visitor(known): Visitor,
    Client(client): Client,
    Address(address): Address,
    Form(mut fields): Form,
) -> Answer {
    let current = fields.required("current", input::text(0..=1_024));
    let new = fields.required("new", new_password);
    let revoke_tokens = ticked(&mut fields, "revoke");
    // For password managers alone.
    fields.optional("username", input::text(0..=254));
    let changed = match fields.finish(|| Some(PasswordChange { current: current?, new: new?, revoke_tokens })) {
        Ok(change) => change_password(&state, &known, client, change).await,
        Err(error) => Err(error),
    };
    let (status, faults) = match changed {
        Ok(()) => return Ok(see("/account?said=password")),
        Err(Error::Invalid(faults)) => (StatusCode::UNPROCESSABLE_ENTITY, faults),
        Err(Error::WrongPassword) => {
            (StatusCode::UNPROCESSABLE_ENTITY, vec![Fault::new("current", "is not your password")])
        }
        Err(error) => return Err(error.into()),
    };
    let account = load(&state, &known, Paging::first(TOKENS)).await?;
    Ok(render(&state, &address, &account, status, Said::PasswordFaults(&faults)))
}

/// `POST /account/tokens`
pub(in crate::web) async fn create_token(
    State(state): State<AppState>,
    Visitor(known): Visitor,
    Address(address): Address,
    Form(mut fields): Form,
) -> Answer {
    let scopes: Scopes = Scope::ALL.into_iter().filter(|scope| ticked(&mut fields, &scope_field(*scope))).collect();
    let form = TokenForm { name: fields.peek("name"), expires: fields.peek("expires"), scopes };
    let name = fields.required("name", token_name);
    if scopes.iter().next().is_none() {
        fields.fault("scopes", "tick at least one");
    }
    let is_offered = |days: &str| EXPIRIES.iter().any(|(offered, _)| *offered == days);
    let expires = fields.required("expires", |value| {
        value
            .as_str()
            .filter(|days| is_offered(days))
            .map(str::to_owned)
            .ok_or_else(|| "must be one of those offered".to_owned())
    });
    let expires_in_days = expires.and_then(|days| days.parse().ok());
    let made = match fields.finish(|| Some(NewToken { name: name?, scopes: Some(scopes), expires_in_days })) {
        Ok(new) => state.write(&known, move |writer, caller| token::create(writer, &caller.user, &new)).await,
        Err(error) => Err(error),
    };
    let made = match made {
        Err(Error::Invalid(faults)) => Err(faults),
        Err(Error::Forbidden { detail, .. }) => Err(vec![Fault::new("scopes", detail)]),
        Err(error) => return Err(error.into()),
        Ok((_, secret)) => Ok(secret),
    };
    let account = load(&state, &known, Paging::first(TOKENS)).await?;
    Ok(match made {
        Ok(secret) => render(&state, &address, &account, StatusCode::OK, Said::Made(&secret)),
        Err(faults) => {
            let said = Said::TokenFaults(&form, &faults);
            render(&state, &address, &account, StatusCode::UNPROCESSABLE_ENTITY, said)
        }
    })
}

/// `POST /account/tokens/{id}/revoke`
pub(in crate::web) async fn revoke_token(
    State(state): State<AppState>,
    Visitor(known): Visitor,
    Path(id): Path<String>,
    _: Form,
) -> Answer {
    let id = TokenId::parse(&id).ok_or(Error::NotFound("the token"))?;
    state.write(&known, move |writer, caller| token::revoke(writer, caller.user.key, id)).await?;
    Ok(see("/account?said=revoked"))
}
