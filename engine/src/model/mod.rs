//! Models: [`families`] turn a checkpoint's metadata into a [`spec`]; weights on the device; the forward pass as a recording of kernels.

mod checkpoint;
mod conventions;
pub mod families;
mod layers;
mod loader;
mod options;
mod padding;
mod pass;
mod pieces;
mod rope;
mod scratch;
mod slab;
pub mod spec;
mod state;
mod transformer;

pub use checkpoint::{folder_checkpoint, read_checkpoint};
pub use options::{MemoryUse, ModelOptions};
pub use pass::{Attend, Buffers, Output, Pass, SEGMENT_ROWS};
pub use pieces::LoadTimes;
pub use rope::{RopeScaling, RopeSpec};
pub use slab::Weight;
pub use spec::{ModelSpec, Pooling, StateSpec};
pub use state::{PageCounts, WindowPages};
pub use transformer::Model;
