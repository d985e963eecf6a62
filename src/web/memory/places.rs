//! Who moves memories in or out at the moment: a bounded number of each user, and of imports of all together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::domain::auth::UserKey;
use crate::domain::{Error, Result};
use crate::lock::lock;

/// The transfers of one kind that are under way.
#[derive(Clone, Debug)]
pub(in crate::web) struct Places {
    running: Arc<Mutex<HashMap<UserKey, usize>>>,
    bounds: &'static Bounds,
}

/// How many there may be at once, and what is busy where there are.
#[derive(Debug)]
struct Bounds {
    of_a_user: usize,
    of_all: usize,
    user_is_busy: &'static str,
    all_are_busy: &'static str,
}

/// Each holds its body, and keeps the model busy.
const IMPORTS: Bounds =
    Bounds { of_a_user: 1, of_all: 4, user_is_busy: "another import of this user", all_are_busy: "importing" };
/// Each holds a page at a time, for as long as its client takes to read it, and nothing of the database meanwhile: so all
/// together are bounded by the connections alone, and nobody's stand in the way of another's.
const EXPORTS: Bounds =
    Bounds { of_a_user: 4, of_all: usize::MAX, user_is_busy: "other exports of this user", all_are_busy: "exporting" };

/// The place of a transfer, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    user: UserKey,
}

impl Places {
    /// Those of imports.
    pub(in crate::web) fn of_imports() -> Self {
        Self { running: Arc::default(), bounds: &IMPORTS }
    }

    /// Those of exports.
    pub(in crate::web) fn of_exports() -> Self {
        Self { running: Arc::default(), bounds: &EXPORTS }
    }

    /// Takes a place for `user`.
    ///
    /// # Errors
    /// `Busy` where the user has no more of them, or nobody has.
    pub(super) fn begin(&self, user: UserKey) -> Result<Place> {
        let mut running = lock(&self.running);
        if running.get(&user).is_some_and(|own| *own >= self.bounds.of_a_user) {
            return Err(Error::Busy(self.bounds.user_is_busy));
        }
        if running.values().sum::<usize>() >= self.bounds.of_all {
            return Err(Error::Busy(self.bounds.all_are_busy));
        }
        *running.entry(user).or_default() += 1;
        Ok(Place { places: self.clone(), user })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = lock(&self.places.running);
        if let Some(own) = running.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                running.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_one_import_and_all_have_a_few() {
        let imports = Places::of_imports();
        let mut places: Vec<Place> = (1..=4).map(|user| imports.begin(UserKey(user)).unwrap()).collect();
        assert!(matches!(imports.begin(UserKey(1)), Err(Error::Busy("another import of this user"))));
        assert!(matches!(imports.begin(UserKey(5)), Err(Error::Busy("importing"))));
        places.pop();
        imports.begin(UserKey(5)).unwrap();
    }

    #[test]
    fn a_user_has_a_few_exports_and_is_in_nobodys_way() {
        let exports = Places::of_exports();
        let mut own: Vec<Place> = (0..4).map(|_| exports.begin(UserKey(1)).unwrap()).collect();
        assert!(matches!(exports.begin(UserKey(1)), Err(Error::Busy("other exports of this user"))));
        let others: Vec<Place> = (2..100).map(|user| exports.begin(UserKey(user)).unwrap()).collect();
        own.pop();
        own.push(exports.begin(UserKey(1)).unwrap());
        drop((own, others));
        assert!(exports.running.lock().unwrap().is_empty());
    }
}
