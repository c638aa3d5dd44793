//! Read-ahead: ranges are requested before they are needed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;

use super::{FileSpan, Reading, Source};

/// A source that is read in a known order: while a range is used, the next ones are in flight, up to [`Source::ahead`] bytes.
/// Adjacent ranges are requested together, up to half of that.
#[derive(Debug)]
pub struct ReadAhead<'a> {
    source: &'a dyn Source,
    state: RefCell<State<'a>>,
}

#[derive(Default)]
struct State<'a> {
    /// Ranges that are not requested yet, in order.
    coming: VecDeque<Range<u64>>,
    /// Ranges in flight, in the same order.
    begun: VecDeque<(Range<u64>, Reading<'a>)>,
    /// Bytes of `begun`.
    bytes: u64,
}

impl std::fmt::Debug for State<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ranges begun, {} to come", self.begun.len(), self.coming.len())
    }
}

impl<'a> ReadAhead<'a> {
    /// `source`, of which `order` will be read.
    pub fn new(source: &'a dyn Source, order: impl IntoIterator<Item = Range<u64>>) -> Self {
        let coming = order.into_iter().filter(|range| !range.is_empty()).collect();
        Self { source, state: RefCell::new(State { coming, ..State::default() }) }
    }

    /// Reads a range, which may be in flight. A range out of order is read by itself and ends the read-ahead.
    fn take(&self, range: &Range<u64>) -> Reading<'a> {
        let mut state = self.state.borrow_mut();
        state.begin(self.source);
        match state.begun.pop_front() {
            Some((begun, reading)) if begun == *range => {
                state.bytes -= range.end - range.start;
                state.begin(self.source);
                reading
            }
            _ => {
                *state = State::default();
                self.source.read(range.start, (range.end - range.start) as usize)
            }
        }
    }
}

impl<'a> State<'a> {
    /// Requests the ranges that fit, and one range at least.
    fn begin(&mut self, source: &'a dyn Source) {
        let ahead = source.ahead();
        while let Some((run, count)) = self.next_run(ahead / 2)
            && (self.begun.is_empty() || self.bytes + (run.end - run.start) <= ahead)
        {
            let ranges: Vec<_> = self.coming.drain(..count).collect();
            let lengths: Vec<_> = ranges.iter().map(|range| (range.end - range.start) as usize).collect();
            self.bytes += run.end - run.start;
            self.begun.extend(ranges.into_iter().zip(source.read_run(run.start, &lengths)));
        }
    }

    /// The bytes of the first ranges to come that follow each other and together are no more than `limit`, one range at least, and how
    /// many these are.
    fn next_run(&self, limit: u64) -> Option<(Range<u64>, usize)> {
        let mut run = self.coming.front()?.clone();
        let mut count = 1;
        for next in self.coming.range(1..) {
            if next.start != run.end || next.end - run.start > limit {
                break;
            }
            run.end = next.end;
            count += 1;
        }
        Some((run, count))
    }
}

impl Source for ReadAhead<'_> {
    fn name(&self) -> &str {
        self.source.name()
    }

    fn bytes(&self) -> u64 {
        self.source.bytes()
    }

    fn files(&self) -> Vec<FileSpan> {
        self.source.files()
    }

    fn read(&self, offset: u64, bytes: usize) -> Reading<'_> {
        self.take(&(offset..offset + bytes as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures::FutureExt;

    use super::*;
    use crate::source::MemorySource;

    /// Counts bytes that were begun, and the runs.
    #[derive(Debug)]
    struct Counting(MemorySource, Cell<u64>, Cell<u32>);

    impl Source for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }
        fn bytes(&self) -> u64 {
            self.0.bytes()
        }
        fn ahead(&self) -> u64 {
            25
        }
        fn read(&self, offset: u64, bytes: usize) -> Reading<'_> {
            self.1.set(self.1.get() + bytes as u64);
            self.0.read(offset, bytes)
        }
        fn read_run(&self, offset: u64, lengths: &[usize]) -> Vec<Reading<'_>> {
            self.2.set(self.2.get() + 1);
            self.1.set(self.1.get() + lengths.iter().sum::<usize>() as u64);
            self.0.read_run(offset, lengths)
        }
    }

    #[test]
    fn read_ahead_keeps_order_and_bounds() {
        let source = Counting(MemorySource::new("m", (0..100).collect()), Cell::default(), Cell::default());
        let order = [50..60, 0..0, 0..10, 20..30, 90..100, 0..60, 70..71];
        let ahead = ReadAhead::new(&source, order.clone());
        let mut used = 0;
        for range in order.into_iter().filter(|range| !range.is_empty()) {
            let length = range.end - range.start;
            used += length;
            let data = ahead.read(range.start, length as usize).now_or_never().unwrap().unwrap();
            assert_eq!(data, (range.start as u8..range.end as u8).collect::<Vec<_>>());
            let begun = source.1.get() - used;
            assert!(begun <= 25 || begun == 60, "{begun} bytes ahead");
            // 20 bytes fit, 30 do not; the long range goes alone.
            assert_eq!(begun, [20, 20, 10, 60, 1, 0][[10, 20, 30, 40, 100, 101].iter().position(|&u| u == used).unwrap()]);
        }
    }

    #[test]
    fn read_ahead_joins_consecutive_ranges() {
        let source = Counting(MemorySource::new("m", (0..100).collect()), Cell::default(), Cell::default());
        // Half of 25 bytes is a run: 4 + 4 + 4, then 2 + 6, a gap, and one that is longer.
        let order = [0..4, 4..8, 8..12, 12..14, 14..20, 30..34, 34..64];
        let ahead = ReadAhead::new(&source, order.clone());
        for (range, runs) in order.into_iter().zip([3, 3, 3, 3, 3, 4, 4]) {
            let data = ahead.read(range.start, (range.end - range.start) as usize).now_or_never().unwrap().unwrap();
            assert_eq!(data, (range.start as u8..range.end as u8).collect::<Vec<_>>());
            assert_eq!(source.2.get(), runs, "{range:?}");
        }
        assert_eq!(source.1.get(), 54);
    }

    #[test]
    fn read_ahead_out_of_order_range_is_read() {
        let source = Counting(MemorySource::new("m", (0..100).collect()), Cell::default(), Cell::default());
        let ahead = ReadAhead::new(&source, [0..10, 10..20]);
        for (offset, first) in [(0, 0), (40, 40), (10, 10)] {
            let data = ahead.read(offset, 10).now_or_never().unwrap().unwrap();
            assert_eq!(data[0], first);
        }
        assert_eq!(source.1.get(), 40, "10..20 was begun ahead, dropped, and read again");
    }
}
