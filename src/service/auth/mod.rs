//! From what a request shows to who calls; and what makes and ends accounts, sessions, tokens and links.

pub mod account;
pub mod attempts;
pub mod link;
pub mod password;
pub mod session;
pub mod token;

use sha2::{Digest, Sha256};

use crate::clock::random_bytes;
use crate::domain::auth::{
    Caller, Credential, Role, SESSION_PREFIX, Scope, Scopes, TOKEN_PREFIX, User, scopes_of_acting, scopes_of_proxy,
    scopes_of_session, scopes_of_token,
};
use crate::domain::quota::Tiers;
use crate::domain::unit::{Timestamp, UserId};
use crate::domain::{Error, Result};
use crate::store::auth::FoundCredential;
use crate::store::{Reader, Writer, auth as store};

/// What a request shows of who sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Presented {
    /// SHA-256 and kind of a bearer of ours; none where the request has none, or one of another program.
    pub bearer: Option<Bearer>,
    /// Whether the TCP peer is one of `auth.identity_proxies`.
    pub from_identity_proxy: bool,
    /// `X-User-Id` as it was sent.
    pub user_id: Option<String>,
    /// `X-User-Email`.
    pub user_email: Option<String>,
    /// `X-User-Tier`.
    pub user_tier: Option<String>,
}

/// A bearer of ours, as it is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bearer {
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// Whether it has the form of a session's.
    pub is_session: bool,
}

impl Presented {
    /// Bytes of the texts, which are as long as the client likes.
    pub fn text_bytes(&self) -> usize {
        [&self.user_id, &self.user_email, &self.user_tier].into_iter().flatten().map(String::len).sum()
    }
}

impl Bearer {
    /// From the text after `Bearer `; none where it is not one of ours.
    pub fn parse(secret: &str) -> Option<Self> {
        let is_session = secret.starts_with(SESSION_PREFIX);
        (is_session || secret.starts_with(TOKEN_PREFIX)).then(|| Self { hash: hash_of(secret), is_session })
    }
}

/// SHA-256 of a secret: the only form in which it is stored.
pub fn hash_of(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// A new secret: `prefix` and 32 random bytes in base64url, 43 characters.
pub fn new_secret(prefix: &str) -> String {
    use base64::Engine;
    let random: [u8; 32] = random_bytes();
    format!("{prefix}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random))
}

/// How identity is decided, from the configuration.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Create users that a trusted caller names.
    pub auto_provision: bool,
    /// The tier of a user for whom none is named.
    pub default_tier: String,
    /// The known tiers.
    pub tiers: Tiers,
}

/// Who calls, and until when that holds without another look.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// Who.
    pub caller: Caller,
    /// When the credential ends by itself.
    pub ends_at: Option<Timestamp>,
}

/// The outcome of a look at what was presented.
#[derive(Clone, Debug)]
pub enum Identity {
    /// A known caller.
    Known(Authenticated),
    /// A trusted caller names a user that does not exist and shall be created.
    ToProvision,
}

/// Finds out who calls. `scope` is what the route needs (none: any credential).
///
/// # Errors
/// `Unauthenticated`; `ScopeRequired`; `Forbidden` for a named user by someone who may not, or a disabled one; `NotFound`
/// and `Gone` for a named user that is not there; `Invalid` for an unknown tier.
pub fn authenticate(
    reader: &Reader<'_>,
    presented: &Presented,
    policy: &Policy,
    scope: Option<Scope>,
) -> Result<Identity> {
    let Some(bearer) = presented.bearer else {
        if presented.from_identity_proxy && presented.user_id.is_some() {
            return act_for(reader, presented, policy, scope, None);
        }
        return Err(Error::Unauthenticated);
    };
    let found = if bearer.is_session {
        store::find_session(reader, &bearer.hash)?
    } else {
        store::find_token(reader, &bearer.hash)?
    };
    // A disabled user's tokens are refused, not forgotten: they work again when the user is enabled.
    let found = found.filter(|found| found.user.is_enabled()).ok_or(Error::Unauthenticated)?;
    let own = own_caller(found);
    if own.caller.scopes.has(Scope::ActAs) {
        return act_for(reader, presented, policy, scope, Some(&own));
    }
    match &presented.user_id {
        Some(named) if UserId::parse(named) != Some(own.caller.user.id) => Err(Error::forbidden(
            "not_yourself",
            "X-User-Id names another user, which only act-as or an identity proxy may",
        )),
        _ => {
            require(own.caller.scopes, scope)?;
            Ok(Identity::Known(own))
        }
    }
}

fn require(scopes: Scopes, scope: Option<Scope>) -> Result<()> {
    match scope {
        Some(scope) if !scopes.has(scope) => Err(Error::ScopeRequired(scope)),
        _ => Ok(()),
    }
}

fn own_caller(found: FoundCredential) -> Authenticated {
    let role = found.user.role;
    let scopes = found.granted.map_or_else(|| scopes_of_session(role), |granted| scopes_of_token(granted, role));
    let caller = Caller {
        user: found.user,
        credential: found.credential,
        scopes,
        acting: None,
        trusted: false,
        tier_override: None,
    };
    Authenticated { caller, ends_at: found.ends_at }
}

