//! Allocation of the paged key/value cache with prefix sharing: a prompt whose beginning is cached shares its pages instead of computing
//! them (Kwon et al. 2023, vLLM; Zheng et al. 2024, `SGLang`).

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::windows::{WindowPage, WindowPool};
use crate::kernels::PAGE;
use crate::model::WindowPages;

const TOKENS: usize = PAGE as usize;

/// The position of a page in its text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Parent {
    /// The first page of a text of this namespace.
    Root(Rc<str>),
    /// The page behind this page of the index.
    Page(u32),
}

/// Key of the index: all that the keys and values of a page depend on. Compared as a whole, so a hash collision does no harm.
type Content = (Parent, [u32; TOKENS]);

#[derive(Clone, Debug, Default)]
struct Page {
    /// Sequences that reference it.
    ref_count: u32,
    /// Its key, if it is indexed.
    content: Option<Rc<Content>>,
    /// Clock of its last release.
    last_used: u64,
    window: WindowPage,
}

/// The pages of one sequence. It writes only to those that are not indexed.
#[derive(Debug)]
pub(super) struct BlockTable {
    namespace: Option<Rc<str>>,
    pages: Vec<u32>,
    /// Number of leading pages that are indexed.
    shared: usize,
    /// Pages that are reserved for it, but not allocated.
    reserved: usize,
    /// The first page that it sees through windows.
    first_seen: usize,
    /// Pages of the window layers that it is charged with.
    charged: usize,
}

impl BlockTable {
    /// Its pages in the order of positions: its row of the block tables on the device.
    pub(super) fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// Positions that its pages hold.
    pub(super) fn positions(&self) -> u32 {
        self.pages.len() as u32 * PAGE
    }

    /// Positions that its pages hold with those that are reserved.
    pub(super) fn reserved_positions(&self) -> u32 {
        (self.pages.len() + self.reserved) as u32 * PAGE
    }
}

/// Every page is free, referenced by sequences, or evictable: indexed and not referenced.
///
/// A sequence that references an indexed page references all its ancestors and releases them last. So the least recently released page
/// has no descendants in the index, and evicting it leaves the index whole.
#[derive(Debug)]
pub(super) struct PagePool {
    pages: Vec<Page>,
    free: Vec<u32>,
    index: HashMap<Rc<Content>, u32>,
    /// Indexed pages without references, the least recently released first.
    evictable: BTreeMap<u64, u32>,
    /// Pages that are reserved, but not allocated: at least as many are free or evictable.
    reserved: usize,
    clock: u64,
    /// The pages of the window layers, where those have fewer.
    windows: Option<WindowPool>,
}

impl PagePool {
    pub(super) fn new(pages: u32, windows: Option<WindowPages>) -> Self {
        Self {
            pages: vec![Page::default(); pages as usize],
            free: (0..pages).rev().collect(),
            index: HashMap::new(),
            evictable: BTreeMap::new(),
            reserved: 0,
            clock: 0,
            windows: windows.map(WindowPool::new),
        }
    }

    /// Reserves pages for `positions`, all or none. Cached pages of the prompt's beginning within its namespace are shared; its last
    /// token is never among them, as its logits must be computed. Without a namespace nothing is shared or kept.
    pub(super) fn admit(&mut self, namespace: Option<Rc<str>>, prompt: &[u32], positions: u32) -> Option<BlockTable> {
        let mut pages: Vec<u32> = Vec::new();
        let full_pages = namespace.iter().flat_map(|_| prompt[..prompt.len() - 1].as_chunks::<TOKENS>().0);
        for tokens in full_pages {
            match self.index.get(&content(namespace.as_ref(), &pages, tokens)) {
                Some(page) => pages.push(*page),
                None => break,
            }
        }
        self.truncate_to_window(&mut pages);
        let reserved = (positions.div_ceil(PAGE) as usize).saturating_sub(pages.len());
        let revived = pages.iter().filter(|page| self.pages[**page as usize].ref_count == 0).count();
        if reserved + revived > self.available() {
            return None;
        }
        let (mut charged, mut first_seen) = (0, 0);
        if let Some(windows) = &mut self.windows {
            if !windows.charge(&mut charged, pages.len() + reserved) {
                return None;
            }
            first_seen = windows.first_seen(pages.len() as u32 * PAGE).min(pages.len());
            pages[first_seen..].iter().for_each(|page| windows.share(&mut self.pages[*page as usize].window));
        }
        self.reserved += reserved;
        for page in &pages {
            let page = &mut self.pages[*page as usize];
            page.ref_count += 1;
            self.evictable.remove(&page.last_used);
        }
        Some(BlockTable { namespace, shared: pages.len(), pages, reserved, first_seen, charged })
    }

