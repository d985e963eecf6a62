//! Who calls, and what they may do.

use std::collections::BTreeSet;

use super::quota::Holder;
use super::unit::{DAY_MS, Timestamp, TokenId, UserId};
use super::{Error, Result};

/// Fewest and most characters of a password.
pub const PASSWORD_CHARACTERS: std::ops::RangeInclusive<usize> = 10..=256;
/// A session ends after this long without use: 7 days, in milliseconds.
pub const SESSION_IDLE_MS: i64 = 7 * DAY_MS;
/// A session ends this long after it began: 30 days, in milliseconds.
pub const SESSION_LIFE_MS: i64 = 30 * DAY_MS;
/// The setup link of a first start lives this long: 30 minutes, in milliseconds.
pub const SETUP_LINK_LIFE_MS: i64 = 30 * 60_000;
/// A link to choose a password lives this long: 24 hours, in milliseconds.
pub const PASSWORD_LINK_LIFE_MS: i64 = DAY_MS;
/// What an API token begins with.
pub const TOKEN_PREFIX: &str = "tbx_";
/// What a session token begins with.
pub const SESSION_PREFIX: &str = "tbs_";

/// The store's own handle of a user, meaningless outside one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserKey(pub(crate) i64);

/// What a user is to the installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Uses the box.
    User,
    /// Runs the box.
    Admin,
}

impl Role {
    /// `user` or `admin`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::User, Self::Admin].into_iter().find(|role| role.as_str() == text)
    }
}

/// What a credential opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// `usage:read`: every question about usage.
    UsageRead,
    /// `usage:write`: recording and reserving.
    UsageWrite,
    /// `memory:read`: reading and searching memories.
    MemoryRead,
    /// `memory:write`: storing, changing and deleting memories.
    MemoryWrite,
    /// `gateway`: calling models and running agents.
    Gateway,
    /// `metrics`: reading `/metrics`.
    Metrics,
    /// `admin`: `/api/admin`; only on a token of an enabled admin.
    Admin,
    /// `act-as`: naming another user by `X-User-Id`; only on a token of an enabled admin.
    ActAs,
}

impl Scope {
    /// Every scope, in the order of the table in the manual.
    pub const ALL: [Self; 8] = [
        Self::UsageRead,
        Self::UsageWrite,
        Self::MemoryRead,
        Self::MemoryWrite,
        Self::Gateway,
        Self::Metrics,
        Self::Admin,
        Self::ActAs,
    ];

    /// The name used in tokens and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UsageRead => "usage:read",
            Self::UsageWrite => "usage:write",
            Self::MemoryRead => "memory:read",
            Self::MemoryWrite => "memory:write",
            Self::Gateway => "gateway",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
            Self::ActAs => "act-as",
        }
    }

    /// The scope of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }

    /// Only an admin (or the command line) may put this on a token.
    pub const fn is_privileged(self) -> bool {
        matches!(self, Self::Metrics | Self::Admin | Self::ActAs)
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Scopes(u16);

impl Scopes {
    /// Those a token has when none are named: all but `metrics`, `admin` and `act-as`.
    pub fn default_of_tokens() -> Self {
        Scope::ALL.into_iter().filter(|scope| !scope.is_privileged()).collect()
    }

    /// Whether `scope` is in the set.
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u16) != 0
    }

    /// The set without `scope`.
    #[must_use]
    pub const fn without(self, scope: Scope) -> Self {
        Self(self.0 & !(1 << scope as u16))
    }

    /// The set with `scope`.
    #[must_use]
    pub const fn with(self, scope: Scope) -> Self {
        Self(self.0 | (1 << scope as u16))
    }

    /// Its members in the table's order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }

    /// As stored: a bit a scope.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// From what `bits` gave; unknown bits are dropped.
    pub fn from_bits(bits: u16) -> Self {
        Scope::ALL.into_iter().filter(|scope| bits & (1 << *scope as u16) != 0).collect()
    }

    /// Names, for answers.
    pub fn names(self) -> Vec<&'static str> {
        self.iter().map(Scope::as_str).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        scopes.into_iter().fold(Self::default(), Self::with)
    }
}

