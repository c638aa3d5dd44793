//! Models: architectures as data, hyperparameters, weights on the device, and the forward pass as a recording of kernels.

pub mod architecture;
mod blocks;
mod buffers;
mod hyperparameters;
mod padding;
mod rope;
mod transformer;
mod weights;

pub(crate) use hyperparameters::MAX_CONTEXT;
pub use hyperparameters::{Hyperparameters, Pooling, Rope};
pub use rope::{RopeScaling, RopeTable};
pub use transformer::{Attend, MemoryUse, Model, ModelOptions, Output, Pass};
pub use weights::{LoadTimes, Weight};
