//! What a search has to know of all of a user's memories, and the coarse pass over them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::sorted::{PIECE_MAX, Sorted};
use crate::domain::memory::{Code, Embedding, Estimator, RUN_REACH, Run};
use crate::domain::unit::Timestamp;

/// Codes of a piece beyond which another one is begun.
const PIECE_CODES_MAX: usize = 1_024;
/// How many of the nearest codes are estimated for each memory wanted.
const ESTIMATED_FOR_ONE: usize = 4;
/// Estimated at least, however few are wanted.
const ESTIMATED_LEAST: usize = 512;

/// A session by the hash of its name, within one user's memories and never written down; all memories without one share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionHash(u64);

impl SessionHash {
    const NONE: Self = Self(0);

    pub(crate) fn of(name: Option<&str>) -> Self {
        let Some(name) = name else { return Self::NONE };
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Self(hasher.finish().max(1))
    }
}

/// A memory without its codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Row {
    /// The row's id.
    pub(crate) key: i64,
    pub(crate) session: SessionHash,
    pub(crate) timestamp: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) text_bytes: u32,
}

impl Row {
    fn lives(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| end > now)
    }

    const fn run_key(&self) -> RunKey {
        (self.session, self.timestamp, self.key)
    }
}

/// What orders memories by how they follow each other: session, time, handle.
type RunKey = (SessionHash, Timestamp, i64);

/// Rows in the order of their keys, and the codes of their windows in the same order.
#[derive(Clone, Default)]
struct Piece {
    rows: Vec<Row>,
    /// Where the codes of each row end.
    ends: Vec<usize>,
    codes: Vec<Code>,
    /// When the first of them ends.
    first_end: Option<Timestamp>,
    /// Whether a row may have another number of codes than one.
    is_mixed: bool,
}

impl Piece {
    fn last_key(&self) -> i64 {
        self.rows.last().map_or(i64::MIN, |row| row.key)
    }

    fn begin_of(&self, index: usize) -> usize {
        index.checked_sub(1).and_then(|before| self.ends.get(before).copied()).unwrap_or(0)
    }

    fn codes_of(&self, index: usize) -> &[Code] {
        let end = self.ends.get(index).copied().unwrap_or_default();
        self.codes.get(self.begin_of(index)..end).unwrap_or_default()
    }

    fn insert(&mut self, index: usize, row: Row, codes: &[Code]) {
        let begin = self.begin_of(index);
        self.first_end = self.first_end.into_iter().chain(row.expires_at).min();
        self.is_mixed |= codes.len() != 1;
        self.rows.insert(index, row);
        self.ends.insert(index, begin);
        self.codes.splice(begin..begin, codes.iter().copied());
        self.ends.iter_mut().skip(index).for_each(|end| *end += codes.len());
    }

    fn remove(&mut self, index: usize) -> (Row, Vec<Code>) {
        let (begin, end) = (self.begin_of(index), self.ends.remove(index));
        self.ends.iter_mut().skip(index).for_each(|later| *later -= end - begin);
        let codes = self.codes.drain(begin..end).collect();
        // `first_end` may stay too early, which costs a look at the rows.
        (self.rows.remove(index), codes)
    }

    fn split(&mut self) -> Self {
        let middle = self.rows.len() / 2;
        let begin = self.begin_of(middle);
        let mut second = Self {
            rows: self.rows.split_off(middle),
            ends: self.ends.split_off(middle),
            codes: self.codes.split_off(begin),
            first_end: None,
            is_mixed: self.is_mixed,
        };
        second.ends.iter_mut().for_each(|end| *end -= begin);
        second.first_end = second.rows.iter().filter_map(|row| row.expires_at).min();
        second
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.first_end.is_some_and(|end| end <= now)
    }
}

/// All memories of a user. A clone shares what does not change.
#[derive(Clone, Default)]
pub(crate) struct Rows {
    pieces: Vec<Arc<Piece>>,
    /// Session by session, in the order in which they follow each other.
    order: Sorted<RunKey>,
    len: usize,
    codes: usize,
}

