//! The imports that are under way: a bounded number, and one of a user.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::auth::UserKey;
use crate::domain::{Error, Result};

/// Imports at once: each holds its body, and keeps the model busy.
const IMPORTS_MAX: usize = 4;

/// Whose imports are under way.
#[derive(Clone, Debug, Default)]
pub(in crate::web) struct Imports(Arc<Mutex<HashSet<UserKey>>>);

/// The place of an import, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    imports: Imports,
    user: UserKey,
}

impl Imports {
    /// Takes a place for an import of `user`.
    ///
    /// # Errors
    /// `Busy` where the user has one already, or there is none left.
    pub(super) fn begin(&self, user: UserKey) -> Result<Place> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains(&user) {
            return Err(Error::Busy("another import of this user"));
        }
        if running.len() >= IMPORTS_MAX {
            return Err(Error::Busy("importing"));
        }
        running.insert(user);
        Ok(Place { imports: self.clone(), user })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.imports.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_one_import_and_all_have_a_few() {
        let imports = Imports::default();
        let mut places: Vec<Place> = (1..=4).map(|user| imports.begin(UserKey(user)).unwrap()).collect();
        assert!(matches!(imports.begin(UserKey(1)), Err(Error::Busy("another import of this user"))));
        assert!(matches!(imports.begin(UserKey(5)), Err(Error::Busy("importing"))));
        places.pop();
        imports.begin(UserKey(5)).unwrap();
    }
}
