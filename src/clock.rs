//! Time, ids and randomness: the only place that asks the machine for any of them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use uuid::{NoContext, Uuid};

use crate::domain::unit::{Timestamp, UserId};

/// The time source. Tests turn a manual one by hand.
#[derive(Clone, Debug)]
pub struct Clock {
    manual: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The machine's clock.
    pub const fn system() -> Self {
        Self { manual: None }
    }

    /// A clock that stands still at `start` until it is turned.
    pub fn manual(start: Timestamp) -> Self {
        Self { manual: Some(Arc::new(AtomicI64::new(start.0))) }
    }

    /// Now.
    #[expect(clippy::disallowed_methods, reason = "the one room that reads the machine's clock")]
    pub fn now(&self) -> Timestamp {
        match &self.manual {
            Some(milliseconds) => Timestamp(milliseconds.load(Ordering::SeqCst)),
            None => Timestamp(chrono::Utc::now().timestamp_millis()),
        }
    }

    /// Turns a manual clock to `to`; the machine's clock is not ours to turn.
    ///
    /// # Panics
    /// On the machine's clock.
    pub fn turn_to(&self, to: Timestamp) {
        assert!(self.manual.is_some(), "only a manual clock can be turned");
        if let Some(milliseconds) = &self.manual {
            milliseconds.store(to.0, Ordering::SeqCst);
        }
    }

    /// Turns a manual clock on by `milliseconds`.
    ///
    /// # Panics
    /// On the machine's clock.
    pub fn advance_millis(&self, milliseconds: i64) {
        self.turn_to(self.now().plus_millis(milliseconds));
    }

    /// A new user id: UUIDv7.
    pub fn new_user_id(&self) -> UserId {
        let milliseconds = u64::try_from(self.now().0).unwrap_or(0);
        let nanos = u32::try_from(milliseconds % 1_000 * 1_000_000).unwrap_or(0);
        UserId(Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, milliseconds / 1_000, nanos)))
    }
}

/// A new request id: 32 hexadecimal digits, of which half are random to this process and half count.
pub fn new_request_id() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| u64::from_be_bytes(random_bytes()));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}{:016x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// `N` random bytes from the operating system.
///
/// # Panics
/// Where the operating system has no randomness to give, without which no secret can be made.
#[expect(clippy::expect_used, reason = "no secret may be made of weaker bytes")]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0_u8; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