/// A trusted caller: by act-as (`own`), or an identity proxy. What the request lacks is reported before anything is
/// looked up.
fn act_for(
    reader: &Reader<'_>,
    presented: &Presented,
    policy: &Policy,
    scope: Option<Scope>,
    own: Option<&Authenticated>,
) -> Result<Identity> {
    let named = presented.user_id.as_deref();
    let acting =
        own.map(|own| &own.caller.user).filter(|user| named.is_some_and(|id| UserId::parse(id) != Some(user.id)));
    let scopes = match own {
        None => scopes_of_proxy(),
        Some(own) if acting.is_some() => scopes_of_acting(own.caller.scopes),
        Some(own) => own.caller.scopes,
    };
    require(scopes, scope)?;
    // What asks for no scope is about the caller's own account.
    if scope.is_none() && (own.is_none() || acting.is_some()) {
        return Err(acting_for_another());
    }
    let tier_override = match &presented.user_tier {
        Some(tier) if !policy.tiers.has(tier) => {
            return Err(Error::invalid("X-User-Tier", format!("unknown tier; known are {}", policy.tiers.names())));
        }
        tier => tier.clone(),
    };
    let (credential, ends_at) = own.map_or((Credential::Proxy, None), |own| (own.caller.credential, own.ends_at));
    let user = match (named, own) {
        (Some(named), None) => find_named(reader, named, policy)?,
        (Some(named), Some(_)) if acting.is_some() => find_named(reader, named, policy)?,
        (_, Some(own)) => Some(own.caller.user.clone()),
        (None, None) => return Err(Error::Unauthenticated),
    };
    let Some(user) = user else { return Ok(Identity::ToProvision) };
    let acting = acting.map(|user| user.key);
    let caller = Caller { user, credential, scopes, acting, trusted: true, tier_override };
    Ok(Identity::Known(Authenticated { caller, ends_at }))
}

/// The user that a trusted caller names; none where it shall be created. A disabled one is returned: its holds may still
/// be resolved by their maker, and everything else asks [`require_enabled`].
fn find_named(reader: &Reader<'_>, named: &str, policy: &Policy) -> Result<Option<User>> {
    let Some(id) = UserId::parse(named) else {
        return Err(if policy.auto_provision {
            Error::invalid("X-User-Id", "must be a UUID")
        } else {
            Error::NotFound("the user")
        });
    };
    match store::find_user(reader, id)? {
        None if !policy.auto_provision => Err(Error::NotFound("the user")),
        found => Ok(found),
    }
}

/// The refusal where only a caller's own account will do.
pub fn acting_for_another() -> Error {
    Error::forbidden("acting_for_another", "this is not open to a call that acts for another user")
}

/// Whether a stream that `presented` began for `user` may go on. Unlike a request it outlives the lowering of a role, which
/// takes away what the credential may begin.
///
/// # Errors
/// `Unauthenticated` where the credential has ended, or its user is disabled; `Forbidden` and `Gone` where the user is.
pub fn require_standing(reader: &Reader<'_>, presented: &Presented, user: UserId) -> Result<()> {
    if let Some(bearer) = presented.bearer {
        let found = if bearer.is_session {
            store::find_begun_session(reader, &bearer.hash)?
        } else {
            store::find_token(reader, &bearer.hash)?
        };
        found.filter(|found| found.user.is_enabled()).ok_or(Error::Unauthenticated)?;
    }
    let user = store::find_user(reader, user)?.ok_or(Error::NotFound("the user"))?;
    require_user_enabled(&user)
}

/// # Errors
/// `Forbidden` where the user acted for is disabled.
pub fn require_enabled(caller: &Caller) -> Result<()> {
    require_user_enabled(&caller.user)
}

fn require_user_enabled(user: &User) -> Result<()> {
    if user.is_enabled() { Ok(()) } else { Err(Error::forbidden("user_disabled", "the user is disabled")) }
}

/// Creates the user that a trusted caller names, unless another request was quicker: a plain user, whatever
/// `X-User-Role` says.
///
/// # Errors
/// `Invalid` for an id that is no UUID or an unknown tier.
pub fn provision(writer: &mut Writer<'_>, presented: &Presented, policy: &Policy) -> Result<()> {
    let id = presented.user_id.as_deref().and_then(UserId::parse);
    let id = id.ok_or_else(|| Error::invalid("X-User-Id", "must be a UUID"))?;
    if store::find_user(writer, id)?.is_some() {
        return Ok(());
    }
    let tier = presented.user_tier.as_deref().unwrap_or(&policy.default_tier);
    // An address that is malformed or another user's is no reason to refuse a user whom a trusted proxy vouches for.
    let email = presented.user_email.as_deref().and_then(|email| crate::domain::auth::parse_email(email, "").ok());
    let email = match email {
        Some(email) if store::find_user_by_email(writer, &email)?.is_none() => Some(email),
        _ => None,
    };
    let new = store::NewUser { id, email: email.as_deref(), role: Role::User, tier, password_hash: None };
    store::insert_user(writer, &new).map(drop)
}

/// Writes down when credentials were last used.
///
/// # Errors
/// Where the store cannot be written.
pub fn note_uses(writer: &mut Writer<'_>, used: &[(Credential, Timestamp)]) -> Result<()> {
    store::touch_credentials(writer, used)
}
