//! Pages of the layers that see a window only. A page of the cache has one as long as somebody sees its positions, or may soon.

use std::collections::BTreeMap;

use crate::kernels::PAGE;
use crate::model::WindowPages;

/// Most pages of the window layers that sequences may need together, and those that nobody needs.
///
/// A sequence is charged for the most that it needs at any time, from its admission to its release. All charges together are covered, so an
/// allocation finds a page.
#[derive(Debug)]
pub(super) struct WindowPool {
    /// Positions before a row that the row sees, or that must stay readable for a row before it.
    behind: u32,
    /// Most pages that a sequence needs at any time.
    most: usize,
    count: usize,
    charged: usize,
    free: Vec<u32>,
    /// Pages of the cache whose positions nobody sees, but which are indexed: the least recently used first.
    evictable: BTreeMap<u64, u32>,
    clock: u64,
}

/// What a page of the cache has in the window layers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WindowPage {
    /// The page there.
    number: Option<u32>,
    /// Sequences that see its positions.
    ref_count: u32,
    /// Clock of its last release.
    last_used: u64,
}

impl WindowPage {
    /// The page of the window layers; any where the positions are in no sequence's window.
    pub(super) fn number(&self) -> u32 {
        self.number.unwrap_or(0)
    }

    /// Whether keys and values of the window layers are there.
    pub(super) fn exists(&self) -> bool {
        self.number.is_some()
    }
}

impl WindowPool {
    pub(super) fn new(windows: WindowPages) -> Self {
        let WindowPages { count, behind, most } = windows;
        Self {
            behind,
            most: most as usize,
            count: count as usize,
            charged: 0,
            free: (0..count).rev().collect(),
            evictable: BTreeMap::new(),
            clock: 0,
        }
    }

    /// The first page that rows from this position on see.
    pub(super) fn first_seen(&self, position: u32) -> usize {
        (position.saturating_sub(self.behind) / PAGE) as usize
    }

    /// Charges a sequence with so many pages in place of `charged`, if that can be covered.
    pub(super) fn charge(&mut self, charged: &mut usize, pages: usize) -> bool {
        let charge = pages.min(self.most).max(*charged);
        let covered = self.charged - *charged + charge <= self.count;
        if covered {
            self.charged = self.charged - *charged + charge;
            *charged = charge;
        }
        covered
    }

    pub(super) fn discharge(&mut self, charged: usize) {
        self.charged -= charged;
    }

    /// Another sequence sees the page.
    pub(super) fn share(&mut self, page: &mut WindowPage) {
        if page.ref_count == 0 {
            self.evictable.remove(&page.last_used);
        }
        page.ref_count += 1;
    }

    /// A free page, or the page of the cache whose window page is to be taken.
    pub(super) fn allocate(&mut self) -> Result<u32, u32> {
        match self.free.pop() {
            Some(number) => Ok(number),
            None => Err(self.evictable.pop_first().map(|(_, owner)| owner).expect("charges are covered")),
        }
    }

    /// A sequence does not see the page any more. It is free then, unless others see it, or `owner` is the number of an indexed page.
    pub(super) fn release(&mut self, page: &mut WindowPage, owner: Option<u32>) {
        page.ref_count -= 1;
        if page.ref_count > 0 {
            return;
        }
        match owner {
            Some(owner) => self.keep(page, owner),
            None => self.free.extend(page.number.take()),
        }
    }

    /// Keeps a page that nobody sees for a sequence that will.
    fn keep(&mut self, page: &mut WindowPage, owner: u32) {
        self.clock += 1;
        page.last_used = self.clock;
        self.evictable.insert(self.clock, owner);
    }

    /// Gives what `from` has, which nobody else sees, to the indexed page `owner` of the same text.
    pub(super) fn give(&mut self, from: &mut WindowPage, to: &mut WindowPage, owner: u32) {
        from.ref_count -= 1;
        to.number = from.number.take();
        self.keep(to, owner);
    }

    /// Nobody is charged, and every page is free or evictable.
    #[cfg(test)]
    pub(super) fn check_idle(&self) {
        assert_eq!((self.charged, self.free.len() + self.evictable.len()), (0, self.count));
    }

    /// The page of the cache is evicted.
    pub(super) fn evict(&mut self, page: &mut WindowPage) {
        if let Some(number) = page.number.take() {
            self.evictable.remove(&page.last_used);
            self.free.push(number);
        }
    }
}

impl WindowPage {
    /// A page that one sequence sees.
    pub(super) fn allocated(number: u32) -> Self {
        Self { number: Some(number), ref_count: 1, last_used: 0 }
    }

    /// Takes the page away from one that nobody sees.
    pub(super) fn take(&mut self) -> u32 {
        self.number.take().expect("it is evictable, so it has one")
    }
}
