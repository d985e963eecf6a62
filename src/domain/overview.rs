//! Figures over all users, for whoever runs the box.

use super::gateway::figures::Figures;
use super::ledger::ResourceType;
use super::unit::{Timestamp, UserId};

/// What a user used of a resource over some days.
#[derive(Clone, Debug)]
pub struct UserTotal {
    /// Whose.
    pub user: UserId,
    /// The address.
    pub email: Option<String>,
    /// The tier.
    pub tier: String,
    /// Of what.
    pub resource: ResourceType,
    /// Sum of the entries.
    pub amount: i64,
}

/// How often a user was refused a resource within an hour.
#[derive(Clone, Debug)]
pub struct RefusalCount {
    /// Whom.
    pub user: UserId,
    /// The address.
    pub email: Option<String>,
    /// Of what.
    pub resource: ResourceType,
    /// The first instant of the hour.
    pub hour: Timestamp,
    /// How often.
    pub count: i64,
}

/// How an upstream of the gateway does.
#[derive(Clone, Debug)]
pub struct UpstreamFigures {
    /// Its name.
    pub name: String,
    /// Whether the configuration still has it.
    pub is_configured: bool,
    /// Of today.
    pub today: Figures,
    /// Of all the days asked for.
    pub all: Figures,
}

/// How large the database is.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of the database file.
    pub database_bytes: i64,
    /// Entries of the ledger.
    pub ledger_entries: i64,
    /// Memories held.
    pub memories: i64,
}
