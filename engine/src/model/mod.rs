//! Models: [`families`] turn a checkpoint's metadata into a [`spec`]; weights on the device; the forward pass as a recording of kernels.

mod checkpoint;
mod conventions;
pub mod families;
mod layers;
mod options;
mod padding;
mod pass;
mod rope;
mod scratch;
pub mod spec;
mod state;
mod transformer;
mod weights;

pub use checkpoint::{folder_checkpoint, read_checkpoint};
pub use options::{MemoryUse, ModelOptions};
pub use pass::{Attend, Buffers, Output, Pass};
pub use rope::{RopeScaling, RopeSpec};
pub use spec::ModelSpec;
pub use state::StateSpec;
pub use transformer::Model;
pub use weights::{LoadTimes, Weight};
