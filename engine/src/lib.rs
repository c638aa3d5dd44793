//! The DOPPLER engine.