/// A person or program with an account.
#[derive(Clone, Debug)]
pub struct User {
    /// The store's handle.
    pub key: UserKey,
    /// The public id.
    pub id: UserId,
    /// The e-mail address as it was given; none for one provisioned without.
    pub email: Option<String>,
    /// The role.
    pub role: Role,
    /// Name of the tier.
    pub tier: String,
    /// When it was disabled.
    pub disabled_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl User {
    /// Whose usage it is, by the limits of the stored tier.
    pub fn holder(&self) -> Holder<'_> {
        Holder { user: self.key, tier: &self.tier }
    }

    /// Whether the account may be used.
    pub const fn is_enabled(&self) -> bool {
        self.disabled_at.is_none()
    }
}

/// Which users a list shows; none of a field lets all pass.
#[derive(Clone, Debug, Default)]
pub struct UserFilter {
    /// Part of the e-mail address or of the id.
    pub text: Option<String>,
    /// The tier.
    pub tier: Option<String>,
    /// The role.
    pub role: Option<Role>,
    /// Whether the account is disabled.
    pub disabled: Option<bool>,
}

/// An API token as lists show it; the secret itself is shown once, at its creation.
#[derive(Clone, Debug)]
pub struct ApiToken {
    /// Its name in lists.
    pub id: TokenId,
    /// Chosen by its maker, 1 to 64 characters.
    pub name: String,
    /// What it opens.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// What kind of credential stands behind a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    /// A session, by its row in the store.
    Session(i64),
    /// An API token, by its row in the store.
    Token(i64),
    /// A trusted proxy that named the user.
    Proxy,
}

/// Who calls: the user acted for, and what the credential behind the call may do.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The user whose rows are touched.
    pub user: User,
    /// What kind of credential was shown.
    pub credential: Credential,
    /// What it opens, after the role has been considered.
    pub scopes: Scopes,
    /// The user behind the credential where it acts for another; none where it acts for itself.
    pub acting: Option<UserKey>,
    /// Whether the call came by `act-as` or an identity proxy, and so may do what users may not do to themselves.
    pub trusted: bool,
    /// Tier named by a trusted caller for this request alone.
    pub tier_override: Option<String>,
}

impl Caller {
    /// Whoever runs the box, for one of its users: by the command line.
    pub fn of_operator(user: User) -> Self {
        let scopes = scopes_of_proxy();
        Self { user, credential: Credential::Proxy, scopes, acting: None, trusted: true, tier_override: None }
    }

    /// The tier whose limits hold for this request.
    pub fn tier(&self) -> &str {
        self.tier_override.as_deref().unwrap_or(&self.user.tier)
    }

    /// Whose usage this call counts in, and by which limits.
    pub fn holder(&self) -> Holder<'_> {
        Holder { user: self.user.key, tier: self.tier() }
    }

    /// Whether the credential is a session.
    pub const fn is_session(&self) -> bool {
        matches!(self.credential, Credential::Session(_))
    }

    /// Whether the credential has act-as: it may name others, and take entries back.
    pub const fn may_act_for_others(&self) -> bool {
        self.trusted && !matches!(self.credential, Credential::Proxy)
    }

    /// Whether the caller may reach `/auth` and `/api/admin`: one that acts for another never does.
    pub const fn is_own(&self) -> bool {
        self.acting.is_none() && !matches!(self.credential, Credential::Proxy)
    }

    /// # Errors
    /// `ScopeRequired` where the credential lacks `scope`.
    pub fn require(&self, scope: Scope) -> Result<()> {
        if self.scopes.has(scope) { Ok(()) } else { Err(Error::ScopeRequired(scope)) }
    }
}

/// What a session of a user with `role` opens: all that the role may, except acting for others.
pub fn scopes_of_session(role: Role) -> Scopes {
    let scopes = Scopes::default_of_tokens();
    match role {
        Role::User => scopes,
        Role::Admin => scopes.with(Scope::Metrics).with(Scope::Admin),
    }
}

/// What a token with `granted` opens while its user has `role`: `admin` and `act-as` work for admins only.
pub fn scopes_of_token(granted: Scopes, role: Role) -> Scopes {
    match role {
        Role::Admin => granted,
        Role::User => granted.without(Scope::Admin).without(Scope::ActAs),
    }
}

