//! The DOPPLER engine.

pub mod formats;
pub mod text;
