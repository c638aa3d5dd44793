//! Models: [`families`] turn a checkpoint's metadata into a [`spec`]; weights on the device; the forward pass as a recording of kernels.

mod blocks;
mod buffers;
mod checkpoint;
mod conventions;
pub mod families;
mod padding;
mod rope;
pub mod spec;
mod transformer;
mod weights;

pub use checkpoint::{folder_checkpoint, read_checkpoint};
pub use rope::{RopeScaling, RopeSpec};
pub use spec::ModelSpec;
pub use transformer::{Attend, MemoryUse, Model, ModelOptions, Output, Pass};
pub use weights::{LoadTimes, Weight};
