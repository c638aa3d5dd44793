//! DOPPLER's engine: a GGUF file in, tokens out, on any WebGPU device, natively and in the browser.
//!
//! A request goes [`api`] → [`engine`] → [`serve`] (batching) → [`model`] (forward pass) → [`kernels`] →
//! [`exec`] ([`exec::gpu`], or [`exec::cpu`] for tests). Files come through [`source`] and [`formats`], text through [`text`].
//! [`error`], [`dtype`], [`buffer`], [`memory`] and [`device`] lie below all of them; `tests/modules.rs` refuses circles of imports.
//! The engine knows nothing of extensions, tabs or pages.

pub mod api;
pub mod bench;
pub mod buffer;
pub mod device;
pub mod dtype;
pub mod engine;
pub mod error;
pub mod eval;
pub mod exec;
pub mod formats;
pub mod kernels;
pub mod memory;
pub mod model;
pub mod plan;
pub mod serve;
pub mod shaders;
pub mod source;
pub mod text;
mod turns;
pub mod verify;