    /// Cuts cached pages where the positions that the next row sees through windows are cached as well.
    fn truncate_to_window(&self, pages: &mut Vec<u32>) {
        let Some(windows) = &self.windows else { return };
        loop {
            let seen = windows.first_seen(pages.len() as u32 * PAGE);
            match pages.iter().skip(seen).rposition(|page| !self.pages[*page as usize].window.exists()) {
                Some(missing) => pages.truncate(seen + missing),
                None => return,
            }
        }
    }

    /// Pages that can still be reserved.
    fn available(&self) -> usize {
        self.free.len() + self.evictable.len() - self.reserved
    }

    /// Reserves the missing pages for `positions`, all or none; returns whether they were available.
    pub(super) fn reserve(&mut self, block_table: &mut BlockTable, positions: u32) -> bool {
        let more = (positions.div_ceil(PAGE) as usize).saturating_sub(block_table.pages.len() + block_table.reserved);
        let pages = block_table.pages.len() + block_table.reserved + more;
        let enough = more <= self.available() && self.windows.as_mut().is_none_or(|all| all.charge(&mut block_table.charged, pages));
        if enough {
            block_table.reserved += more;
            self.reserved += more;
        }
        enough
    }

    /// Releases the pages of the window layers that rows from `position` on do not see. Passes in flight may still read them, but run before
    /// anything that is submitted from now on.
    pub(super) fn slide(&mut self, block_table: &mut BlockTable, position: u32) {
        let Some(windows) = &mut self.windows else { return };
        let first_seen = windows.first_seen(position).clamp(block_table.first_seen, block_table.pages.len());
        for number in &block_table.pages[block_table.first_seen..first_seen] {
            let page = &mut self.pages[*number as usize];
            windows.release(&mut page.window, page.content.as_ref().map(|_| *number));
        }
        block_table.first_seen = first_seen;
    }

    /// The pages of the window layers behind these pages.
    pub(super) fn window_pages(&self, pages: &[u32]) -> Option<Vec<u32>> {
        self.windows.as_ref()?;
        Some(pages.iter().map(|page| self.pages[*page as usize].window.number()).collect())
    }

