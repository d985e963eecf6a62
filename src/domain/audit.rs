//! The record of administrative acts.

use serde_json::Value;

use super::auth::UserKey;
use super::unit::{Timestamp, UserId};

/// Who did an administrative act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// An administrator over HTTP.
    User(UserKey),
    /// Somebody with a shell on the machine.
    CommandLine,
    /// The program itself: bootstrap, setup.
    System,
}

/// An act to be written in the transaction of what it did. `before` and `after` never hold a secret.
#[derive(Clone, Debug)]
pub struct NewAct {
    /// Who.
    pub actor: Actor,
    /// What, such as `user.update`.
    pub action: &'static str,
    /// On whom.
    pub subject: Option<UserKey>,
    /// The changed fields as they were.
    pub before: Option<Value>,
    /// The changed fields as they are.
    pub after: Option<Value>,
    /// The client's address.
    pub address: Option<String>,
}

/// Which acts a list shows; none of a field lets all pass.
#[derive(Clone, Debug, Default)]
pub struct ActFilter {
    /// What was done.
    pub action: Option<String>,
    /// Part of the e-mail address or of the id of who did it, or of whom it was done to.
    pub text: Option<String>,
}

/// An act as the log shows it.
#[derive(Clone, Debug)]
pub struct Act {
    /// Position in the log.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// `user`, `command_line` or `system`.
    pub actor_kind: &'static str,
    /// The administrator.
    pub actor: Option<(UserId, Option<String>)>,
    /// What.
    pub action: String,
    /// On whom.
    pub subject: Option<(UserId, Option<String>)>,
    /// The changed fields as they were.
    pub before: Option<Value>,
    /// The changed fields as they are.
    pub after: Option<Value>,
    /// The client's address.
    pub address: Option<String>,
}
