//! Decoder models: hyperparameters, weights on the device, and the forward pass as a recording of kernels.

mod hyperparameters;
mod transformer;
mod weights;

pub use hyperparameters::{Hyperparameters, Rope};
pub use transformer::{Attend, Model, ModelOptions, Pass};
pub use weights::Weight;
