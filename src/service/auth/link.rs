//! One-time links: to set the box up, and to choose a password.

use super::account::{By, New};
use super::session::{self, Session};
use super::{hash_of, new_secret};
use crate::domain::auth::{PASSWORD_LINK_LIFE_MS, Role, SETUP_LINK_LIFE_MS, User};
use crate::domain::{Error, Result};
use crate::store::{Reader, Writer, auth as store};

/// What a link's secret begins with.
const PREFIX: &str = "tbl_";

/// A link that has just been made. Only its hash is stored.
#[derive(Clone, Debug)]
pub struct Link {
    secret: String,
}

impl Link {
    /// Where it leads: under `public_url`, or a path where that is not configured.
    pub fn address(&self, public_url: Option<&str>) -> String {
        format!("{}/setup?token={}", public_url.unwrap_or_default(), self.secret)
    }
}

/// What a live link is for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// Making the first administrator.
    Setup,
    /// Choosing the password of this user.
    Password(User),
}

/// Makes the link to set the box up, which voids older ones; none where there is an administrator already.
///
/// # Errors
/// Those of the store.
pub fn issue_setup(writer: &mut Writer<'_>) -> Result<Option<Link>> {
    store::delete_setup_links(writer)?;
    if store::has_admin(writer)? {
        return Ok(None);
    }
    let secret = new_secret(PREFIX);
    store::insert_link(writer, None, &hash_of(&secret), SETUP_LINK_LIFE_MS, false)?;
    Ok(Some(Link { secret }))
}

/// Makes a link to choose the password of `user`, which voids older ones.
pub(super) fn issue_password(writer: &mut Writer<'_>, by: &By, user: &User) -> Result<Link> {
    store::delete_links(writer, user.key)?;
    let secret = new_secret(PREFIX);
    store::insert_link(writer, Some(user.key), &hash_of(&secret), PASSWORD_LINK_LIFE_MS, by.by_token)?;
    Ok(Link { secret })
}

/// What the link with `secret` is for.
///
/// # Errors
/// `NotFound` where it was used, has expired, was replaced, or never was.
pub fn look(reader: &Reader<'_>, secret: &str) -> Result<Purpose> {
    let found = store::find_link(reader, &hash_of(secret))?.ok_or(Error::NotFound("the link"))?;
    match found.user {
        Some(key) => Ok(Purpose::Password(store::load_user(reader, key)?)),
        None if store::has_admin(reader)? => Err(Error::NotFound("the link")),
        None => Ok(Purpose::Setup),
    }
}

/// What is chosen through a link.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The first administrator's address; not looked at where the link is a user's.
    pub email: Option<String>,
    /// The hash of the password.
    pub password_hash: String,
    /// The first administrator's tier.
    pub tier: String,
}

/// Uses a link up: makes the first administrator or sets the password, and begins a session.
///
/// # Errors
/// `NotFound` as for [`look`], also for the second of two at once; `Invalid` without an e-mail address; `Conflict` for
/// one that is taken.
pub fn redeem(writer: &mut Writer<'_>, by: &By, secret: &str, choice: Choice) -> Result<Session> {
    let purpose = look(writer, secret)?;
    store::delete_link(writer, &hash_of(secret))?;
    let user = match purpose {
        Purpose::Setup => {
            let email = choice.email.ok_or_else(|| Error::invalid("email", "is required"))?;
            let password_hash = Some(choice.password_hash);
            let new = New { email: Some(email), role: Role::Admin, tier: choice.tier, password_hash };
            super::account::insert(writer, by, &new)?
        }
        Purpose::Password(user) => {
            store::set_password(writer, user.key, Some(&choice.password_hash))?;
            store::end_sessions(writer, user.key, None)?;
            user
        }
    };
    session::begin(writer, user)
}
