//! Accounts: made, changed, disabled, given passwords. Each act of whoever runs the box is written to the audit log in the
//! same transaction.

use serde_json::{Map, Value, json};

use super::link::{self, Link};
use crate::clock::Clock;
use crate::domain::agent::EndReason;
use crate::domain::audit::{Actor, NewAct};
use crate::domain::auth::{Caller, Credential, Role, User, UserFilter, UserKey};
use crate::domain::ledger::Entry;
use crate::domain::page::{Page, Paging};
use crate::domain::quota::Tiers;
use crate::domain::unit::UserId;
use crate::domain::{Error, Fault, Result};
use crate::store::agent::end_runs;
use crate::store::audit::insert_act;
use crate::store::{Reader, Writer, auth as store};

/// Who does an administrative act, and from where.
#[derive(Clone, Debug)]
pub struct By {
    /// Who.
    pub actor: Actor,
    /// Whether by a token, which may be stolen more easily than a session.
    pub by_token: bool,
    /// The client's address.
    pub address: Option<String>,
    /// Gives new users their ids.
    pub clock: Clock,
}

impl By {
    /// Somebody with a shell on the machine.
    pub const fn command_line(clock: Clock) -> Self {
        Self { actor: Actor::CommandLine, by_token: false, address: None, clock }
    }

    /// The program itself, perhaps asked from an address.
    pub const fn system(clock: Clock, address: Option<String>) -> Self {
        Self { actor: Actor::System, by_token: false, address, clock }
    }

    pub(super) fn act(
        &self,
        action: &'static str,
        subject: UserKey,
        before: Option<Value>,
        after: Option<Value>,
    ) -> NewAct {
        let (actor, address) = (self.actor.clone(), self.address.clone());
        NewAct { actor, action, subject: Some(subject), before, after, address }
    }
}

/// A user that shall be.
#[derive(Clone, Debug)]
pub struct New {
    /// A checked address.
    pub email: Option<String>,
    /// The role.
    pub role: Role,
    /// A tier of the configuration.
    pub tier: String,
    /// Hash of the password; none: nobody can log in before a link is used.
    pub password_hash: Option<String>,
}

/// Makes a user; without a password also the link to choose one.
///
/// # Errors
/// `Invalid` for an unknown tier; `Conflict` for an address that is taken.
pub fn create(writer: &mut Writer<'_>, by: &By, tiers: &Tiers, new: &New) -> Result<(User, Option<Link>)> {
    require_tier(tiers, &new.tier)?;
    let user = insert(writer, by, new)?;
    let link = match new.password_hash {
        Some(_) => None,
        None => Some(link::issue_password(writer, by, &user)?),
    };
    Ok((user, link))
}

pub(super) fn insert(writer: &mut Writer<'_>, by: &By, new: &New) -> Result<User> {
    let row = store::NewUser {
        id: by.clock.new_user_id(),
        email: new.email.as_deref(),
        role: new.role,
        tier: &new.tier,
        password_hash: new.password_hash.as_deref(),
    };
    let user = store::insert_user(writer, &row)?;
    let after = json!({"email": user.email, "role": user.role.as_str(), "tier": user.tier});
    insert_act(writer, &by.act("user.create", user.key, None, Some(after)))?;
    Ok(user)
}

/// What is to change about a user; a field that is none stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// A checked address.
    pub email: Option<String>,
    /// The role. Lowering an admin ends its sessions.
    pub role: Option<Role>,
    /// A tier of the configuration; its limits hold from the next request on.
    pub tier: Option<String>,
    /// Disabling ends the sessions and voids the links; tokens are refused until it is enabled again.
    pub disabled: Option<bool>,
}

