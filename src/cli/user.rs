//! `tallybox user`.

use anyhow::bail;
use clap::Subcommand;
use tallybox::domain::auth::{Role, User, UserFilter, parse_email};
use tallybox::domain::page::Paging;
use tallybox::domain::unit::UserId;
use tallybox::service::auth::account::{Changes, New, change, create, list, load_by_email, reset_password};
use tallybox::service::auth::link::Link;
use tallybox::service::auth::password;
use tallybox::service::erasure;

use super::{Opened, Place, output, read_password};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Add a user and print the id
    Add {
        /// E-mail address
        email: String,
        /// Tier; by default the configured one
        #[arg(long)]
        tier: Option<String>,
        /// user or admin
        #[arg(long, default_value = "user")]
        role: String,
        /// Read the password from stdin, up to the first newline; else a one-time link is printed on stderr
        #[arg(long)]
        password_stdin: bool,
    },
    /// List users: id, e-mail, role, tier, state
    List,
    /// Move a user to another tier, from the next request on
    SetTier {
        /// E-mail address
        email: String,
        /// A tier of the configuration
        tier: String,
    },
    /// Make a user an admin or an admin a user (which ends its sessions)
    SetRole {
        /// E-mail address
        email: String,
        /// user or admin
        role: String,
    },
    /// Disable a user: sessions end, tokens are refused until it is enabled
    Disable {
        /// E-mail address
        email: String,
    },
    /// Enable a disabled user
    Enable {
        /// E-mail address
        email: String,
    },
    /// Erase a user for good, with all that is stored and metered, and print what was taken; the same again goes on with an
    /// erasure that was interrupted
    Erase {
        /// E-mail address or id
        user: String,
        /// Yes, for good
        #[arg(long, required = true)]
        yes: bool,
    },
    /// Reset a password: sessions end, tokens are revoked
    SetPassword {
        /// E-mail address
        email: String,
        /// Read the password from stdin, up to the first newline; else a one-time link to choose one is printed
        #[arg(long)]
        password_stdin: bool,
    },
}

impl Command {
    pub(super) fn run(self, place: &Place) -> anyhow::Result<()> {
        match self {
            Self::Add { email, tier, role, password_stdin } => add(place, &email, tier, &role, password_stdin),
            Self::List => print_all(&place.open()?),
            Self::SetTier { email, tier } => apply(place, email, Changes { tier: Some(tier), ..Changes::default() }),
            Self::SetRole { email, role } => {
                let role = Some(parse_role(&role)?);
                apply(place, email, Changes { role, ..Changes::default() })
            }
            Self::Disable { email } => apply(place, email, Changes { disabled: Some(true), ..Changes::default() }),
            Self::Enable { email } => apply(place, email, Changes { disabled: Some(false), ..Changes::default() }),
            Self::Erase { user, .. } => erase(place, user),
            Self::SetPassword { email, password_stdin } => set_password(place, email, password_stdin),
        }
    }
}

fn parse_role(text: &str) -> anyhow::Result<Role> {
    match Role::parse(text) {
        Some(role) => Ok(role),
        None => bail!("role: must be user or admin"),
    }
}

fn add(place: &Place, email: &str, tier: Option<String>, role: &str, password_stdin: bool) -> anyhow::Result<()> {
    let email = Some(parse_email(email, "email")?);
    let role = parse_role(role)?;
    let password_hash = password_hash(password_stdin)?;
    let opened = place.open_or_create()?;
    let tier = tier.unwrap_or_else(|| opened.config.auth.default_tier.clone());
    let (by, tiers) = (opened.by(), opened.config.tiers.clone());
    let new = New { email, role, tier, password_hash };
    let (user, link) = opened.store.write_blocking(move |writer| create(writer, &by, &tiers, &new))?;
    output::result(user.id)?;
    if let Some(link) = link {
        output::note(describe(&opened, &link));
    }
    Ok(())
}

fn password_hash(password_stdin: bool) -> anyhow::Result<Option<String>> {
    if password_stdin { Ok(Some(password::hash(&read_password()?)?)) } else { Ok(None) }
}

fn describe(opened: &Opened, link: &Link) -> String {
    let address = link.address(opened.config.server.public_url.as_deref());
    format!("One-time link to choose a password (valid 24 hours): {address}")
}

fn apply(place: &Place, email: String, changes: Changes) -> anyhow::Result<()> {
    let opened = place.open()?;
    let (by, tiers) = (opened.by(), opened.config.tiers.clone());
    opened.store.write_blocking(move |writer| {
        let user = load_by_email(writer, &email)?;
        change(writer, &by, &tiers, &user, &changes)
    })?;
    Ok(())
}

fn erase(place: &Place, named: String) -> anyhow::Result<()> {
    let opened = place.open()?;
    let by = opened.by();
    let user = opened.store.write_blocking(move |writer| match UserId::parse(&named) {
        Some(id) => erasure::begin_by_id(writer, &by, id),
        None => load_by_email(writer, &named).and_then(|user| erasure::begin(writer, &by, &user)),
    })?;
    for (what, count) in erasure::finish_blocking(&opened.store, user)?.counts {
        output::result(format_args!("{what}\t{count}"))?;
    }
    if opened.store.read_blocking(erasure::log_tells)? {
        output::note(
            "The write-ahead log (tallybox.db-wal) still holds what was erased, since another program reads it. A server that \
             runs beside empties it once it can; otherwise the next start does, or the end of the last program that has it open",
        );
    }
    Ok(())
}

fn set_password(place: &Place, email: String, password_stdin: bool) -> anyhow::Result<()> {
    let password_hash = password_hash(password_stdin)?;
    let opened = place.open()?;
    let by = opened.by();
    let link = opened.store.write_blocking(move |writer| {
        let user = load_by_email(writer, &email)?;
        reset_password(writer, &by, &user, password_hash.as_deref())
    })?;
    if let Some(link) = link {
        output::result(describe(&opened, &link))?;
    }
    Ok(())
}

fn print_all(opened: &Opened) -> anyhow::Result<()> {
    let mut paging = Paging::first(100);
    loop {
        let page = opened.store.read_blocking(|reader| list(reader, &UserFilter::default(), paging))?;
        for user in &page.items {
            output::result(line(user))?;
        }
        let Some(next) = page.next else { return Ok(()) };
        paging = paging.after(&next)?;
    }
}

fn line(user: &User) -> String {
    let state = if user.is_enabled() { "enabled" } else { "disabled" };
    let email = user.email.as_deref().unwrap_or("-");
    format!("{}\t{email}\t{}\t{}\t{state}", user.id, user.role.as_str(), user.tier)
}