impl Rows {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// About how much memory it takes.
    pub(crate) fn size_bytes(&self) -> usize {
        self.len * (size_of::<Row>() + size_of::<usize>())
            + self.codes * size_of::<Code>()
            + self.pieces.len() * (size_of::<Piece>() + 64)
            + self.order.size_bytes()
    }

    fn place_of(&self, key: i64) -> (usize, Result<usize, usize>) {
        let index = self.pieces.partition_point(|piece| piece.last_key() < key);
        let index = index.min(self.pieces.len().saturating_sub(1));
        let place = self.pieces.get(index).map_or(Err(0), |piece| piece.rows.binary_search_by_key(&key, |row| row.key));
        (index, place)
    }

    /// The memory of that key.
    pub(crate) fn find(&self, key: i64) -> Option<&Row> {
        let (index, place) = self.place_of(key);
        self.pieces.get(index)?.rows.get(place.ok()?)
    }

    /// Puts a memory in; without codes it keeps those it has, and stays away where it was not there.
    pub(crate) fn put(&mut self, row: Row, codes: Option<&[Code]>) {
        let before = self.take(row.key);
        let codes = match (codes, before) {
            (Some(codes), _) => codes.to_vec(),
            (None, Some(kept)) => kept,
            (None, None) => return,
        };
        self.order.insert(row.run_key());
        self.len += 1;
        self.codes += codes.len();
        let (index, place) = self.place_of(row.key);
        let (Some(shared), Err(place)) = (self.pieces.get_mut(index), place) else {
            return self.begin_piece(index, row, &codes);
        };
        let is_full = shared.rows.len() >= PIECE_MAX || shared.codes.len() >= PIECE_CODES_MAX;
        if place == shared.rows.len() && is_full {
            return self.begin_piece(index + 1, row, &codes);
        }
        let piece = Arc::make_mut(shared);
        piece.insert(place, row, &codes);
        if is_full && piece.rows.len() > 1 {
            let second = piece.split();
            self.pieces.insert(index + 1, Arc::new(second));
        }
    }

    fn begin_piece(&mut self, index: usize, row: Row, codes: &[Code]) {
        let mut piece = Piece::default();
        piece.insert(0, row, codes);
        self.pieces.insert(index, Arc::new(piece));
    }

    /// Takes a memory out.
    pub(crate) fn remove(&mut self, key: i64) {
        self.take(key);
    }

    fn take(&mut self, key: i64) -> Option<Vec<Code>> {
        let (index, place) = self.place_of(key);
        let (shared, place) = (self.pieces.get_mut(index)?, place.ok()?);
        let piece = Arc::make_mut(shared);
        let (row, codes) = piece.remove(place);
        if piece.rows.is_empty() {
            self.pieces.remove(index);
        }
        self.len -= 1;
        self.codes -= codes.len();
        self.order.remove_by(|other| other.cmp(&row.run_key()));
        Some(codes)
    }

    /// Hands the memories that live at `now` to `take`, in the order of their keys.
    pub(crate) fn each_living(&self, now: Timestamp, mut take: impl FnMut(&Row)) {
        for piece in &self.pieces {
            if piece.is_over(now) {
                piece.rows.iter().filter(|row| row.lives(now)).for_each(&mut take);
            } else {
                piece.rows.iter().for_each(&mut take);
            }
        }
    }

    /// The keys of the living memories around one in its run (see [`RUN_GAP_MS`]), nearest first: those before, those after.
    pub(crate) fn around(&self, key: i64, now: Timestamp) -> [[Option<i64>; RUN_REACH]; 2] {
        let Some(row) = self.find(key) else { return [[None; RUN_REACH]; 2] };
        let run = Run::new(row.session == SessionHash::NONE);
        let near = |(session, at, other): RunKey| {
            (session == row.session).then(|| (other, at, self.find(other).is_some_and(|row| row.lives(now))))
        };
        [
            run.take(row.timestamp, self.order.before(&row.run_key()).map_while(|other| near(*other))),
            run.take(row.timestamp, self.order.after(&row.run_key()).map_while(|other| near(*other))),
        ]
    }