/// What a token with `own` opens while it acts for another user: neither administration nor anybody else.
pub fn scopes_of_acting(own: Scopes) -> Scopes {
    own.without(Scope::Admin).without(Scope::ActAs).without(Scope::Metrics)
}

/// What a trusted proxy's call opens: all but `metrics`, `admin` and `act-as`.
pub fn scopes_of_proxy() -> Scopes {
    Scopes::default_of_tokens()
}

/// Parses scope names; every unknown one is a fault of `field`.
///
/// # Errors
/// `Invalid` that lists the unknown names and the known ones.
pub fn parse_scopes<'a>(names: impl IntoIterator<Item = &'a str>, field: &str) -> Result<Scopes> {
    let mut scopes = Scopes::default();
    let mut unknown = BTreeSet::new();
    for name in names {
        match Scope::parse(name) {
            Some(scope) => scopes = scopes.with(scope),
            None => {
                unknown.insert(name);
            }
        }
    }
    if unknown.is_empty() {
        return Ok(scopes);
    }
    let known: Vec<&str> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
    let named: Vec<&str> = unknown.into_iter().collect();
    Err(Error::invalid(field, format!("unknown scope {}; known are {}", named.join(", "), known.join(", "))))
}

/// Checks an e-mail address: something@something, at most 254 characters, no white space or control characters.
///
/// # Errors
/// `Invalid` for `field`.
pub fn parse_email(text: &str, field: &str) -> Result<String> {
    let trimmed = text.trim();
    let shaped = trimmed
        .split_once('@')
        .is_some_and(|(local, host)| !local.is_empty() && !host.is_empty() && !host.contains('@'));
    let clean = !trimmed.chars().any(|character| character.is_whitespace() || character.is_control());
    if shaped && clean && trimmed.chars().count() <= 254 {
        Ok(trimmed.to_owned())
    } else {
        Err(Error::invalid(field, "must be an e-mail address of at most 254 characters"))
    }
}

/// The form in which e-mail addresses are compared.
pub fn email_key(email: &str) -> String {
    email.trim().to_lowercase()
}

/// Checks the length of a new password, and that it can be typed at the door, where NUL is refused.
///
/// # Errors
/// `Invalid` for `field`.
pub fn check_password(password: &str, field: &str) -> Result<()> {
    if password.contains('\0') {
        Err(Error::invalid(field, "must not contain NUL"))
    } else if PASSWORD_CHARACTERS.contains(&password.chars().count()) {
        Ok(())
    } else {
        let (least, most) = (PASSWORD_CHARACTERS.start(), PASSWORD_CHARACTERS.end());
        Err(Error::invalid(field, format!("must have {least} to {most} characters")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_without_scopes_lacks_the_privileged_three() {
        let names = Scopes::default_of_tokens().names();
        assert_eq!(names, ["usage:read", "usage:write", "memory:read", "memory:write", "gateway"]);
    }

    #[test]
    fn a_password_is_10_to_256_characters_without_nul() {
        for good in ["ten chars!".to_owned(), "ä".repeat(256)] {
            assert!(check_password(&good, "password").is_ok());
        }
        for bad in ["nine char".to_owned(), "ä".repeat(257), "correct\0horse battery".to_owned()] {
            assert!(matches!(check_password(&bad, "password"), Err(Error::Invalid(_))), "{bad:?}");
        }
    }

    #[test]
    fn scopes_survive_their_stored_form() {
        let all: Scopes = Scope::ALL.into_iter().collect();
        assert_eq!(Scopes::from_bits(all.bits()), all);
        assert_eq!(Scopes::from_bits(u16::MAX), all);
    }

    #[test]
    fn a_lowered_admin_keeps_metrics_alone_of_the_three() {
        let all: Scopes = Scope::ALL.into_iter().collect();
        let left = scopes_of_token(all, Role::User);
        assert!(left.has(Scope::Metrics) && !left.has(Scope::Admin) && !left.has(Scope::ActAs));
    }

    #[test]
    fn unknown_scopes_are_all_named() {
        let Err(Error::Invalid(faults)) = parse_scopes(["root", "usage:read", "all"], "scopes") else { panic!() };
        assert!(faults[0].message.contains("all, root"), "{}", faults[0].message);
    }
}
