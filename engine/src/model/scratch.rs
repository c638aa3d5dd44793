//! The arena of a model's activations: whole buffers, because a dispatch must not read one that it writes.
//!
//! A recording takes the first free slot of a kind, whatever its size. So the order in which a pass takes and releases slots decides
//! alone which slots it uses: a dry recording of the largest passes gives each slot the size that all passes need.

use std::cell::RefCell;
use std::rc::Rc;

use crate::error::Result;
use crate::exec::{BufferId, Executor, Scope};

/// What a slot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotKind {
    /// Anything.
    Any,
    /// Rows behind whose last one a product reads some elements more, to multiply them by zeros: elements that are never infinite nor
    /// NaN, as bytes of something else may be.
    OverRead,
}

/// A buffer of the arena.
#[derive(Clone, Copy, Debug)]
struct Slot {
    kind: SlotKind,
    buffer: BufferId,
    bytes: u64,
    taken: bool,
}

/// The buffers of a model's activations.
#[derive(Debug, Default)]
pub(super) struct Scratch(Vec<Slot>);

impl Scratch {
    /// All slots, free, for one recording.
    pub(super) fn arena(&self) -> Arena {
        Arena { slots: Rc::new(RefCell::new(self.0.clone())), dry: false }
    }
}

/// The slots of a recording.
#[derive(Clone, Debug)]
pub(super) struct Arena {
    slots: Rc<RefCell<Vec<Slot>>>,
    /// Slots are made and grow as they are taken; their buffers are names only.
    dry: bool,
}

impl Arena {
    /// An arena without slots, for dry recordings.
    pub(super) fn dry() -> Self {
        Self { slots: Rc::default(), dry: true }
    }

    /// Takes the first free slot.
    ///
    /// # Panics
    /// When no dry recording needed as much there: the passes that were recorded dry are not the largest ones.
    pub(super) fn take(&self, kind: SlotKind, bytes: u64) -> Lease {
        let mut slots = self.slots.borrow_mut();
        let free = slots.iter().position(|slot| slot.kind == kind && !slot.taken);
        let index = free.unwrap_or(slots.len());
        if free.is_none() {
            assert!(self.dry, "a recording takes {} slots of the scratch at once; the largest passes took fewer", index + 1);
            slots.push(Slot { kind, buffer: BufferId(index as u32), bytes, taken: true });
        }
        let slot = &mut slots[index];
        if self.dry {
            slot.bytes = slot.bytes.max(bytes);
        }
        assert!(bytes <= slot.bytes, "a recording takes {bytes} bytes of slot {index} of the scratch, which has {}", slot.bytes);
        slot.taken = true;
        Lease { buffer: slot.buffer, index, slots: Rc::clone(&self.slots) }
    }

    /// Makes the buffers that dry recordings found to be needed.
    ///
    /// # Errors
    /// When the device has no memory for them.
    pub(super) fn create(self, executor: &Executor, scope: &mut Scope) -> Result<Scratch> {
        let mut slots = self.slots.take();
        for (i, slot) in slots.iter_mut().enumerate() {
            debug_assert!(!slot.taken, "slot {i} is never released");
            slot.buffer = scope.create_buffer(executor, &format!("scratch {i}"), slot.bytes)?;
        }
        Ok(Scratch(slots))
    }
}

/// A slot that is taken; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) buffer: BufferId,
    index: usize,
    slots: Rc<RefCell<Vec<Slot>>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.slots.borrow_mut()[self.index].taken = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::cpu::Cpu;
    use crate::kernels::Capabilities;

    /// The slots that two activations and then a third, which begins as the first ends, are in; with their sizes.
    fn record(arena: &Arena, bytes: [u64; 3]) -> Vec<usize> {
        let first = arena.take(SlotKind::Any, bytes[0]);
        let second = arena.take(SlotKind::Any, bytes[1]);
        let mut indices = vec![first.index, second.index];
        drop(first);
        indices.push(arena.take(SlotKind::Any, bytes[2]).index);
        indices
    }

    fn scratch(dry: Arena) -> Scratch {
        dry.create(&Executor::Cpu(Cpu::new(Capabilities::BASELINE)), &mut Scope::default()).unwrap()
    }

    #[test]
    fn slots_are_the_first_free_ones_and_as_large_as_any_use() {
        let dry = Arena::dry();
        assert_eq!(record(&dry, [16, 32, 64]), [0, 1, 0]);
        assert_eq!(record(&dry, [128, 16, 16]), [0, 1, 0]);
        let scratch = scratch(dry);
        assert_eq!(scratch.0.iter().map(|slot| slot.bytes).collect::<Vec<_>>(), [128, 32]);
        assert_ne!(scratch.0[0].buffer, scratch.0[1].buffer);
        assert_eq!(record(&scratch.arena(), [128, 32, 1]), [0, 1, 0]);
    }

    #[test]
    fn kinds_share_no_slot() {
        let arena = Arena::dry();
        drop(arena.take(SlotKind::Any, 16));
        assert_eq!(arena.take(SlotKind::OverRead, 16).index, 1);
        assert_eq!(arena.take(SlotKind::OverRead, 16).index, 1);
    }

    #[test]
    #[should_panic(expected = "takes 33 bytes of slot 1")]
    fn larger_activations_than_those_of_the_dry_recording_panic() {
        let dry = Arena::dry();
        record(&dry, [16, 32, 16]);
        record(&scratch(dry).arena(), [16, 33, 16]);
    }
}