    /// The keys, in order, of about `count` memories that live at `now` and are nearest to any of `queries`; with
    /// `among` (keys in order) only of those. Never fewer than `count`, unless there are fewer.
    pub(crate) fn nearest(
        &self,
        queries: &[Embedding],
        now: Timestamp,
        among: Option<&[i64]>,
        count: usize,
    ) -> Vec<i64> {
        let mut keys: Vec<i64> = Vec::new();
        for query in queries {
            keys.extend(self.nearest_to_one(query, now, among, count));
        }
        if queries.len() > 1 {
            keys.sort_unstable();
            keys.dedup();
        }
        keys
    }

    fn nearest_to_one(&self, query: &Embedding, now: Timestamp, among: Option<&[i64]>, count: usize) -> Vec<i64> {
        let distances = self.distances(&Code::of(query), now, among);
        let wanted = (count * ESTIMATED_FOR_ONE).max(ESTIMATED_LEAST);
        let within = radius(&distances, wanted);
        let estimator = Estimator::new(query);
        let mut found: Vec<(f32, i64)> = Vec::with_capacity(wanted * 2);
        let mut position = 0;
        for piece in &self.pieces {
            let of_piece = distances.get(position..position + piece.rows.len()).unwrap_or_default();
            position += piece.rows.len();
            for (index, (row, _)) in
                piece.rows.iter().zip(of_piece).enumerate().filter(|(_, (_, distance))| **distance <= within)
            {
                let estimates = piece.codes_of(index).iter().map(|code| estimator.estimate(code));
                found.push((estimates.fold(f32::NEG_INFINITY, f32::max), row.key));
            }
        }
        if found.len() > count && count > 0 {
            found
                .select_nth_unstable_by(count - 1, |left, right| right.0.total_cmp(&left.0).then(right.1.cmp(&left.1)));
            found.truncate(count);
        }
        let mut keys: Vec<i64> = found.into_iter().map(|(_, key)| key).collect();
        keys.sort_unstable();
        keys
    }

    /// The distance of each memory's nearest window, in their order; `Code::BEYOND` for those that are not meant.
    fn distances(&self, query: &Code, now: Timestamp, among: Option<&[i64]>) -> Vec<u16> {
        let mut distances = Vec::with_capacity(self.len);
        let mut among = among.map(|keys| keys.iter().copied().peekable());
        for piece in &self.pieces {
            let begin = distances.len();
            if piece.is_mixed {
                let nearest = |index| piece.codes_of(index).iter().map(|code| code.distance(query)).min();
                distances.extend((0..piece.rows.len()).map(|index| nearest(index).unwrap_or(Code::BEYOND)));
            } else {
                distances.extend(piece.codes.iter().map(|code| code.distance(query)));
            }
            let of_piece = distances.get_mut(begin..).unwrap_or_default();
            if piece.is_over(now) {
                for (row, distance) in piece.rows.iter().zip(&mut *of_piece) {
                    if !row.lives(now) {
                        *distance = Code::BEYOND;
                    }
                }
            }
            let Some(among) = &mut among else { continue };
            for (row, distance) in piece.rows.iter().zip(of_piece) {
                while among.next_if(|key| *key < row.key).is_some() {}
                if among.peek() != Some(&row.key) {
                    *distance = Code::BEYOND;
                }
            }
        }
        distances
    }
}

