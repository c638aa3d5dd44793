//! The time of each kernel of a recording, from the device's own clock.

use std::collections::HashMap;

use super::{Gpu, Step};
use crate::error::Result;
use crate::recording::{Command, Recording};

/// Runs of a dispatch: the clock of a browser is coarse.
const REPEATS: u32 = 40;

/// Dispatches of one variant and size.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct KernelTime {
    /// Kernel and variant.
    pub name: String,
    /// Workgroups of a dispatch.
    pub workgroups: u32,
    /// Dispatches in the recording.
    pub count: u32,
    /// Microseconds of a dispatch: the median.
    pub each_us: f64,
    /// Microseconds of all.
    pub total_us: f64,
}

impl Gpu {
    /// Runs every dispatch of a recording many times over; `None` if the device has no clock. What is in its buffers afterwards has
    /// no meaning.
    ///
    /// # Errors
    /// When the device fails.
    pub async fn profile(&mut self, recording: &Recording) -> Result<Option<Vec<KernelTime>>> {
        if !self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let plans: Vec<_> = recording
            .commands
            .iter()
            .filter_map(|command| match command {
                Command::Dispatch { kernel, .. } => Some(kernel.plan(&self.capabilities)),
                Command::Copy { .. } => None,
            })
            .collect();
        let program = self.compile("profile", recording);
        let queries = self.device.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count: 2 });
        let resolved = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("timestamps"),
            size: 16,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let period = f64::from(self.queue.get_timestamp_period());
        let mut groups: HashMap<(String, u32), Vec<f64>> = HashMap::new();
        let dispatches = program.steps.iter().filter_map(|step| match step {
            Step::Dispatch { pipeline, bind_group, workgroups } => Some((pipeline, bind_group, *workgroups)),
            Step::Copy { .. } => None,
        });
        for (plan, (pipeline, bind_group, [x, y, z])) in plans.iter().zip(dispatches) {
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None });
            {
                let writes = wgpu::ComputePassTimestampWrites {
                    query_set: &queries,
                    beginning_of_pass_write_index: Some(0),
                    end_of_pass_write_index: Some(1),
                };
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(writes) });
                pass.set_pipeline(pipeline);
                pass.set_bind_group(0, bind_group, &[]);
                for _ in 0..REPEATS {
                    pass.dispatch_workgroups(x, y, z);
                }
            }
            encoder.resolve_query_set(&queries, 0..2, &resolved, 0);
            let bytes = self.finish_and_read(encoder, &resolved, 16)?.wait().await?;
            let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
            let us = ticks[1].saturating_sub(ticks[0]) as f64 * period / 1e3 / f64::from(REPEATS);
            let name = format!("{} {}", plan.shader.kernel, plan.shader.variant).trim_end().to_owned();
            groups.entry((name, x * y * z)).or_default().push(us);
        }
        let mut times: Vec<KernelTime> = groups
            .into_iter()
            .map(|((name, workgroups), mut us)| {
                us.sort_by(f64::total_cmp);
                KernelTime { name, workgroups, count: us.len() as u32, each_us: us[us.len() / 2], total_us: us.iter().sum() }
            })
            .collect();
        times.sort_by(|a, b| b.total_us.total_cmp(&a.total_us));
        Ok(Some(times))
    }
}