/// Changes a user. Setting a field to the value that it has is no change and leaves no act.
///
/// # Errors
/// `Invalid` for an unknown tier; `Conflict` for an address that is taken, and for lowering or disabling the last enabled
/// admin.
pub fn change(writer: &mut Writer<'_>, by: &By, tiers: &Tiers, user: &User, changes: &Changes) -> Result<User> {
    let email = changes.email.as_deref().filter(|email| user.email.as_deref() != Some(*email));
    let role = changes.role.filter(|role| *role != user.role);
    let tier = changes.tier.as_deref().filter(|tier| user.tier != **tier);
    let disabled = changes.disabled.filter(|disabled| *disabled == user.is_enabled());
    if let Some(tier) = tier {
        require_tier(tiers, tier)?;
    }
    let is_lowered = role == Some(Role::User);
    let is_disabled = disabled == Some(true);
    if (is_lowered || is_disabled) && is_last_admin(writer, user)? {
        return Err(Error::conflict("last_admin", "the last enabled admin can be neither lowered nor disabled"));
    }
    let changed = store::change_user(writer, user.key, &store::UserChange { email, role, tier, disabled })?;
    if role == Some(Role::Admin) {
        // A stolen token makes no second admin: neither does a link that it got before.
        store::delete_links_by_token(writer, user.key)?;
    }
    if is_lowered && !is_disabled {
        store::end_sessions_but_for_streams(writer, user.key)?;
    }
    if is_disabled {
        store::end_sessions(writer, user.key, None)?;
        store::delete_links(writer, user.key)?;
        end_runs(writer, user.key, EndReason::Disabled)?;
    }
    let (before, after) = differences(user, &changed);
    if !after.is_empty() {
        let act = by.act("user.update", user.key, Some(before.into()), Some(after.into()));
        insert_act(writer, &act)?;
    }
    Ok(changed)
}

/// The fields in which two states of a user differ, as they were and as they are.
fn differences(before: &User, after: &User) -> (Map<String, Value>, Map<String, Value>) {
    let fields = |user: &User| {
        [
            ("email", json!(user.email)),
            ("role", json!(user.role.as_str())),
            ("tier", json!(user.tier)),
            ("disabled", json!(!user.is_enabled())),
        ]
    };
    let pairs = fields(before).into_iter().zip(fields(after)).filter(|(before, after)| before != after);
    pairs.map(|((name, was), (_, is))| ((name.to_owned(), was), (name.to_owned(), is))).unzip()
}

pub(in crate::service) fn is_last_admin(reader: &Reader<'_>, user: &User) -> Result<bool> {
    Ok(user.role == Role::Admin && user.is_enabled() && store::count_enabled_admins(reader)? == 1)
}

fn require_tier(tiers: &Tiers, tier: &str) -> Result<()> {
    if tiers.has(tier) {
        Ok(())
    } else {
        Err(Error::invalid("tier", format!("unknown tier; known are {}", tiers.names())))
    }
}

/// Resets a password on behalf of an administrator: all sessions end and all tokens are revoked. Without a new password
/// the old one stops working all the same, and a link to choose another is returned.
///
/// # Errors
/// `Conflict` without a new one for a disabled user, whose links are void.
pub fn reset_password(
    writer: &mut Writer<'_>,
    by: &By,
    user: &User,
    password_hash: Option<&str>,
) -> Result<Option<Link>> {
    if password_hash.is_none() && !user.is_enabled() {
        return Err(Error::conflict("user_disabled", "the user is disabled: enable it first, or name the password"));
    }
    store::set_password(writer, user.key, password_hash)?;
    store::end_sessions(writer, user.key, None)?;
    store::revoke_tokens(writer, user.key)?;
    store::delete_links(writer, user.key)?;
    let how = if password_hash.is_some() { "password" } else { "link" };
    insert_act(writer, &by.act("user.reset_password", user.key, None, Some(json!({"by": how}))))?;
    match password_hash {
        Some(_) => Ok(None),
        None => link::issue_password(writer, by, user).map(Some),
    }
}

