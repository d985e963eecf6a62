//! Runs: memories that follow each other, of which one helps to find the next.

use crate::domain::unit::Timestamp;

/// Without sessions, a leap of time beyond this ends a run, in milliseconds.
pub const RUN_GAP_MS: i64 = 30 * 60 * 1_000;
/// How far to each side a memory's neighbours in its run matter.
pub const RUN_REACH: usize = 3;

/// How to walk along a run from one of its memories. A session is a run. The memories without a session are one run after the
/// other, cut where the time leaps by more than [`RUN_GAP_MS`].
#[derive(Clone, Copy, Debug)]
pub struct Run {
    has_gaps: bool,
}

impl Run {
    /// Of memories without a session, or of one session.
    pub const fn new(without_session: bool) -> Self {
        Self { has_gaps: without_session }
    }

    /// The nearest of `others`, which walk away from a memory that happened at `from`, each with when it happened and whether
    /// it counts. What does not count is passed over.
    pub fn take<T>(
        self,
        from: Timestamp,
        others: impl Iterator<Item = (T, Timestamp, bool)>,
    ) -> [Option<T>; RUN_REACH] {
        let mut near = [const { None }; RUN_REACH];
        let mut last = from;
        let mut places = near.iter_mut();
        let mut place = places.next();
        for (other, at, counts) in others {
            if self.has_gaps && at.0.abs_diff(last.0) > RUN_GAP_MS.unsigned_abs() {
                break;
            }
            if counts {
                // What has ended does not bridge a gap either.
                last = at;
                if let Some(place) = place.take() {
                    *place = Some(other);
                }
                place = places.next();
            }
            if place.is_none() {
                break;
            }
        }
        near
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(run: Run, minutes: &[(i64, bool)]) -> Vec<i64> {
        let others = minutes.iter().map(|(minute, counts)| (*minute, Timestamp(minute * 60_000), *counts));
        run.take(Timestamp(0), others).into_iter().flatten().collect()
    }

    #[test]
    fn a_run_without_sessions_ends_where_time_leaps() {
        let run = Run::new(true);
        assert_eq!(take(run, &[(10, true), (35, true), (66, true)]), [10, 35]);
        assert_eq!(take(run, &[(-30, true), (-61, true)]), [-30]);
        assert_eq!(take(run, &[(20, false), (40, true)]), [0_i64; 0]);
        assert_eq!(
            take(Run::new(false), &[(100, true), (900, false), (1_000, true), (2_000, true), (2_001, true)]),
            [100, 1_000, 2_000]
        );
    }
}
