//! Models: [`families`] turn a checkpoint's metadata into a [`spec`]; weights on the device; the forward pass as a recording of kernels.

mod blocks;
mod buffers;
mod checkpoint;
mod conventions;
pub mod families;
mod loader;
mod padding;
mod pieces;
mod rope;
mod slab;
pub mod spec;
mod transformer;

pub use checkpoint::{folder_checkpoint, read_checkpoint};
pub use pieces::LoadTimes;
pub use rope::{RopeScaling, RopeSpec};
pub use slab::Weight;
pub use spec::ModelSpec;
pub use transformer::{Attend, MemoryUse, Model, ModelOptions, Output, Pass};
