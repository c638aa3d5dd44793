//! The shape of steps: buckets of rows, the segments of a prefill pass, and where sampled tokens are.

use crate::kernels::Row;
use crate::model::SEGMENT_ROWS;

/// Sampled tokens of each slot that the device keeps for readback.
pub(super) const RING: u32 = 64;

/// Rows of a step that computes `rows`, at most `most`: few sizes, so that programs recur. The others are inactive, or repeat a row.
pub(super) fn bucket(rows: u32, most: u32) -> u32 {
    const STEP: u32 = 64;
    let size = if rows <= STEP { rows.next_power_of_two() } else { rows.next_multiple_of(STEP) };
    size.min(most)
}

/// The rows of a prefill pass: runs of positions of sequences.
#[derive(Debug, Default)]
pub(super) struct Segments {
    rows: Vec<Row>,
}

impl Segments {
    /// Most runs of a pass of so many rows.
    pub(super) fn runs(most: u32) -> usize {
        most.div_ceil(SEGMENT_ROWS) as usize
    }

    /// Appends a run of positions. Returns the number of its last row.
    pub(super) fn push(&mut self, run: impl IntoIterator<Item = Row>) -> u32 {
        self.pad(self.rows.len().next_multiple_of(SEGMENT_ROWS as usize));
        self.rows.extend(run);
        self.rows.len() as u32 - 1
    }

    /// Rows of which the last one is no repetition.
    pub(super) fn len(&self) -> u32 {
        self.rows.len() as u32
    }

    /// All rows, up to so many: those between and behind the runs repeat the last one of a run, which computes the same once more.
    pub(super) fn padded(mut self, rows: u32) -> Vec<Row> {
        self.pad(rows as usize);
        self.rows
    }

    fn pad(&mut self, rows: usize) {
        if let Some(last) = self.rows.last().copied() {
            self.rows.resize(rows, last);
        }
    }
}

/// The tokens of a sequence in a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sampled {
    /// Number of the sequence.
    pub(super) sequence: u64,
    pub(super) slot: u32,
    /// Row of its logits.
    pub(super) row: u32,
    /// Place of the first token in the ring.
    pub(super) first: u32,
    pub(super) count: u32,
}

/// The part of the rings that is read back after a submission: one run of tokens, or all rings up to the last slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// First token and number of tokens, in all rings one after the other.
    pub(super) first: u32,
    pub(super) count: u32,
}

impl Window {
    /// The least that holds all tokens; a token where there are none.
    pub(super) fn of(sampled: &[Sampled]) -> Self {
        match sampled {
            [one] if one.first + one.count <= RING => Self { first: one.slot * RING + one.first, count: one.count.max(1) },
            all => Self { first: 0, count: all.iter().map(|s| (s.slot + 1) * RING).max().unwrap_or(1) },
        }
    }

    /// Place of the `i`th token of a sequence in the window.
    pub(super) fn place(self, sampled: &Sampled, i: u32) -> usize {
        (sampled.slot * RING + (sampled.first + i) % RING - self.first) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_few_and_hold_the_rows() {
        let all: Vec<u32> = (1..=512).map(|rows| bucket(rows, 512)).collect();
        assert!((1..).zip(&all).all(|(rows, bucket)| rows <= *bucket && *bucket < 2 * rows.max(1) + 1));
        let mut sizes = all;
        sizes.dedup();
        assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 320, 384, 448, 512]);
        assert_eq!((bucket(5, 6), bucket(3, 3), bucket(300, 300)), (6, 3, 300), "never more than there are");
    }

    #[test]
    fn segments_begin_at_tiles_and_repeat_their_last_row() {
        let run = |slot, positions: std::ops::Range<u32>| positions.map(move |position| Row { position, slot, ..Row::default() });
        let mut segments = Segments::default();
        assert_eq!(segments.push(run(3, 5..8)), 2);
        assert_eq!(segments.push(run(1, 0..40)), 32 + 39);
        assert_eq!(segments.push(run(2, 9..10)), 96);
        assert_eq!((segments.len(), Segments::runs(512), Segments::runs(7)), (97, 16, 1));
        let rows = segments.padded(128);
        let at = |i: usize| (rows[i].slot, rows[i].position);
        assert_eq!(
            [at(0), at(2), at(3), at(31), at(32), at(71), at(95), at(96), at(127)],
            [(3, 5), (3, 7), (3, 7), (3, 7), (1, 0), (1, 39), (1, 39), (2, 9), (2, 9)]
        );
    }

    #[test]
    fn window_holds_every_token_that_was_sampled() {
        let sampled = |slot, first, count| Sampled { sequence: 0, slot, row: 0, first, count };
        for all in
            [vec![], vec![sampled(2, 60, 4)], vec![sampled(2, 60, 5)], vec![sampled(0, 0, 1), sampled(3, 63, 9)], vec![sampled(1, 7, 0)]]
        {
            let window = Window::of(&all);
            assert!(window.count > 0);
            for one in &all {
                for i in 0..one.count {
                    assert!(window.place(one, i) < window.count as usize, "{one:?} {i} {window:?}");
                }
            }
        }
        assert_eq!(Window::of(&[sampled(2, 60, 4)]), Window { first: 188, count: 4 });
    }
}
