//! Lists come in pages: how much is asked for, and where the next page begins.
//!
//! A cursor names the last row of its page; the next page begins after it, so it stays right while rows come and go.

use super::{Error, Result};

/// Which page is asked for: at most `limit` rows below the one that the cursor names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    limit: usize,
    before: Option<i64>,
}

/// A page: its elements, and the cursor of the next one where there is more.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// In the order of the list.
    pub items: Vec<T>,
    /// `[A-Za-z0-9_-]`; none at the end.
    pub next: Option<String>,
}

impl Paging {
    /// `limit`: at least 1; `cursor`: as an earlier page gave it.
    ///
    /// # Errors
    /// `Invalid` for a cursor that no page gave.
    pub fn new(limit: usize, cursor: Option<&str>) -> Result<Self> {
        let before = cursor.map(|cursor| decode(cursor).ok_or_else(|| Error::invalid("cursor", "is not one of ours")));
        Ok(Self { limit, before: before.transpose()? })
    }

    /// The first page, of `limit` elements.
    pub const fn first(limit: usize) -> Self {
        Self { limit, before: None }
    }

    /// The page after the one that gave `cursor`, of the same size.
    ///
    /// # Errors
    /// As [`Paging::new`].
    pub fn after(self, cursor: &str) -> Result<Self> {
        Self::new(self.limit, Some(cursor))
    }

    /// The row id below which the page lies.
    pub fn before(self) -> i64 {
        self.before.unwrap_or(i64::MAX)
    }

    /// Rows to read: one more than are shown, which tells whether there is more.
    pub fn rows(self) -> i64 {
        i64::try_from(self.limit).unwrap_or(i64::MAX).saturating_add(1)
    }

    /// The page of `rows`, which were read newest first.
    pub fn page<T>(self, mut rows: Vec<T>, row_id: impl Fn(&T) -> i64) -> Page<T> {
        let has_more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next = rows.last().filter(|_| has_more).map(|row| format!("{:x}", row_id(row)));
        Page { items: rows, next }
    }
}

impl<T> Page<T> {
    /// The same page of other elements.
    pub fn map<U>(self, with: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(with).collect(), next: self.next }
    }
}

fn decode(cursor: &str) -> Option<i64> {
    let is_hex = cursor.bytes().all(|byte| byte.is_ascii_hexdigit());
    i64::from_str_radix(cursor, 16).ok().filter(|_| is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_names_where_the_next_page_begins_and_the_last_page_has_none() {
        let paging = Paging::new(2, None).unwrap();
        let page = paging.page(vec![9, 8, 7], |row| *row);
        assert_eq!((page.items.as_slice(), page.next.as_deref()), ([9, 8].as_slice(), Some("8")));
        let next = Paging::new(2, page.next.as_deref()).unwrap();
        assert_eq!(next.before(), 8);
        assert_eq!(next.page(vec![7, 6], |row| *row).next, None);
    }

    #[test]
    fn a_cursor_of_somebody_else_is_a_fault() {
        for cursor in ["", "xyz", "-1", "+1", "ffffffffffffffffff"] {
            assert!(Paging::new(2, Some(cursor)).is_err(), "{cursor}");
        }
    }
}
