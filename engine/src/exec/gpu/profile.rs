//! The time of each kernel of a recording, from the device's own clock.

use std::collections::HashMap;

use super::{Gpu, Step};
use crate::error::Result;
use crate::exec::Recording;
use crate::kernels::Cost;

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
    /// Billions of bytes a second, of what the kernel has to move; 0: it does not tell.
    pub gigabytes_per_second: f64,
    /// Trillions of operations a second, two for each multiply-add; 0: none to speak of.
    pub teraflops: f64,
}

impl Gpu {
    /// Runs every dispatch of a recording, made for a cache of so many positions, many times over; `None` if the device has no clock.
    /// What is in its buffers afterwards has no meaning.
    ///
    /// # Errors
    /// When the device fails.
    pub async fn profile(&self, recording: &Recording, positions: u32) -> Result<Option<Vec<KernelTime>>> {
        if !self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let plans: Vec<_> = recording.commands.iter().map(|command| (command.plan(&self.capabilities), command.cost(positions))).collect();
        let program = self.program("profile", recording);
        let queries = self.device.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count: 2 });
        let resolved = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("timestamps"),
            size: 16,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let period = f64::from(self.queue.get_timestamp_period());
        let mut groups: HashMap<(String, u32), Vec<(f64, Cost)>> = HashMap::new();
        for ((plan, cost), Step { pipeline, bind_group, workgroups: [x, y, z] }) in plans.iter().zip(&program.steps) {
            self.fault.check()?;
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
                    pass.dispatch_workgroups(*x, *y, *z);
                }
            }
            encoder.resolve_query_set(&queries, 0..2, &resolved, 0);
            let bytes = self.finish_and_read(encoder, &resolved, 0, 16).wait().await?;
            let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
            let us = ticks[1].saturating_sub(ticks[0]) as f64 * period / 1e3 / f64::from(REPEATS);
            let name = format!("{} {}", plan.shader.kernel, plan.shader.variant).trim_end().to_owned();
            groups.entry((name, x * y * z)).or_default().push((us, *cost));
        }
        let mut times: Vec<KernelTime> = groups
            .into_iter()
            .map(|((name, workgroups), mut runs)| {
                runs.sort_by(|(a, _), (b, _)| a.total_cmp(b));
                let total_us = runs.iter().map(|(us, _)| us).sum();
                let per_us = |of: fn(&Cost) -> u64| runs.iter().map(|(_, cost)| of(cost)).sum::<u64>() as f64 / f64::max(total_us, 1e-9);
                KernelTime {
                    name,
                    workgroups,
                    count: runs.len() as u32,
                    each_us: runs[runs.len() / 2].0,
                    total_us,
                    gigabytes_per_second: per_us(|cost| cost.bytes) / 1e3,
                    teraflops: per_us(|cost| 2 * cost.multiply_adds) / 1e6,
                }
            })
            .collect();
        times.sort_by(|a, b| b.total_us.total_cmp(&a.total_us));
        Ok(Some(times))
    }
}
