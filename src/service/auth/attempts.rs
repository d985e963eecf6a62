//! Failed logins, counted in memory: by address and e-mail, and by address; never by e-mail alone, so that nobody locks
//! another out.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;

use super::hash_of;
use crate::domain::auth::email_key;
use crate::domain::unit::Timestamp;
use crate::domain::{Error, Result};
use crate::lock::lock;

/// How long a failure counts: 5 minutes, in milliseconds.
const WINDOW_MS: i64 = 5 * 60_000;
/// Failures from one address for one e-mail, after which no more are taken.
const PAIR_MAX: usize = 10;
/// Failures from one address, whatever the e-mail.
const ADDRESS_MAX: usize = 30;
/// Most counters that are kept; the one that has been quiet for longest makes room.
const COUNTERS_MAX: usize = 20_000;

type Key = (IpAddr, Option<[u8; 32]>);

/// The counters.
#[derive(Debug, Default)]
pub struct Attempts {
    failures: Mutex<HashMap<Key, VecDeque<Timestamp>>>,
}

impl Attempts {
    /// Whether another attempt from `address` for `email` is taken at `now`.
    ///
    /// # Errors
    /// `RateLimited` with the time until one is.
    pub fn check(&self, address: IpAddr, email: &str, now: Timestamp) -> Result<()> {
        let mut failures = lock(&self.failures);
        let wait = keys(address, email).into_iter().filter_map(|(key, most)| {
            let times = failures.get_mut(&key)?;
            forget_old(times, now);
            // The one that must leave the window before there is room again.
            let blocking = times.len().checked_sub(most)?;
            times.get(blocking).map(|at| now.seconds_until(at.plus_millis(WINDOW_MS)))
        });
        match wait.max() {
            Some(retry_after_s) => Err(Error::RateLimited { retry_after_s: retry_after_s.max(1) }),
            None => Ok(()),
        }
    }

    /// Notes a failure and gives the answer to it: those who tried at the same time as the last allowed one learn nothing.
    pub fn fail(&self, address: IpAddr, email: &str, now: Timestamp) -> Error {
        if let Err(limited) = self.check(address, email, now) {
            return limited;
        }
        let mut failures = lock(&self.failures);
        for (key, _) in keys(address, email) {
            if !failures.contains_key(&key) && failures.len() >= COUNTERS_MAX {
                make_room(&mut failures, now);
            }
            failures.entry(key).or_default().push_back(now);
        }
        Error::WrongPassword
    }
}

fn keys(address: IpAddr, email: &str) -> [(Key, usize); 2] {
    let address = network_of(address);
    [((address, Some(hash_of(&email_key(email)))), PAIR_MAX), ((address, None), ADDRESS_MAX)]
}

/// A client with one IPv6 address usually has the whole /64 around it.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn forget_old(times: &mut VecDeque<Timestamp>, now: Timestamp) {
    while times.front().is_some_and(|at| at.plus_millis(WINDOW_MS) <= now) {
        times.pop_front();
    }
}

fn make_room(failures: &mut HashMap<Key, VecDeque<Timestamp>>, now: Timestamp) {
    failures.retain(|_, times| times.back().is_some_and(|at| at.plus_millis(WINDOW_MS) > now));
    if failures.len() >= COUNTERS_MAX {
        let quietest = failures.iter().min_by_key(|(_, times)| times.back().copied()).map(|(key, _)| *key);
        quietest.and_then(|key| failures.remove(&key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_eleventh_failure_of_a_pair_waits_for_the_first_to_leave_the_window() {
        let attempts = Attempts::default();
        let here = address("192.0.2.1");
        for second in 0..10 {
            let now = Timestamp(second * 1_000);
            assert!(matches!(attempts.fail(here, "A@b.example", now), Error::WrongPassword));
        }
        let now = Timestamp(100_000);
        let Err(Error::RateLimited { retry_after_s }) = attempts.check(here, "a@B.example", now) else { panic!() };
        assert_eq!(retry_after_s, 200);
        assert!(attempts.check(here, "other@b.example", now).is_ok());
        assert!(attempts.check(address("192.0.2.2"), "a@b.example", now).is_ok());
        assert!(attempts.check(here, "a@b.example", Timestamp(300_000)).is_ok());
    }

    #[test]
    fn an_address_has_thirty_failures_and_ipv6_counts_by_its_network() {
        let attempts = Attempts::default();
        for number in 0..30 {
            attempts.fail(address("2001:db8::1"), &format!("{number}@b.example"), Timestamp(0));
        }
        assert!(attempts.check(address("2001:db8::ffff"), "new@b.example", Timestamp(1)).is_err());
        assert!(attempts.check(address("2001:db8:0:1::1"), "new@b.example", Timestamp(1)).is_ok());
    }

    #[test]
    fn counters_are_bounded() {
        let attempts = Attempts::default();
        for number in 0..u32::try_from(COUNTERS_MAX).unwrap() {
            attempts.fail(IpAddr::from(number.to_be_bytes()), "a@b.example", Timestamp(i64::from(number)));
        }
        assert_eq!(attempts.failures.lock().unwrap().len(), COUNTERS_MAX);
    }
}
