//! Search for the settings of the kernels that suit a device: one setting after the other, as long as it gains.

use std::rc::Rc;
use std::time::Duration;

use super::{BenchOptions, LengthReport, run};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::exec::{Executor, Gpu, gpu::GpuOptions};
use crate::kernels::{Capabilities, Tuning};
use crate::source::Source;

/// Fraction of the time that a choice must save to be taken: less may be noise.
const LEAST_GAIN: f64 = 0.02;

/// A setting: how to change it, and its values.
type Choice = (fn(Tuning, u32) -> Tuning, &'static [u32]);

/// All settings.
const CHOICES: [Choice; 10] = [
    (|from, matvec_workgroup| Tuning { matvec_workgroup, ..from }, &[64, 256]),
    (|from, matvec_workgroups| Tuning { matvec_workgroups, ..from }, &[16, 64, 256, 1024]),
    (|from, decode_workgroup| Tuning { decode_workgroup, ..from }, &[64, 256]),
    (|from, decode_workgroups| Tuning { decode_workgroups, ..from }, &[1, 16, 64, 256]),
    (|from, prefill_workgroups| Tuning { prefill_workgroups, ..from }, &[1, 256, 1024]),
    (|from, prefill_rows| Tuning { prefill_rows, ..from }, &[256, 512]),
    (|from, matmul_tiles| Tuning { matmul_tiles, ..from }, &[16, 64, 256, 1024]),
    (|from, half| Tuning { matmul_half: half == 1, ..from }, &[0, 1]),
    (|from, matrices| Tuning { matmul_matrices: matrices == 1, ..from }, &[0, 1]),
    (|from, bytes| Tuning { matmul_int8: bytes == 1, ..from }, &[0, 1]),
];

/// Whether the settings are possible on a device. Without subgroups a large workgroup is refused by one kernel and ignored by the other.
fn is_possible(device: &Capabilities, tuning: Tuning) -> bool {
    let large = tuning.matvec_workgroup.max(tuning.decode_workgroup) > 64;
    // Settings that change nothing are excluded: noise would select them.
    let matrices = device.matrices.is_some() && tuning.matmul_matrices;
    (device.subgroup_size.is_some() || !large)
        && (device.matrices.is_some() || tuning.matmul_matrices)
        && (!matrices || tuning.matmul_int8 == device.default_tuning().matmul_int8)
        && (!tuning.matmul_half || device.shader_f16 && !matrices && !tuning.matmul_int8)
}

/// Possible settings of a device that differ from `from` in this choice.
fn others(device: &Capabilities, (choice, values): Choice, from: Tuning) -> impl Iterator<Item = Tuning> {
    values.iter().map(move |value| choice(from, *value)).filter(move |tried| *tried != from && is_possible(device, *tried))
}

/// Whether [`search`] could find these settings on such a device. Others, such as stored ones of another version, must not be used.
pub fn is_choice(device: &Capabilities, tuning: Tuning) -> bool {
    let chosen = |(choice, values): &Choice| values.iter().any(|value| choice(tuning, *value) == tuning);
    CHOICES.iter().all(chosen) && is_possible(device, tuning)
}

/// Settings that [`search`] measures on such a device.
pub fn trials(device: &Capabilities) -> usize {
    1 + CHOICES.into_iter().map(|choice| others(device, choice, device.tuning).count()).sum::<usize>()
}

/// Looks for the setting with the least time on such a device, from its own on. `measure` tells the time of a setting.
///
/// # Errors
/// Those of `measure`.
pub async fn search<E>(device: &Capabilities, mut measure: impl AsyncFnMut(Tuning) -> Result<Duration, E>) -> Result<Tuning, E> {
    let mut best = device.tuning;
    let mut least = measure(best).await?;
    for choice in CHOICES {
        for tried in others(device, choice, best) {
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
/// When there is nothing to measure, the model cannot be loaded or the device fails.
pub async fn measure(
    gpu: &GpuOptions,
    tuning: Tuning,
    source: &dyn Source,
    options: &BenchOptions,
) -> Result<Vec<LengthReport>, Rc<EngineError>> {
    options.check()?;
    let gpu = Gpu::open(&GpuOptions { tuning: Some(tuning), ..gpu.clone() }).await?;
    let loaded = Engine::load(Executor::Gpu(Box::new(gpu)), source.name(), source, options.model_options(), &mut |_| {}).await;
    let (mut engine, client) = loaded.map_err(|(_, error)| error)?;
    let lengths = run(&mut engine, &client, options, Duration::ZERO).await?.lengths;
    if lengths.is_empty() {
        let problem = "must name a prompt that fits the context with its answer".to_owned();
        return Err(Rc::new(EngineError::InvalidRequest { field: "prompts".to_owned(), problem }));
    }
    Ok(lengths)
}

/// The time of them all.
pub fn time(lengths: &[LengthReport]) -> Duration {
    let decode = |l: &LengthReport| if l.tokens > 1 { f64::from(l.tokens - 1) / l.decode_tokens_per_second } else { 0.0 };
    let seconds = lengths.iter().map(|l| l.first_token_ms / 1e3 + decode(l)).sum();
    // An answer that never came on.
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::SubgroupMatrix;

    #[test]
    fn search_combines_gains_and_ignores_noise() {
        let start = Tuning::of(Some(32), false);
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
        assert!(!repeated && tried.len() == 1 + 1 + 3 + 1 + 3 + 2 + 1 + 3 + 1, "{tried:?}");
        assert_eq!(trials(&device), tried.len());
        assert!(tried.iter().all(|tuning| is_choice(&device, *tuning)), "{tried:?}");
    }

    #[test]
    fn tuning_reads_old_field_names() {
        let old_name = "matmul_bytes";
        let tuning = Tuning::of(Some(32), true);
        let stored = serde_json::to_string(&tuning).expect("JSON").replace("matmul_int8", old_name);
        assert!(stored.contains(old_name));
        assert_eq!(serde_json::from_str::<Tuning>(&stored).expect("settings"), tuning);
    }

    #[test]
    fn search_tries_half_only_with_shader_f16() {
        let device = Capabilities { shader_f16: true, ..Capabilities::BASELINE };
        let time = async |tuning: Tuning| Ok::<_, ()>(Duration::from_millis(if tuning.matmul_half { 1 } else { 2 }));
        assert_eq!(pollster::block_on(search(&device, time)), Ok(Tuning { matmul_half: true, ..device.tuning }));
        assert_eq!(pollster::block_on(search(&Capabilities::BASELINE, time)), Ok(device.tuning));
        assert_eq!(trials(&device), trials(&Capabilities::BASELINE) + 1);
    }

    #[test]
    fn search_skips_settings_that_the_device_refuses() {
        let small = Capabilities::BASELINE;
        let large = Capabilities {
            subgroup_size: Some(32),
            matrices: Some(SubgroupMatrix::F16x16),
            shader_f16: true,
            tuning: Tuning::of(Some(32), false),
            ..small.clone()
        };
        assert!(is_choice(&small, small.tuning) && is_choice(&large, large.tuning) && is_choice(&large, small.tuning));
        let half = Tuning { matmul_half: true, matmul_matrices: false, ..small.tuning };
        let plain = Tuning { matmul_matrices: false, ..small.tuning };
        let wide = Tuning { matvec_workgroup: 256, ..small.tuning };
        for tuning in [half, plain, wide, Tuning { decode_workgroup: 256, ..small.tuning }] {
            assert!(is_choice(&large, tuning) && !is_choice(&small, tuning), "{tuning:?}");
        }
        for value in [0, 65, 65_536, u32::MAX] {
            for (choice, _) in &CHOICES[..7] {
                let tuning = choice(large.tuning, value);
                assert!(!is_choice(&large, tuning), "{tuning:?}");
            }
        }
    }

    #[test]
    fn answer_time_is_first_token_plus_rest() {
        let of = |tokens, rate| LengthReport {
            prompt_tokens: 1,
            tokens,
            cold_first_token_ms: 9e9,
            first_token_ms: 500.0,
            prefill_tokens_per_second: 0.0,
            decode_tokens_per_second: rate,
            token_ms: [0.0; 3],
            burst_tokens: 1,
            dispatches_per_token: 0.0,
            submissions_per_token: 0.0,
            read_bytes_per_token: 0.0,
        };
        assert_eq!(time(&[of(11, 10.0), of(1, 0.0)]), Duration::from_secs(2));
        assert_eq!(time(&[of(2, 0.0)]), Duration::MAX);
    }

    #[test]
    fn search_stops_at_failure() {
        let failing = async |tuning: Tuning| if tuning == Tuning::of(None, false) { Ok(Duration::from_millis(1)) } else { Err("lost") };
        assert_eq!(pollster::block_on(search(&Capabilities::BASELINE, failing)), Err("lost"));
    }

    #[test]
    fn search_without_subgroups_keeps_workgroups_small() {
        let largest = std::cell::Cell::new(0);
        let time = async |tuning: Tuning| {
            largest.set(largest.get().max(tuning.matvec_workgroup).max(tuning.decode_workgroup));
            Ok::<_, ()>(Duration::from_millis(1))
        };
        assert_eq!(pollster::block_on(search(&Capabilities::BASELINE, time)), Ok(Capabilities::BASELINE.tuning));
        assert_eq!(largest.get(), 64);
    }
}
