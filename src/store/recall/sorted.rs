//! Sorted sequences in pieces that are shared with whoever reads them, and copied one by one when they change.

use std::cmp::Ordering;
use std::sync::Arc;

/// Most elements of a piece: what a change copies where somebody reads.
pub(super) const PIECE_MAX: usize = 512;

/// A sorted sequence without repetitions.
#[derive(Clone)]
pub(crate) struct Sorted<T> {
    pieces: Vec<Arc<Vec<T>>>,
    len: usize,
}

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self { pieces: Vec::new(), len: 0 }
    }
}

impl<T: Copy + Ord> Sorted<T> {
    /// Of elements that come in order.
    pub(crate) fn from_ordered(elements: &[T]) -> Self {
        debug_assert!(elements.is_sorted(), "elements in order");
        let pieces = elements.chunks(PIECE_MAX).map(|piece| Arc::new(piece.to_vec())).collect();
        Self { pieces, len: elements.len() }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }

    /// About how much memory it takes.
    pub(super) fn size_bytes(&self) -> usize {
        self.len * size_of::<T>() + self.pieces.len() * 64
    }

    /// The piece in which what `order` finds equal is or would be.
    fn piece_of(&self, order: impl Fn(&T) -> Ordering) -> usize {
        let behind = self.pieces.partition_point(|piece| piece.last().is_some_and(|last| order(last).is_lt()));
        behind.min(self.pieces.len().saturating_sub(1))
    }

    /// Adds an element; one that is there stays.
    pub(crate) fn insert(&mut self, element: T) {
        let index = self.piece_of(|other| other.cmp(&element));
        let Some(shared) = self.pieces.get_mut(index) else {
            self.pieces.push(Arc::new(vec![element]));
            self.len = 1;
            return;
        };
        let Err(place) = shared.binary_search(&element) else { return };
        self.len += 1;
        if place == PIECE_MAX && shared.len() == PIECE_MAX {
            // The sequence grows at its end, mostly: full pieces stay full.
            self.pieces.insert(index + 1, Arc::new(vec![element]));
            return;
        }
        let piece = Arc::make_mut(shared);
        piece.insert(place, element);
        if piece.len() > PIECE_MAX {
            let second = piece.split_off(PIECE_MAX / 2);
            self.pieces.insert(index + 1, Arc::new(second));
        }
    }

    /// Takes away the element that `order` finds equal, and gives it.
    pub(crate) fn remove_by(&mut self, order: impl Fn(&T) -> Ordering) -> Option<T> {
        let index = self.piece_of(&order);
        let shared = self.pieces.get_mut(index)?;
        let place = shared.binary_search_by(&order).ok()?;
        let piece = Arc::make_mut(shared);
        let removed = piece.remove(place);
        self.len -= 1;
        if piece.is_empty() {
            self.pieces.remove(index);
        }
        Some(removed)
    }

    /// The element that `order` finds equal.
    pub(crate) fn find_by(&self, order: impl Fn(&T) -> Ordering) -> Option<T> {
        let piece = self.pieces.get(self.piece_of(&order))?;
        piece.get(piece.binary_search_by(&order).ok()?).copied()
    }

    /// The elements before `element`, nearest first.
    pub(super) fn before(&self, element: &T) -> impl Iterator<Item = &T> {
        let index = self.piece_of(|other| other.cmp(element));
        let pieces = self.pieces.get(..=index).unwrap_or_default();
        let first = pieces.last().map_or(0, |piece| piece.partition_point(|other| other < element));
        let in_piece = pieces.last().and_then(|piece| piece.get(..first)).unwrap_or_default();
        let further = pieces.iter().rev().skip(1).flat_map(|piece| piece.iter().rev());
        in_piece.iter().rev().chain(further)
    }

    /// The elements after `element`, nearest first.
    pub(super) fn after(&self, element: &T) -> impl Iterator<Item = &T> {
        let index = self.piece_of(|other| other.cmp(element));
        let pieces = self.pieces.get(index..).unwrap_or_default();
        let first = pieces.first().map_or(0, |piece| piece.partition_point(|other| other <= element));
        let in_piece = pieces.first().and_then(|piece| piece.get(first..)).unwrap_or_default();
        in_piece.iter().chain(pieces.iter().skip(1).flat_map(|piece| piece.iter()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(
            start in 0..2_000_u32,
            changes in prop::collection::vec((any::<bool>(), 0..3_000_u32), 0..400),
        ) {
            let ordered: Vec<u32> = (0..start).map(|number| number * 2).collect();
            let mut sorted = Sorted::from_ordered(&ordered);
            let mut set: BTreeSet<u32> = ordered.into_iter().collect();
            let before = sorted.clone();
            for (adds, number) in changes {
                if adds {
                    sorted.insert(number);
                    set.insert(number);
                } else {
                    let removed = sorted.remove_by(|other| other.cmp(&number));
                    prop_assert_eq!(removed.is_some(), set.remove(&number));
                }
                prop_assert!(sorted.before(&number).take(5).eq(set.range(..number).rev().take(5)));
                prop_assert!(sorted.after(&number).take(5).eq(set.range(number + 1..).take(5)));
                prop_assert_eq!(sorted.find_by(|other| other.cmp(&number)), set.get(&number).copied());
            }
            prop_assert!(sorted.iter().eq(set.iter()));
            prop_assert_eq!(sorted.len(), set.len());
            prop_assert!(sorted.pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= PIECE_MAX));
            // Whoever read before reads the same.
            prop_assert!(before.iter().copied().eq((0..start).map(|number| number * 2)));
        }
    }
}
