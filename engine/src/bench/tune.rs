//! Which of the ways to set kernels up suits a device: one choice after the other, as long as it gains.

use std::rc::Rc;
use std::time::Duration;

use super::{BenchOptions, LengthReport, run};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::executor::Executor;
use crate::gpu::{Gpu, GpuOptions};
use crate::kernels::{Capabilities, Tuning};
use crate::source::Source;

/// Time that a choice must spare to be taken: less may be noise.
const LEAST_GAIN: f64 = 0.02;

/// A choice: how to make it, and what can be chosen.
type Choice = (fn(&mut Tuning) -> &mut u32, &'static [u32]);

/// All choices.
const CHOICES: [Choice; 5] = [
    (|t| &mut t.matvec_workgroup, &[64, 256]),
    (|t| &mut t.matvec_workgroups, &[16, 64, 256, 1024]),
    (|t| &mut t.decode_workgroup, &[64, 256]),
    (|t| &mut t.decode_workgroups, &[1, 16, 64, 256]),
    (|t| &mut t.matmul_tiles, &[16, 64, 256, 1024]),
];

/// Looks for the setting with the least time on such a device, from its own on. `measure` tells the time of a setting.
///
/// # Errors
/// Those of `measure`.
pub async fn search<E>(device: &Capabilities, mut measure: impl AsyncFnMut(Tuning) -> Result<Duration, E>) -> Result<Tuning, E> {
    let mut best = device.tuning;
    let mut least = measure(best).await?;
    for (choice, values) in CHOICES {
        let from = best;
        for value in values {
            let mut tried = from;
            *choice(&mut tried) = *value;
            let allowed = device.subgroup_size.is_some() || tried.matvec_workgroup <= 64;
            if tried == from || !allowed {
                continue;
            }
            let time = measure(tried).await?;
            if time < least.mul_f64(1.0 - LEAST_GAIN) {
                (best, least) = (tried, time);
            }
        }
    }
    Ok(best)
}

/// The time of a prompt and its answer of each length, with the model on a device of its own that is set up in this way.
///
/// # Errors
/// When the model cannot be loaded or the device fails.
pub async fn time(gpu: &GpuOptions, tuning: Tuning, source: &dyn Source, options: &BenchOptions) -> Result<Duration, Rc<EngineError>> {
    let gpu = Gpu::open(&GpuOptions { tuning: Some(tuning), ..gpu.clone() }).await?;
    let loaded = Engine::load(Executor::Gpu(Box::new(gpu)), source.name(), source, options.model_options(), &mut |_| {}).await;
    let (mut engine, client) = loaded.map_err(|(_, error)| error)?;
    let report = run(&mut engine, &client, options, Duration::ZERO).await?;
    let seconds = |l: &LengthReport| l.first_token_ms / 1e3 + f64::from(l.tokens - 1) / l.decode_tokens_per_second;
    Ok(Duration::from_secs_f64(report.lengths.iter().map(seconds).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gains_is_taken_together_and_noise_is_not() {
        let start = Tuning::of(Some(32));
        let device = Capabilities { subgroup_size: Some(32), tuning: start, ..Capabilities::BASELINE };
        let mut tried = Vec::new();
        let time = async |tuning: Tuning| {
            tried.push(tuning);
            let mut ms = 1000;
            ms -= if tuning.matvec_workgroup == 64 { 100 } else { 0 };
            ms -= if tuning.matmul_tiles == 64 { 50 } else { 0 };
            ms -= if tuning.decode_workgroup == 64 { 9 } else { 0 };
            ms += if tuning.decode_workgroups == 1 { 500 } else { 0 };
            Ok::<_, ()>(Duration::from_millis(ms))
        };
        let best = pollster::block_on(search(&device, time)).expect("a setting");
        assert_eq!(best, Tuning { matvec_workgroup: 64, matmul_tiles: 64, ..start });
        let repeated = tried.iter().enumerate().any(|(i, tuning)| tried[..i].contains(tuning));
        assert!(!repeated && tried.len() == 1 + 1 + 3 + 1 + 3 + 3, "{tried:?}");
    }

    #[test]
    fn a_failure_ends_it() {
        let failing = async |tuning: Tuning| if tuning == Tuning::of(None) { Ok(Duration::from_millis(1)) } else { Err("lost") };
        assert_eq!(pollster::block_on(search(&Capabilities::BASELINE, failing)), Err("lost"));
    }

    #[test]
    fn without_subgroups_workgroups_stay_small() {
        let largest = std::cell::Cell::new(0);
        let time = async |tuning: Tuning| {
            largest.set(largest.get().max(tuning.matvec_workgroup));
            Ok::<_, ()>(Duration::from_millis(1))
        };
        assert_eq!(pollster::block_on(search(&Capabilities::BASELINE, time)), Ok(Capabilities::BASELINE.tuning));
        assert_eq!(largest.get(), 64);
    }
}