/// Changes the caller's own password, the present one having been found to match `proved`: all other sessions end, and
/// where asked the tokens too.
///
/// # Errors
/// `WrongPassword` where it was changed in the meantime.
pub fn change_own_password(
    writer: &mut Writer<'_>,
    caller: &Caller,
    proved: &str,
    password_hash: &str,
    revoke_tokens: bool,
) -> Result<()> {
    let user = caller.user.key;
    if store::find_password(writer, user)?.as_deref() != Some(proved) {
        return Err(Error::WrongPassword);
    }
    let this_one = match caller.credential {
        Credential::Session(row) => Some(row),
        Credential::Token(_) | Credential::Proxy => None,
    };
    store::set_password(writer, user, Some(password_hash))?;
    store::end_sessions(writer, user, this_one)?;
    store::delete_links(writer, user)?;
    if revoke_tokens {
        store::revoke_tokens(writer, user)?;
    }
    Ok(())
}

/// Notes in the audit log that a user was erased: the fact, without the person.
///
/// # Errors
/// Those of the store.
pub(in crate::service) fn note_erasure(writer: &mut Writer<'_>, by: &By, user: &User) -> Result<()> {
    insert_act(writer, &by.act("user.erase", user.key, None, None))
}

/// Notes in the audit log that a user's ledger was corrected.
///
/// # Errors
/// Those of the store.
pub fn note_correction(writer: &mut Writer<'_>, by: &By, user: &User, entry: &Entry) -> Result<()> {
    let after = json!({
        "entryId": entry.id, "resourceType": entry.resource.as_str(), "amount": entry.amount,
        "reverses": entry.reverses, "metadata": entry.metadata,
    });
    insert_act(writer, &by.act("ledger.correct", user.key, None, Some(after)))
}

/// Makes the administrator of a first start without a browser, unless there is an administrator.
///
/// # Errors
/// `Conflict` where a user without that role has the address.
pub fn bootstrap_admin(writer: &mut Writer<'_>, by: &By, new: &New) -> Result<Option<User>> {
    if store::has_admin(writer)? { Ok(None) } else { insert(writer, by, new).map(Some) }
}

/// The hash that a user's password must match; none where no password can log in.
///
/// # Errors
/// Those of the store.
pub fn password_of(reader: &Reader<'_>, user: UserKey) -> Result<Option<String>> {
    store::find_password(reader, user)
}

/// Whether there is an administrator.
///
/// # Errors
/// Those of the store.
pub fn has_admin(reader: &Reader<'_>) -> Result<bool> {
    store::has_admin(reader)
}

/// The user with an e-mail address, however its letters are cased.
///
/// # Errors
/// `NotFound`.
pub fn load_by_email(reader: &Reader<'_>, email: &str) -> Result<User> {
    store::find_user_by_email(reader, email)?.ok_or(Error::NotFound("the user"))
}

/// The user with a public id.
///
/// # Errors
/// `NotFound`; `Gone` where it was erased.
pub fn load(reader: &Reader<'_>, id: UserId) -> Result<User> {
    store::find_user(reader, id)?.ok_or(Error::NotFound("the user"))
}

/// Users that pass the filter, newest first.
///
/// # Errors
/// Those of the store.
pub fn list(reader: &Reader<'_>, filter: &UserFilter, paging: Paging) -> Result<Page<User>> {
    store::list_users(reader, filter, paging)
}

/// A fault for each tier that users hold and the configuration lacks.
///
/// # Errors
/// Those of the store.
pub fn missing_tiers(reader: &Reader<'_>, tiers: &Tiers) -> Result<Vec<Fault>> {
    let in_use = store::tiers_in_use(reader)?;
    let missing = in_use.into_iter().filter(|(tier, _)| !tiers.has(tier));
    let fault = |(tier, holders): (String, i64)| {
        let users = if holders == 1 { "1 user holds".to_owned() } else { format!("{holders} users hold") };
        Fault::new(format!("tiers.{tier}"), format!("{users} this tier, which the configuration lacks"))
    };
    Ok(missing.map(fault).collect())
}
