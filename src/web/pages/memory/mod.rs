//! The pages of a user's memories.

mod find;
mod one;

pub(in crate::web) use find::list;
pub(in crate::web) use one::{delete, delete_form, edit, one};

use super::local_or;
use crate::view::memory::PATH;

/// Longest address of a list that leads back.
const BACK_CHARACTERS: std::ops::RangeInclusive<usize> = 0..=32_768;

/// The list to go back to, where `given` is one; else the whole.
fn back_to(given: Option<&str>) -> &str {
    let given = local_or(given, PATH);
    let is_list = given.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('?'));
    if is_list && !given.contains('#') { given } else { PATH }
}

/// `path` with a word about what was just done.
fn with_done(path: &str, done: &str) -> String {
    format!("{path}{}done={done}", if path.contains('?') { '&' } else { '?' })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_list_is_gone_back_to() {
        for good in ["/memories", "/memories?q=a+b&page=2"] {
            assert_eq!(back_to(Some(good)), good);
        }
        for bad in ["/usage", "/memories/7/delete", "//evil.example/memories", "https://evil.example", "/memories?a#b"]
        {
            assert_eq!(back_to(Some(bad)), PATH, "{bad}");
        }
        assert_eq!(with_done("/memories", "saved"), "/memories?done=saved");
        assert_eq!(with_done("/memories?q=a", "saved"), "/memories?q=a&done=saved");
    }
}
