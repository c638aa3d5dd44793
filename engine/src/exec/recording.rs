//! Commands as data: a forward pass records kernels; an executor runs them.
//!
//! [`Gpu`](super::Gpu) encodes a recording for WebGPU, [`Cpu`](super::Cpu) interprets it with the kernels' references.

use std::fmt::Debug;

pub use crate::buffer::BufferId;
use crate::buffer::HostMemory;
use crate::device::Capabilities;
use crate::kernels::{Cost, Kernel, Plan, Sample, SampleBindings, SampleDraw, SampleGroups, Sampling};
use crate::shaders::Bindings;

/// One step of a [`Recording`]: a kernel with the buffers that it runs on.
pub trait Command: Debug {
    /// Variant and geometry for a device.
    fn plan(&self, capabilities: &Capabilities) -> Plan;

    /// See [`Kernel::cost`].
    fn cost(&self, positions: u32) -> Cost;

    /// The buffer of a storage binding; `None` where an optional one is absent.
    fn buffer(&self, index: u32) -> Option<BufferId>;

    /// Runs the kernel's reference.
    fn run_reference(&self, memory: &mut HostMemory);
}

#[derive(Debug)]
struct Dispatch<K: Kernel> {
    kernel: K,
    bindings: K::Bindings,
}

impl<K: Kernel> Command for Dispatch<K> {
    fn plan(&self, capabilities: &Capabilities) -> Plan {
        self.kernel.plan(capabilities).erased()
    }

    fn cost(&self, positions: u32) -> Cost {
        self.kernel.cost(positions)
    }

    fn buffer(&self, index: u32) -> Option<BufferId> {
        self.bindings.buffer(index)
    }

    fn run_reference(&self, memory: &mut HostMemory) {
        self.kernel.reference(memory, &self.bindings);
    }
}

/// A list of commands without any backend in it.
#[derive(Debug, Default)]
pub struct Recording {
    /// The commands in order; each sees the effects of those before it.
    pub commands: Vec<Box<dyn Command>>,
}

impl Recording {
    /// An empty recording.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a kernel.
    pub fn dispatch<K: Kernel + 'static>(&mut self, kernel: K, bindings: K::Bindings) {
        self.commands.push(Box::new(Dispatch { kernel, bindings }));
    }

    /// Appends the choice of the next token of each row. `draws`: some row [draws from all](crate::kernels::Sampler::draws_from_all).
    ///
    /// Rows that are not active stay as they are.
    pub fn sample(&mut self, sampling: Sampling, draws: bool, bindings: SampleBindings) {
        self.dispatch(SampleGroups(sampling), bindings);
        if draws {
            self.dispatch(SampleDraw(sampling), bindings);
        }
        self.dispatch(Sample(sampling), bindings);
    }
}
