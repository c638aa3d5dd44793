//! Pages of the key/value cache.

use crate::kernels::PAGE;

/// The free pages.
#[derive(Debug)]
pub(super) struct PagePool {
    free: Vec<u32>,
}

impl PagePool {
    pub(super) fn new(pages: u32) -> Self {
        Self { free: (0..pages).rev().collect() }
    }

    /// Takes pages for `positions`, all or none.
    pub(super) fn take(&mut self, positions: u32) -> Option<Vec<u32>> {
        let count = positions.div_ceil(PAGE) as usize;
        let left = self.free.len().checked_sub(count)?;
        Some(self.free.split_off(left))
    }

    pub(super) fn give_back(&mut self, pages: Vec<u32>) {
        self.free.extend(pages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_none() {
        let mut pool = PagePool::new(4);
        let a = pool.take(2 * PAGE + 1).expect("three of four");
        assert_eq!(a.len(), 3);
        assert!(pool.take(PAGE + 1).is_none());
        let b = pool.take(PAGE).expect("the last");
        assert!(a.iter().all(|page| !b.contains(page)));
        pool.give_back(a);
        assert_eq!(pool.take(3 * PAGE).map(|p| p.len()), Some(3));
    }
}
