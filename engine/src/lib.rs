//! The DOPPLER engine.

pub mod shaders;