    /// Allocates reserved pages for `positions` and returns the new ones. Evicts the least recently used pages where none are free.
    pub(super) fn allocate<'a>(&mut self, block_table: &'a mut BlockTable, positions: u32) -> &'a [u32] {
        let before = block_table.pages.len();
        let count = (positions.div_ceil(PAGE) as usize).saturating_sub(before).min(block_table.reserved);
        for _ in 0..count {
            let Some(page) = self.free.pop().or_else(|| self.evict()) else { unreachable!("the page was reserved") };
            self.pages[page as usize].ref_count = 1;
            if let Some(windows) = &mut self.windows {
                let number = windows.allocate().unwrap_or_else(|owner| self.pages[owner as usize].window.take());
                self.pages[page as usize].window = WindowPage::allocated(number);
            }
            block_table.pages.push(page);
        }
        block_table.reserved -= count;
        self.reserved -= count;
        &block_table.pages[before..]
    }

    fn evict(&mut self) -> Option<u32> {
        let (_, page) = self.evictable.pop_first()?;
        if let Some(content) = self.pages[page as usize].content.take() {
            self.index.remove(&content);
        }
        if let Some(windows) = &mut self.windows {
            windows.evict(&mut self.pages[page as usize].window);
        }
        Some(page)
    }

    /// Indexes the full pages of `tokens`. The steps that write them must be submitted before those of sequences that share them.
    pub(super) fn insert(&mut self, block_table: &mut BlockTable, tokens: &[u32]) {
        for tokens in unindexed(block_table, tokens) {
            let (known, rest) = block_table.pages.split_at(block_table.shared);
            // Another sequence computed the same page and indexed it first. The pages behind it are indexed on release.
            if self.get_or_insert(block_table.namespace.as_ref(), known, tokens, rest[0]) != rest[0] {
                return;
            }
            block_table.shared += 1;
        }
    }

    /// Releases a sequence's pages. The full pages of `tokens`, whose keys and values are written, stay indexed until they are evicted.
    pub(super) fn release(&mut self, block_table: BlockTable, tokens: &[u32]) {
        self.reserved -= block_table.reserved;
        // The indexed pages of the same text.
        let mut indexed = block_table.pages[..block_table.shared].to_vec();
        for tokens in unindexed(&block_table, tokens) {
            let known = self.get_or_insert(block_table.namespace.as_ref(), &indexed, tokens, block_table.pages[indexed.len()]);
            indexed.push(known);
        }
        self.release_windows(&block_table, &indexed);
        for number in block_table.pages {
            let page = &mut self.pages[number as usize];
            page.ref_count -= 1;
            if page.content.is_none() {
                self.free.push(number);
            }
        }
        for number in indexed.into_iter().rev() {
            let page = &mut self.pages[number as usize];
            if page.ref_count == 0 {
                self.evictable.remove(&page.last_used);
                self.clock += 1;
                page.last_used = self.clock;
                self.evictable.insert(self.clock, number);
            }
        }
    }

    /// Releases the pages of the window layers of a sequence, of whose text these pages are indexed.
    fn release_windows(&mut self, block_table: &BlockTable, indexed: &[u32]) {
        let Some(windows) = &mut self.windows else { return };
        windows.discharge(block_table.charged);
        for (i, &number) in block_table.pages.iter().enumerate().skip(block_table.first_seen) {
            let mut window = self.pages[number as usize].window;
            match indexed.get(i) {
                // Another sequence's page is indexed in place of this one, but lost its window.
                Some(&known) if known != number && !self.pages[known as usize].window.exists() => {
                    windows.give(&mut window, &mut self.pages[known as usize].window, known);
                }
                known => windows.release(&mut window, known.copied().filter(|known| *known == number)),
            }
            self.pages[number as usize].window = window;
        }
    }

    /// Indexes a page behind its ancestors; returns the page that is indexed with this content.
    fn get_or_insert(&mut self, namespace: Option<&Rc<str>>, ancestors: &[u32], tokens: &[u32; TOKENS], page: u32) -> u32 {
        let content = Rc::new(content(namespace, ancestors, tokens));
        let known = *self.index.entry(Rc::clone(&content)).or_insert(page);
        if known == page {
            self.pages[page as usize].content = Some(content);
        }
        known
    }
}

/// The content of a page behind its ancestors.
fn content(namespace: Option<&Rc<str>>, ancestors: &[u32], tokens: &[u32; TOKENS]) -> Content {
    let parent = ancestors.last().map_or_else(|| Parent::Root(namespace.cloned().unwrap_or_default()), |page| Parent::Page(*page));
    (parent, *tokens)
}