/// The least distance within which `wanted` of them lie, or all that are meant.
fn radius(distances: &[u16], wanted: usize) -> u16 {
    let mut counts = [0_usize; Code::BEYOND as usize + 1];
    for distance in distances {
        if let Some(count) = counts.get_mut(usize::from(*distance)) {
            *count += 1;
        }
    }
    let mut within = 0;
    for (distance, count) in (0..Code::BEYOND).zip(counts) {
        within += count;
        if within >= wanted {
            return distance;
        }
    }
    Code::BEYOND - 1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::memory::EMBEDDING_DIMENSIONS;

    fn embedding(seed: u64) -> Embedding {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let values: Vec<f32> = (0..EMBEDDING_DIMENSIONS)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                f32::from(u16::try_from(state >> 48).unwrap()) - 32_768.0
            })
            .collect();
        Embedding::normalised(&values).unwrap()
    }

    type Model = BTreeMap<i64, (Row, Vec<u64>)>;

    fn same(rows: &Rows, model: &Model) {
        assert_eq!(rows.len(), model.len());
        let now = Timestamp(50);
        let living: Vec<Row> = model.values().map(|(row, _)| *row).filter(|row| row.lives(now)).collect();
        let mut found = Vec::new();
        rows.each_living(now, |row| found.push(*row));
        assert_eq!(found, living);
        let all = rows.nearest(&[embedding(3)], now, None, model.len());
        assert!(all.iter().copied().eq(living.iter().map(|row| row.key)));
        let mut ordered: Vec<Row> = living.clone();
        ordered.sort_by_key(Row::run_key);
        for (place, row) in ordered.iter().enumerate() {
            let near = |other: &&Row| other.session == row.session;
            let after: Vec<i64> =
                ordered.iter().skip(place + 1).filter(near).take(RUN_REACH).map(|row| row.key).collect();
            let before: Vec<i64> =
                ordered.iter().take(place).rev().filter(near).take(RUN_REACH).map(|row| row.key).collect();
            let found = rows.around(row.key, now).map(|side| side.into_iter().flatten().collect::<Vec<i64>>());
            assert_eq!(found, [before, after]);
        }
    }

    proptest! {
        #[test]
        fn rows_are_what_was_put_and_not_removed(
            start in 0..1_200_i64,
            changes in prop::collection::vec((0..1_500_i64, 0..5_usize, 0..3_usize, 0..100_i64), 0..60),
        ) {
            let (mut rows, mut model) = (Rows::default(), Model::new());
            let put = |rows: &mut Rows, model: &mut Model, key: i64, windows: usize, at: i64| {
                let session = SessionHash::of(Some(if at % 2 == 0 { "even" } else { "odd" }));
                let row = Row {
                    key, session, timestamp: Timestamp(at), expires_at: (at > 90).then_some(Timestamp(at - 50)),
                    text_bytes: u32::try_from(at).unwrap(),
                };
                let seeds: Vec<u64> = (0..windows as u64).map(|window| key.unsigned_abs() * 10 + window).collect();
                let codes: Vec<Code> = seeds.iter().map(|seed| Code::of(&embedding(*seed))).collect();
                rows.put(row, Some(&codes));
                model.insert(key, (row, seeds));
            };
            (0..start).for_each(|key| put(&mut rows, &mut model, key * 2, 1, key % 100));
            let before = (rows.clone(), model.clone());
            for (key, windows, kind, at) in changes {
                if kind == 0 {
                    rows.remove(key);
                    model.remove(&key);
                } else {
                    put(&mut rows, &mut model, key, windows.max(1), at);
                }
            }
            same(&rows, &model);
            same(&before.0, &before.1);
            // Of each, its own embedding finds it, by whichever window.
            for (key, (row, seeds)) in model.iter().filter(|(_, (row, _))| row.lives(Timestamp(50))).take(20) {
                let query = embedding(*seeds.last().unwrap());
                prop_assert_eq!(rows.nearest(std::slice::from_ref(&query), Timestamp(50), None, 1), [*key]);
                prop_assert_eq!(rows.nearest(std::slice::from_ref(&query), Timestamp(50), Some(&[*key]), 4), [*key]);
                prop_assert_eq!(rows.find(*key), Some(row));
            }
        }
    }
}
