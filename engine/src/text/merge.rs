//! Byte-pair merging (Sennrich et al. 2016): the best pair of neighbours becomes one symbol until no pair is left that does.
//!
//! With a queue of pairs, in O(n log n) for a word of n symbols, whatever it is made of.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::pace::Pace;

/// Stands for no neighbour.
const NONE: u32 = u32::MAX;

/// A symbol in a list of neighbours.
#[derive(Debug, Clone, Copy)]
struct Node<S> {
    symbol: S,
    prev: u32,
    next: u32,
    /// Whether it is a part of its left neighbour by now.
    merged: bool,
}

/// Two neighbours that may be merged. The greatest is merged first: the one of the lowest rank, of equals the leftmost.
#[derive(Debug)]
struct Pair<S> {
    rank: u32,
    left: u32,
    right: u32,
    /// What followed the pair.
    next: u32,
    merged: S,
}

impl<S> Ord for Pair<S> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.rank, other.left).cmp(&(self.rank, self.left))
    }
}

impl<S> PartialOrd for Pair<S> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<S> PartialEq for Pair<S> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<S> Eq for Pair<S> {}

/// Merges `symbols`, fewer than 2³², as far as they go. `find` gives what two neighbours become, and its rank: the lower, the earlier.
pub(super) async fn merge<S: Copy>(
    symbols: impl Iterator<Item = S>,
    find: impl Fn(S, S) -> Option<(u32, S)>,
    pace: &mut Pace<'_>,
) -> impl Iterator<Item = S> {
    let mut nodes: Vec<Node<S>> = Vec::with_capacity(symbols.size_hint().0);
    for symbol in symbols {
        let at = nodes.len() as u32;
        nodes.push(Node { symbol, prev: at.wrapping_sub(1), next: at + 1, merged: false });
        pace.work(1).await;
    }
    if let Some(last) = nodes.last_mut() {
        last.next = NONE;
    }
    let candidate = |nodes: &[Node<S>], left: u32, right: u32| {
        let (l, r) = (nodes.get(left as usize)?, nodes.get(right as usize)?);
        find(l.symbol, r.symbol).map(|(rank, merged)| Pair { rank, left, right, next: r.next, merged })
    };
    let mut queue = BinaryHeap::new();
    for right in 1..nodes.len() as u32 {
        queue.extend(candidate(&nodes, right - 1, right));
        pace.work(1).await;
    }
    while let Some(Pair { left, right, next, merged, .. }) = queue.pop() {
        pace.work(1).await;
        let (l, r) = (nodes[left as usize], nodes[right as usize]);
        // One of the two has been merged since.
        if l.merged || l.next != right || r.next != next {
            continue;
        }
        nodes[left as usize] = Node { symbol: merged, next, ..l };
        nodes[right as usize].merged = true;
        if let Some(next) = nodes.get_mut(next as usize) {
            next.prev = left;
        }
        queue.extend(candidate(&nodes, l.prev, left));
        queue.extend(candidate(&nodes, left, next));
    }
    nodes.into_iter().filter(|node| !node.merged).map(|node| node.symbol)
}

#[cfg(test)]
mod tests {
    use super::merge;
    use crate::text::pace::at_once;

    /// Symbols are numbers, and equal ones merge to their sum: the smallest first.
    fn double(symbols: &[u32]) -> Vec<u32> {
        at_once(async |pace| {
            let merged = merge(symbols.iter().copied(), |l, r| (l == r && l < 1 << 20).then_some((l, l + r)), pace).await;
            merged.collect()
        })
    }

    #[test]
    fn merge_takes_best_leftmost_pair_first() {
        assert!(double(&[]).is_empty());
        assert_eq!(double(&[1]), [1]);
        assert_eq!(double(&[1, 1, 1]), [2, 1]);
        assert_eq!(double(&[2, 1, 1, 1, 1]), [4, 2]);
        assert_eq!(double(&[4, 2, 1, 1]), [8]);
        assert_eq!(double(&[3, 3, 1, 1, 3]), [6, 2, 3]);
        assert_eq!(double(&vec![1; (1 << 17) + 1]), [1 << 17, 1]);
    }
}
