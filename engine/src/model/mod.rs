//! Models: architectures as data, hyperparameters, weights on the device, and the forward pass as a recording of kernels.

pub mod architecture;
mod blocks;
mod buffers;
mod hyperparameters;
mod rope;
mod transformer;
mod weights;

pub use hyperparameters::{Hyperparameters, Pooling, Rope};
pub use rope::{RopeScaling, RopeTable};
pub use transformer::{Attend, MemoryUse, Model, ModelOptions, Output, Pass};
pub use weights::{LoadTimes, Weight};
