//! Part of DOPPLER.
