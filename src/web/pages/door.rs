//! Coming in and going out: signing in, signing out, setting up, choosing a password.

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};

use super::form::Form;
use super::{Tls, local, page, see, session_of, set_cookie};
use crate::domain::{Error, Fault, Result};
use crate::service::auth::account::By;
use crate::service::auth::link::{self, Choice, Purpose};
use crate::service::auth::session;
use crate::view::door::{self as view, SetupForm};
use crate::web::auth::{Login, log_in, new_password};
use crate::web::extract::{Client, Query};
use crate::web::input;
use crate::web::problem::{Answer, Failure, Problem};
use crate::web::state::AppState;

/// Longest secret of a link, and longest `next`, that are read.
const TEXT_CHARACTERS: std::ops::RangeInclusive<usize> = 0..=2_048;

/// `GET /login`
pub(in crate::web) async fn login_form(query: Query) -> Answer {
    let mut fields = query.0;
    let next = fields.optional("next", input::text(TEXT_CHARACTERS));
    Ok(page(StatusCode::OK, view::login(local(next.as_deref()), "", None)))
}

/// `POST /login`
pub(in crate::web) async fn login(
    State(state): State<AppState>,
    Client(client): Client,
    tls: Tls,
    headers: HeaderMap,
    query: Query,
    Form(mut fields): Form,
) -> Answer {
    let mut query = query.0;
    let in_query = query.optional("next", input::text(TEXT_CHARACTERS));
    let next = fields.optional("next", input::text(TEXT_CHARACTERS)).or(in_query);
    let next = local(next.as_deref()).to_owned();
    let email = fields.peek("email");
    let replaces = session_of(&headers).map(|bearer| bearer.hash);
    let login = Login::take(&mut fields, replaces);
    let logged_in = match fields.finish(|| login) {
        Ok(login) => log_in(&state, client, login).await,
        Err(error) => Err(error),
    };
    match logged_in {
        Ok(session) => {
            let mut response = see(&next);
            set_cookie(&mut response, Some(&session.secret), tls);
            Ok(response)
        }
        Err(error) => shown_again(error, |problem| view::login(&next, &email, Some(&problem.detail))),
    }
}

/// A form again, with what was wrong with it and with the status and headers of the failure. What is no fault of the one
/// who filled it in gets a page of its own.
fn shown_again(error: Error, form: impl FnOnce(&Problem) -> maud::Markup) -> Answer {
    let is_theirs = matches!(
        error,
        Error::WrongPassword | Error::Invalid(_) | Error::RateLimited { .. } | Error::Conflict { .. } | Error::Busy(_)
    );
    if !is_theirs {
        return Err(Failure(error));
    }
    let problem = Problem::of(error);
    let mut response = page(problem.status, form(&problem));
    problem.set_headers(response.headers_mut());
    Ok(response)
}

/// `POST /logout`
pub(in crate::web) async fn logout(State(state): State<AppState>, tls: Tls, headers: HeaderMap, _: Form) -> Answer {
    if let Some(bearer) = session_of(&headers) {
        state.store.write(move |writer| session::log_out(writer, &bearer.hash)).await?;
    }
    let mut response = see("/login");
    set_cookie(&mut response, None, tls);
    Ok(response)
}

/// `GET /setup`
pub(in crate::web) async fn setup_form(State(state): State<AppState>, query: Query) -> Answer {
    let secret = query.0.peek("token");
    match look(&state, &secret).await? {
        Some(purpose) => Ok(setup_page(StatusCode::OK, &secret, &purpose, "", &[])),
        None => Ok(void()),
    }
}

/// What a link is for; none where it is void.
async fn look(state: &AppState, secret: &str) -> Result<Option<Purpose>> {
    let secret = secret.to_owned();
    match state.store.read(move |reader| link::look(reader, &secret)).await {
        Ok(purpose) => Ok(Some(purpose)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn void() -> Response {
    page(StatusCode::GONE, view::void_link())
}

fn setup_page(status: StatusCode, secret: &str, purpose: &Purpose, email: &str, faults: &[Fault]) -> Response {
    let user = match purpose {
        Purpose::Setup => None,
        Purpose::Password(user) => Some(user.email.as_deref().unwrap_or("your account")),
    };
    page(status, view::setup(&SetupForm { secret, user, email, faults }))
}

/// `POST /setup`
pub(in crate::web) async fn setup(
    State(state): State<AppState>,
    Client(client): Client,
    tls: Tls,
    query: Query,
    Form(mut fields): Form,
) -> Answer {
    let in_query = query.0.peek("token");
    let secret = fields.optional("token", input::text(TEXT_CHARACTERS)).unwrap_or(in_query);
    let Some(purpose) = look(&state, &secret).await? else { return Ok(void()) };
    let typed = fields.peek("email");
    let email = match purpose {
        Purpose::Setup => fields.required("email", input::email),
        Purpose::Password(_) => None,
    };
    let password = fields.required("password", new_password);
    let password = match fields.finish(|| password) {
        Ok(password) => password,
        Err(Error::Invalid(faults)) => {
            return Ok(setup_page(StatusCode::UNPROCESSABLE_ENTITY, &secret, &purpose, &typed, &faults));
        }
        Err(error) => return Err(error.into()),
    };
    let password_hash = state.passwords.hash(password).await?;
    let by = By::system(state.store.clock().clone(), Some(client.to_string()));
    let choice = Choice { email, password_hash, tier: state.config.auth.default_tier.clone() };
    let used = secret.clone();
    match state.store.write(move |writer| link::redeem(writer, &by, &used, choice)).await {
        Ok(session) => {
            let mut response = see(super::HOME);
            set_cookie(&mut response, Some(&session.secret), tls);
            Ok(response)
        }
        Err(Error::NotFound(_)) => Ok(void()),
        Err(Error::Conflict { detail, .. }) => {
            let faults = [Fault::new("email", detail)];
            Ok(setup_page(StatusCode::CONFLICT, &secret, &purpose, &typed, &faults))
        }
        Err(error) => Err(error.into()),
    }
}