/// The tokens of the full pages that are not indexed; none without a namespace.
fn unindexed<'a>(block_table: &BlockTable, tokens: &'a [u32]) -> &'a [[u32; TOKENS]] {
    let pages = tokens.as_chunks::<TOKENS>().0;
    if block_table.namespace.is_some() { &pages[block_table.shared.min(pages.len())..] } else { &[] }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text of these pages, each of one token over and over, and one token more.
    fn text(pages: &[u32]) -> Vec<u32> {
        pages.iter().flat_map(|token| [*token; TOKENS]).chain([9]).collect()
    }

    #[allow(clippy::unnecessary_wraps, reason = "the type that `admit` takes")]
    fn namespace(name: &str) -> Option<Rc<str>> {
        Some(name.into())
    }

    /// A sequence with this text in the cache.
    fn write(pool: &mut PagePool, name: &str, text: &[u32]) -> BlockTable {
        let mut block_table = pool.admit(namespace(name), text, text.len() as u32).expect("room");
        pool.allocate(&mut block_table, text.len() as u32);
        pool.insert(&mut block_table, text);
        block_table
    }

    #[test]
    fn a_reservation_is_all_or_none() {
        let mut pool = PagePool::new(4, None);
        let mut a = pool.admit(None, &[1], 2 * PAGE + 1).expect("three of four");
        assert!(pool.admit(None, &[1], PAGE + 1).is_none());
        let mut b = pool.admit(None, &[1], PAGE).expect("the last");
        assert_eq!(pool.allocate(&mut a, 1).len(), 1);
        assert_eq!(pool.allocate(&mut a, 3 * PAGE).len(), 2);
        pool.allocate(&mut b, PAGE);
        assert!(pool.reserve(&mut b, PAGE) && !pool.reserve(&mut b, PAGE + 1), "every page is reserved or allocated");
        assert!(a.pages.len() == 3 && a.pages.iter().all(|page| !b.pages.contains(page)));
        pool.release(a, &text(&[1, 2]));
        assert_eq!(
            pool.admit(None, &[1], 3 * PAGE).map(|block_table| block_table.pages.len()),
            Some(0),
            "without a namespace nothing stays"
        );
    }

    #[test]
    fn a_common_prefix_is_shared_within_a_namespace_only() {
        let mut pool = PagePool::new(9, None);
        let a = write(&mut pool, "a", &text(&[1, 2, 3]));
        let b = write(&mut pool, "a", &text(&[1, 2, 4]));
        assert_eq!(b.pages[..2], a.pages[..2]);
        assert_eq!((b.pages.len(), b.shared), (4, 3));
        assert!(!a.pages.contains(&b.pages[2]));
        assert_eq!(pool.admit(namespace("b"), &text(&[1, 2, 3]), 1).map(|block_table| block_table.shared), Some(0));
        // The last token of a prompt is computed, even if a page ends with it.
        assert_eq!(pool.admit(namespace("a"), &text(&[1, 2, 3])[..3 * TOKENS], 3 * PAGE).map(|block_table| block_table.shared), Some(2));
        // The same tokens behind others are something else.
        assert_eq!(pool.admit(namespace("a"), &text(&[2, 3]), 1).map(|block_table| block_table.shared), Some(0));
    }

    #[test]
    fn pages_computed_twice_are_indexed_once() {
        let mut pool = PagePool::new(8, None);
        let [mut a, mut b] = [0; 2].map(|_| pool.admit(namespace("a"), &text(&[1, 2]), 3 * PAGE).expect("room"));
        for block_table in [&mut a, &mut b] {
            pool.allocate(block_table, 3 * PAGE);
            pool.insert(block_table, &text(&[1, 2]));
        }
        assert_eq!((a.shared, b.shared), (2, 0));
        pool.release(a, &text(&[1, 2]));
        pool.release(b, &text(&[1, 2, 3]));
        assert_eq!((pool.free.len(), pool.evictable.len(), pool.index.len()), (5, 3, 3));
        assert_eq!(pool.admit(namespace("a"), &text(&[1, 2, 3]), 4 * PAGE).map(|block_table| block_table.shared), Some(3));
    }

    #[test]
    fn eviction_takes_the_least_recently_used_and_leaves_before_roots() {
        let mut pool = PagePool::new(6, None);
        for (name, pages) in [("a", [1, 2]), ("b", [1, 2])] {
            let block_table = write(&mut pool, name, &text(&pages));
            pool.release(block_table, &text(&pages));
        }
        let known = |pool: &PagePool, name: &str| {
            let mut before = Vec::new();
            for tokens in text(&[1, 2]).as_chunks().0 {
                before.extend(pool.index.get(&content(namespace(name).as_ref(), &before, tokens)));
            }
            before.len()
        };
        assert_eq!((pool.free.len(), known(&pool, "a"), known(&pool, "b")), (2, 2, 2));
        // Sharing renews its age.
        let block_table = pool.admit(namespace("a"), &text(&[1, 2]), 3 * PAGE).expect("room");
        pool.release(block_table, &text(&[1, 2]));
        for (pages, left) in [(2, (2, 2)), (3, (2, 1)), (4, (2, 0)), (5, (1, 0)), (6, (0, 0))] {
            let mut block_table = pool.admit(None, &[1], pages * PAGE).expect("room");
            pool.allocate(&mut block_table, pages * PAGE);
            assert_eq!((known(&pool, "a"), known(&pool, "b")), left, "{pages} pages");
            pool.release(block_table, &[]);
        }
    }

    /// A sequence of the random test: of its text the first `computed` tokens are in the cache.
    struct Live {
        block_table: BlockTable,
        text: Vec<u32>,
        computed: usize,
    }

    /// What the device has at each position of its pages: namespace, and all tokens up to it.
    type Cache = Vec<(Option<Rc<str>>, Vec<u32>)>;

    /// Sequences are admitted, computed, released and admitted again: a shared page is never written, and what a row sees has the tokens
    /// and the namespace of its sequence, in the window layers as well.
    #[test]
    fn random_sequences_never_read_pages_of_others() {
        const CHUNK: u32 = 50;
        let behind = 40;
        let windows = WindowPages { count: 11, behind, most: (behind + CHUNK).div_ceil(PAGE) + 1 };
        for (count, longest, windows) in [(12, 4, None), (40, 9, Some(windows)), (14, 9, Some(windows))] {
            check_random_sequences(count, longest, CHUNK, windows);
        }
    }

    fn check_random_sequences(count: u32, longest: u64, chunk: u32, windows: Option<WindowPages>) {
        let mut state = 1u64;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let mut pool = PagePool::new(count, windows);
        let [mut device, mut window_device]: [Cache; 2] = [(); 2].map(|()| vec![(None, Vec::new()); (count * PAGE) as usize]);
        let mut live: Vec<Live> = Vec::new();
        let (mut found, mut refused, mut short) = (0, 0, 0);
        let at = |page: u32, position: usize| page as usize * TOKENS + position % TOKENS;
        let page = |block_table: &BlockTable, position: usize| block_table.pages[position / TOKENS];
        for _ in 0..5_000 {
            match below(4) {
                0 => {
                    let mut text: Vec<u32> = (0..=below(longest)).flat_map(|_| [below(2) as u32; TOKENS]).collect();
                    text.truncate(text.len() - below(TOKENS as u64) as usize);
                    let name = ["a", "b", ""][below(3) as usize];
                    let name = if name.is_empty() { None } else { namespace(name) };
                    let read = 1 + below(text.len() as u64) as usize;
                    // Some reserve only their prompt.
                    let reserved = if below(2) == 0 { read } else { text.len() };
                    let Some(block_table) = pool.admit(name, &text[..read], reserved as u32) else {
                        assert!(!live.is_empty());
                        refused += 1;
                        continue;
                    };
                    found += block_table.shared;
                    live.push(Live { computed: block_table.shared * TOKENS, block_table, text });
                }
                1 if !live.is_empty() => {
                    let Live { block_table, text, computed } = live.swap_remove(below(live.len() as u64) as usize);
                    pool.release(block_table, &text[..computed]);
                }
                _ if !live.is_empty() => {
                    let index = below(live.len() as u64) as usize;
                    let Live { block_table, text, computed } = &mut live[index];
                    let end = (*computed + below(u64::from(chunk)) as usize).min(text.len());
                    if !pool.reserve(block_table, end as u32) {
                        short += 1;
                        continue;
                    }
                    pool.slide(block_table, *computed as u32);
                    pool.allocate(block_table, end as u32);
                    for position in *computed..end {
                        assert!(position / TOKENS >= block_table.shared, "a shared page is written");
                        let page = page(block_table, position);
                        let content = (block_table.namespace.clone(), text[..=position].to_vec());
                        if windows.is_some() {
                            window_device[at(pool.pages[page as usize].window.number(), position)] = content.clone();
                        }
                        device[at(page, position)] = content;
                    }
                    *computed = end;
                    pool.insert(block_table, &text[..end]);
                }
                _ => {}
            }
            for Live { block_table, text, computed } in &live {
                for position in 0..*computed {
                    let page = page(block_table, position);
                    let seen = windows.is_some_and(|windows| position + windows.behind as usize >= *computed);
                    let seen = seen.then(|| &window_device[at(pool.pages[page as usize].window.number(), position)]);
                    for (name, tokens) in [&device[at(page, position)]].into_iter().chain(seen) {
                        assert!(*name == block_table.namespace && tokens == &text[..=position], "position {position} of {block_table:?}");
                    }
                }
            }
        }
        println!("{found} pages found, {refused} sequences were refused, {short} reservations failed");
        assert!(found > 100 && refused > 100 && short > 10);
        for Live { block_table, text, computed } in live {
            pool.release(block_table, &text[..computed]);
        }
        let whole = pool.admit(None, &[0], count * PAGE).expect("no page leaked");
        pool.release(whole, &[]);
        if let Some(windows) = pool.windows {
            windows.check_idle();
        }
    }
}
