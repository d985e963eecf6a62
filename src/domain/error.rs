//! The kinds of failure a caller can meet. `web/problem.rs` holds the one table from kinds to answers.

use super::auth::Scope;
use super::quota::Refusal;

/// Result of a rule, a store function or a service.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One fault of an input: which field, and which bound it breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Path of the field, such as `entries[3].amount`.
    pub field: String,
    /// What is wrong, naming the bound.
    pub message: String,
}

impl Fault {
    /// A fault of `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// A failure, by kind. Mistakes and circumstances only: a broken invariant of ours is an `assert!`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No credential, or one that is unknown, expired or revoked.
    #[error("a valid bearer token is required")]
    Unauthenticated,
    /// E-mail and password do not belong together.
    #[error("e-mail or password is wrong")]
    WrongPassword,
    /// The credential is good but lacks a scope.
    #[error("this needs the scope {}", .0.as_str())]
    ScopeRequired(Scope),
    /// The caller may not do this at all; `code` is stable.
    #[error("{detail}")]
    Forbidden {
        /// Stable, machine-readable.
        code: &'static str,
        /// For people.
        detail: String,
    },
    /// The body is not JSON.
    #[error("{0}")]
    Malformed(String),
    /// What is asked for is not offered; `code` is stable.
    #[error("{detail}")]
    Refused {
        /// Stable, machine-readable.
        code: &'static str,
        /// Which field asks for it.
        field: String,
        /// For people.
        detail: String,
    },
    /// The body has a media type or an encoding that is not taken.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// The body passes a limit, in bytes, that a setting gives.
    #[error("the body is larger than {0} bytes ({1})")]
    TooLarge(u64, &'static str),
    /// Fields that are unknown, of the wrong type or out of bounds: every fault at once.
    #[error("{}", summary(.0))]
    Invalid(Vec<Fault>),
    /// No such thing, or not the caller's.
    #[error("{0} was not found")]
    NotFound(&'static str),
    /// It was erased and will not come back.
    #[error("{0} was erased")]
    Gone(&'static str),
    /// The request contradicts the present state; `code` is stable.
    #[error("{detail}")]
    Conflict {
        /// Stable, machine-readable.
        code: &'static str,
        /// For people.
        detail: String,
    },
    /// A limit would be passed.
    #[error("{0}")]
    QuotaExceeded(Box<Refusal>),
    /// Too many failed attempts.
    #[error("too many failed attempts, try again in {retry_after_s} s")]
    RateLimited {
        /// Seconds until the next attempt is taken.
        retry_after_s: u64,
    },
    /// A bounded queue is full.
    #[error("{0} is busy, try again in a moment")]
    Busy(&'static str),
    /// The request took longer than `server.request_timeout`.
    #[error("the request took too long")]
    Timeout,
    /// Something outside the program does not work now (disk, remote embedder).
    #[error("{0}")]
    Unavailable(String),
    /// A fault of ours; the text goes to the log, never to the caller.
    #[error("internal error")]
    Internal(String),
}

impl Error {
    /// An input with a single fault.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![Fault::new(field, message)])
    }

    /// A contradiction with the present state.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Conflict { code, detail: detail.into() }
    }

    /// Something the caller may not do.
    pub fn forbidden(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Forbidden { code, detail: detail.into() }
    }

    /// The same failure, said of what was not one of a list.
    #[must_use]
    pub fn without_index(self) -> Self {
        match self {
            Self::QuotaExceeded(mut refusal) => {
                refusal.index = None;
                Self::QuotaExceeded(refusal)
            }
            other => other,
        }
    }

    /// The same failure, of which waiting makes nothing better.
    #[must_use]
    pub fn without_retry(self) -> Self {
        match self {
            Self::QuotaExceeded(mut refusal) => {
                refusal.retry_after_s = None;
                Self::QuotaExceeded(refusal)
            }
            other => other,
        }
    }

    /// The same failure, said of element `index` of the list `list`.
    #[must_use]
    pub fn at(self, list: &str, index: usize) -> Self {
        match self {
            Self::Invalid(faults) => Self::Invalid(
                faults
                    .into_iter()
                    .map(|fault| Fault::new(format!("{list}[{index}].{}", fault.field), fault.message))
                    .collect(),
            ),
            Self::QuotaExceeded(mut refusal) => {
                refusal.index = Some(index);
                Self::QuotaExceeded(refusal)
            }
            Self::Conflict { code, detail } => Self::Conflict { code, detail: format!("{list}[{index}]: {detail}") },
            other => other,
        }
    }
}

fn summary(faults: &[Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect();
    lines.join("; ")
}
