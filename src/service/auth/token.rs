//! API tokens.

use serde_json::json;

use super::account::By;
use super::{hash_of, new_secret};
use crate::domain::audit::NewAct;
use crate::domain::auth::{ApiToken, Role, Scope, Scopes, TOKEN_PREFIX, User, UserKey};
use crate::domain::page::{Page, Paging};
use crate::domain::unit::{DAY_MS, TokenId};
use crate::domain::{Error, Result};
use crate::store::audit::insert_act;
use crate::store::{Reader, Writer, auth as store};

/// Characters of a token's name.
pub const NAME_CHARACTERS: std::ops::RangeInclusive<usize> = 1..=64;
/// Days after which a token may end by itself.
pub const EXPIRES_DAYS: std::ops::RangeInclusive<i64> = 1..=3_650;

/// What a token shall be.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// [`NAME_CHARACTERS`] long.
    pub name: String,
    /// None: all but the privileged ones.
    pub scopes: Option<Scopes>,
    /// Within [`EXPIRES_DAYS`]; none: never.
    pub expires_in_days: Option<i64>,
}

/// Makes a token of `user` and gives its secret, which is shown this once.
///
/// # Errors
/// `Forbidden` where someone who is no admin asks for a privileged scope.
pub fn create(writer: &mut Writer<'_>, user: &User, new: &NewToken) -> Result<(ApiToken, String)> {
    let scopes = new.scopes.unwrap_or_else(Scopes::default_of_tokens);
    if user.role != Role::Admin
        && let Some(scope) = scopes.iter().find(|scope| Scope::is_privileged(*scope))
    {
        let detail = format!("only an admin may put the scope {} on a token", scope.as_str());
        return Err(Error::forbidden("admin_required", detail));
    }
    insert(writer, user.key, new, scopes)
}

/// As [`create`], by someone who runs the box and may put any scope on it; written to the audit log.
///
/// # Errors
/// Those of the store.
pub fn create_for(writer: &mut Writer<'_>, by: &By, user: &User, new: &NewToken) -> Result<(ApiToken, String)> {
    let scopes = new.scopes.unwrap_or_else(Scopes::default_of_tokens);
    let made = insert(writer, user.key, new, scopes)?;
    let token = &made.0;
    let after = json!({
        "id": token.id, "name": token.name, "scopes": token.scopes.names(), "expiresAt": token.expires_at,
    });
    insert_act(writer, &by.act("token.create", user.key, None, Some(after)))?;
    Ok(made)
}

fn insert(writer: &mut Writer<'_>, user: UserKey, new: &NewToken, scopes: Scopes) -> Result<(ApiToken, String)> {
    let secret = new_secret(TOKEN_PREFIX);
    let expires_at = new.expires_in_days.map(|days| writer.now().plus_millis(days.saturating_mul(DAY_MS)));
    let token = store::NewToken { name: &new.name, scopes, hash: hash_of(&secret), expires_at };
    Ok((store::insert_token(writer, user, &token)?, secret))
}

/// The tokens of a user, newest first, without their secrets; `revoked`: the revoked ones too.
///
/// # Errors
/// Those of the store.
pub fn list(reader: &Reader<'_>, user: UserKey, revoked: bool, paging: Paging) -> Result<Page<ApiToken>> {
    store::list_tokens(reader, user, revoked, paging)
}

/// Revokes a token of `user`.
///
/// # Errors
/// `NotFound` where it has no such token, or it is revoked already.
pub fn revoke(writer: &mut Writer<'_>, user: UserKey, token: TokenId) -> Result<()> {
    store::revoke_token(writer, Some(user), token).map(drop)
}

/// Revokes a token (of `user`, where one is named) on behalf of someone who runs the box; written to the audit log.
///
/// # Errors
/// `NotFound` as for [`revoke`].
pub fn revoke_for(writer: &mut Writer<'_>, by: &By, user: Option<UserKey>, token: TokenId) -> Result<()> {
    let (owner, name) = store::revoke_token(writer, user, token)?;
    let act: NewAct = by.act("token.revoke", owner, Some(json!({"id": token, "name": name})), None);
    insert_act(writer, &act)
}
