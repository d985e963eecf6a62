//! `tallybox token`.

use anyhow::bail;
use clap::Subcommand;
use tallybox::domain::auth::{ApiToken, Role, Scope, parse_scopes};
use tallybox::domain::page::Paging;
use tallybox::domain::unit::{Timestamp, TokenId};
use tallybox::service::auth::account::load_by_email;
use tallybox::service::auth::token::{EXPIRES_DAYS, NAME_CHARACTERS, NewToken, create_for, list, revoke_for};

use super::{Opened, Place, output};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Create a token and print it, this once
    Create {
        /// E-mail address of its user
        #[arg(long, value_name = "EMAIL")]
        user: String,
        /// Its name in lists, 1 to 64 characters
        #[arg(long)]
        name: String,
        /// What it opens (give it again for more); by default all but metrics, admin and act-as
        #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
        scopes: Vec<String>,
        /// Days after which it ends by itself; by default never
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(i64).range(EXPIRES_DAYS))]
        expires_days: Option<i64>,
    },
    /// List the tokens of a user: id, name, scopes, creation, end, last use, state
    List {
        /// E-mail address of the user
        #[arg(long, value_name = "EMAIL")]
        user: String,
    },
    /// Revoke a token, from the next request on
    Revoke {
        /// Id, as the list shows it
        id: String,
    },
}

impl Command {
    pub(super) fn run(self, place: &Place) -> anyhow::Result<()> {
        match self {
            Self::Create { user, name, scopes, expires_days } => create(place, user, name, &scopes, expires_days),
            Self::List { user } => print_all(&place.open()?, &user),
            Self::Revoke { id } => revoke(place, &id),
        }
    }
}

fn create(
    place: &Place,
    email: String,
    name: String,
    scopes: &[String],
    expires_in_days: Option<i64>,
) -> anyhow::Result<()> {
    if !NAME_CHARACTERS.contains(&name.chars().count()) || name.chars().any(char::is_control) {
        bail!("name: must have 1 to 64 characters, none of them a control character");
    }
    let named = parse_scopes(scopes.iter().map(String::as_str), "scope")?;
    let new = NewToken { name, scopes: (!scopes.is_empty()).then_some(named), expires_in_days };
    let opened = place.open()?;
    let by = opened.by();
    let (secret, role) = opened.store.write_blocking(move |writer| {
        let user = load_by_email(writer, &email)?;
        create_for(writer, &by, &user, &new).map(|(_, secret)| (secret, user.role))
    })?;
    output::result(secret)?;
    if role != Role::Admin && (named.has(Scope::Admin) || named.has(Scope::ActAs)) {
        output::note("note: admin and act-as open nothing while the user is no admin");
    }
    Ok(())
}

fn print_all(opened: &Opened, email: &str) -> anyhow::Result<()> {
    let user = opened.store.read_blocking(|reader| load_by_email(reader, email))?;
    let mut paging = Paging::first(100);
    loop {
        let page = opened.store.read_blocking(|reader| list(reader, user.key, true, paging))?;
        for token in &page.items {
            output::result(line(token, opened.store.clock().now()))?;
        }
        let Some(next) = page.next else { return Ok(()) };
        paging = paging.after(&next)?;
    }
}

fn line(token: &ApiToken, now: Timestamp) -> String {
    let or_dash = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let state = match (token.revoked_at, token.expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now => "expired",
        _ => "live",
    };
    format!(
        "{}\t{}\t{}\t{}\t{}\t{}\t{state}",
        token.id,
        token.name,
        token.scopes.names().join(","),
        token.created_at,
        or_dash(token.expires_at),
        or_dash(token.last_used_at)
    )
}

fn revoke(place: &Place, id: &str) -> anyhow::Result<()> {
    let Some(token) = TokenId::parse(id) else {
        bail!("id: must be the id of a token, as `tallybox token list` shows it")
    };
    let opened = place.open()?;
    let by = opened.by();
    opened.store.write_blocking(move |writer| revoke_for(writer, &by, None, token))?;
    Ok(())
}
