//! What the kernel and model tests share: devices, sentinels, comparison.

use std::io::Write;
use std::path::Path;

use doppler_engine::engine::{Client, Engine};
use doppler_engine::error::EngineError;
use doppler_engine::exec::{BufferId, Cpu, Executor, Gpu, Recording, Scope, gpu::GpuOptions};
use doppler_engine::kernels::{Capabilities, Kernel, KvFormat, Tuning};
use doppler_engine::model::ModelOptions;
use doppler_engine::shaders::Bindings;
use doppler_engine::source::{self, Source};
use futures::future::{Either, select};

/// A word that no kernel writes by chance, behind every buffer.
const SENTINEL: u32 = 0xdead_beef;
/// Sentinel words behind a buffer.
const SENTINELS: usize = 64;

/// Opens the adapter that `DOPPLER_ADAPTER` names, or Mesa's lavapipe, which every machine can have.
///
/// # Panics
/// When there is none: `cargo xtask test` installs it.
pub fn gpu(options: &GpuOptions) -> Gpu {
    let adapter = std::env::var("DOPPLER_ADAPTER").unwrap_or_else(|_| "llvmpipe".to_owned());
    let options = GpuOptions { adapter: Some(adapter), ..options.clone() };
    pollster::block_on(Gpu::open(&options)).expect("an adapter for tests; see docs/developing.md")
}

/// A device that reads prompts as exactly as it decodes: x never becomes bytes.
pub fn exact() -> GpuOptions {
    GpuOptions { tuning: Some(Tuning::of(None, false)), ..GpuOptions::default() }
}

/// The devices that every kernel is tested on: with all that the adapter has, without subgroups and half precision, and with
/// WebGPU's default limits.
pub fn devices() -> Vec<(&'static str, GpuOptions)> {
    // Software adapters have small subgroups; what is set up for them is tested without features. Large tiles are tested on few outputs.
    let large = Tuning { matmul_tiles: 1, matmul_half: true, matvec_workgroups: 2, decode_workgroups: 8, ..Tuning::of(Some(32), false) };
    let large = GpuOptions { tuning: Some(large), ..GpuOptions::default() };
    let plain = GpuOptions { without_f16: true, without_subgroups: true, ..exact() };
    let baseline = GpuOptions {
        max_binding: Some(Capabilities::BASELINE.max_binding),
        workgroup_storage: Some(Capabilities::BASELINE.workgroup_storage),
        tuning: Some(Tuning { matmul_tiles: 1, ..Tuning::of(None, false) }),
        ..plain.clone()
    };
    vec![("all features", large), ("no features", plain), ("default limits", baseline)]
}

/// Says that a test cannot run here: on the terminal, and in the file `DOPPLER_SKIP_LOG`, from which `cargo xtask test` names it.
///
/// # Panics
/// When that file cannot be written.
pub fn skip(test: &str, reason: &str) {
    println!("SKIPPED {test}: {reason}");
    if let Ok(path) = std::env::var("DOPPLER_SKIP_LOG") {
        let mut log = std::fs::OpenOptions::new().append(true).create(true).open(path).expect("the log of skipped tests");
        writeln!(log, "{test}: {reason}").expect("the log of skipped tests");
    }
}

/// Loads a model.
///
/// # Errors
/// What the engine says.
pub async fn load(executor: Executor, source: &dyn Source, options: ModelOptions) -> Result<(Engine, Client), EngineError> {
    Engine::load(executor, "test", source, options, &mut |_| {}).await.map_err(|(_, error)| error)
}

/// A device of the adapter for tests.
pub fn device(options: &GpuOptions) -> Executor {
    Executor::Gpu(Box::new(gpu(options)))
}

/// Loads a file or a folder on a device of its own and runs `work` beside the engine.
///
/// # Panics
/// When it does not load.
pub fn serve<T>(gpu_options: &GpuOptions, path: &Path, options: ModelOptions, work: impl AsyncFnOnce(Client) -> T) -> T {
    serve_on(&mut Some(device(gpu_options)), path, options, work)
}

/// The same on a device that is left to the next model, with its pipelines: compiling them is most of a tiny model's time.
///
/// # Panics
/// When there is no device, or the model does not load.
pub fn serve_on<T>(device: &mut Option<Executor>, path: &Path, options: ModelOptions, work: impl AsyncFnOnce(Client) -> T) -> T {
    let source = source::open(path).expect("a file");
    pollster::block_on(async {
        let (mut engine, client) = load(device.take().expect("a device"), &*source, options).await.expect("a model");
        let result = beside(&mut engine, work(client)).await;
        *device = Some(engine.unload());
        result
    })
}

/// Runs an engine as long as `work` needs it.
///
/// # Panics
/// When the engine ends first.
pub async fn beside<T>(engine: &mut Engine, work: impl Future<Output = T>) -> T {
    let work = std::pin::pin!(work);
    let running = std::pin::pin!(engine.run());
    match select(work, running).await {
        Either::Left((value, _)) => value,
        Either::Right((result, _)) => panic!("the engine ended: {result:?}"),
    }
}

/// Numbers that look random and are the same in every run (`SplitMix64`, Steele et al. 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream of numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u32) -> u32 {
        (self.bits() % u64::from(n)) as u32
    }

    /// A number in [-1, 1).
    pub fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Numbers in [-1, 1).
    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// The largest score where a query sees nothing: no real one is that small.
const NOTHING_SEEN: f32 = -1e30;

/// A buffer of a case: what it holds before, and how its content is compared after.
#[derive(Clone, Debug)]
pub enum Data {
    /// Compared by normalized mean squared error.
    F32(Vec<f32>),
    /// The same for parts of attention, in which [`NOTHING_SEEN`] would hide all else: there it counts as zero.
    Parts(Vec<f32>),
    /// Words of a key/value cache with heads of this size; its elements are compared by normalized mean squared error.
    Cache(KvFormat, u32, Vec<u32>),
    /// Signed bytes, compared by normalized mean squared error: a device may round the other way.
    I8(Vec<u32>),
    /// Compared exactly.
    U32(Vec<u32>),
}

impl Data {
    fn words(&self) -> Vec<u32> {
        match self {
            Self::F32(v) | Self::Parts(v) => v.iter().map(|x| x.to_bits()).collect(),
            Self::Cache(_, _, v) | Self::I8(v) | Self::U32(v) => v.clone(),
        }
    }

    /// Bytes of bytes, padded to words.
    pub fn bytes(bytes: &[u8]) -> Self {
        Self::U32(bytes.chunks(4).map(|c| c.iter().rev().fold(0, |w, b| (w << 8) | u32::from(*b))).collect())
    }

    /// A description of how `got` differs from `want` beyond `bound`.
    fn difference(&self, got: &[u32], want: &[u32], bound: f64) -> Option<String> {
        let floats = |words: &[u32]| -> Vec<f32> {
            match self {
                Self::Cache(kv, head_dim, _) => {
                    let heads = words.len() / kv.head_words(*head_dim) as usize;
                    (0..heads).flat_map(|head| kv.load(words, *head_dim, head)).collect()
                }
                Self::I8(_) => words.iter().flat_map(|w| w.to_le_bytes()).map(|b| f32::from(b as i8)).collect(),
                Self::Parts(_) => words.iter().map(|w| f32::from_bits(*w)).map(|v| if v == NOTHING_SEEN { 0.0 } else { v }).collect(),
                _ => words.iter().map(|w| f32::from_bits(*w)).collect(),
            }
        };
        if let Self::U32(_) = self {
            let i = got.iter().zip(want).position(|(g, w)| g != w)?;
            return Some(format!("word {i} is {:#x} instead of {:#x}", got[i], want[i]));
        }
        let (got, want) = (floats(got), floats(want));
        if let Some(i) = got.iter().zip(&want).position(|(g, w)| g.is_finite() != w.is_finite()) {
            return Some(format!("element {i} is {} instead of {}", got[i], want[i]));
        }
        let error = nmse(&got, &want);
        (error > bound).then(|| {
            let worst = (0..got.len()).max_by(|a, b| (got[*a] - want[*a]).abs().total_cmp(&(got[*b] - want[*b]).abs())).unwrap_or(0);
            format!("normalized error {error:.2e} over {bound:.0e}; element {worst} is {} instead of {}", got[worst], want[worst])
        })
    }
}

/// Mean squared error over mean square of the reference. NaN where either is not finite.
pub fn nmse(got: &[f32], want: &[f32]) -> f64 {
    let error: f64 = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - f64::from(*w)).powi(2)).sum();
    let square: f64 = want.iter().map(|w| f64::from(*w).powi(2)).sum();
    error / square.max(f64::MIN_POSITIVE)
}

/// The data that a kernel's bindings hold.
pub type BoundData<K> = <<K as Kernel>::Bindings as Bindings>::Of<Data>;

/// All of [`devices`], opened: once a test, as drivers do not take hundreds of openings.
#[derive(Debug)]
pub struct Devices(Vec<(&'static str, Executor)>);

impl Devices {
    /// Opens them.
    pub fn open() -> Self {
        Self::with(devices())
    }

    /// Opens others.
    pub fn with(devices: Vec<(&'static str, GpuOptions)>) -> Self {
        Self(devices.into_iter().map(|(name, options)| (name, Executor::Gpu(Box::new(gpu(&options))))).collect())
    }

    /// Runs a case on each; see [`compare`].
    ///
    /// # Panics
    /// With what is wrong.
    pub fn check<K: Kernel + 'static>(&mut self, kernel: impl Fn() -> K, buffers: &BoundData<K>, bound: f64) {
        for _ in 0..self.0.len() {
            self.check_on_one(&kernel, buffers, bound);
        }
    }

    /// Runs a case on one of them, each time on the next: where all cases on all devices would take too long to compile.
    ///
    /// # Panics
    /// With what is wrong.
    pub fn check_on_one<K: Kernel + 'static>(&mut self, kernel: impl Fn() -> K, buffers: &BoundData<K>, bound: f64) {
        self.0.rotate_left(1);
        let (name, executor) = &self.0[0];
        if let Err(problem) = compare(executor, kernel, buffers, bound) {
            panic!("{name}: {problem}");
        }
    }
}

/// Normalized error of kernels that sum up to 32 products in half precision.
const HALF: f64 = 1e-4;
/// The same of those whose factors are rounded to half precision, and whose sums are not: 1e-7, and more where large sums are capped.
const HALF_FACTORS: f64 = 2e-5;

/// Runs a kernel on a device and its reference on the host, and compares all buffers: within `bound`, in half precision within [`HALF`]
/// or [`HALF_FACTORS`].
///
/// # Errors
/// What is wrong: a difference beyond `bound`, or a write behind a buffer.
///
/// # Panics
/// When the device fails.
pub fn compare<K: Kernel + 'static>(executor: &Executor, kernel: impl Fn() -> K, buffers: &BoundData<K>, bound: f64) -> Result<(), String> {
    let capabilities = executor.capabilities().clone();
    let plan = kernel().plan(&capabilities);
    let name = format!("{:?} as {} [{}]", kernel(), plan.shader.kernel, plan.shader.variant);
    let bound = match plan.shader.kernel {
        _ if !plan.shader.needs_f16 => bound,
        "matmul_subgroup" => bound.max(HALF_FACTORS),
        _ => bound.max(HALF),
    };
    let got = run(executor, kernel(), buffers);
    let want = run(&Executor::Cpu(Cpu::new(capabilities)), kernel(), buffers);
    for (Bound { name: buffer, data, after: got }, Bound { after: want, .. }) in got.iter().zip(&want) {
        let len = data.words().len();
        if let Some(at) = got[len..].iter().position(|w| *w != SENTINEL) {
            return Err(format!("{name}: `{buffer}` was written {at} words behind its end"));
        }
        if let Some(difference) = data.difference(&got[..len], &want[..len], bound) {
            return Err(format!("{name}: `{buffer}`: {difference}"));
        }
    }
    Ok(())
}

/// A buffer of a kernel that ran.
struct Bound<'a> {
    name: &'static str,
    data: &'a Data,
    /// Its words, with the sentinels.
    after: Vec<u32>,
}

fn run<'a, K: Kernel + 'static>(executor: &Executor, kernel: K, buffers: &'a BoundData<K>) -> Vec<Bound<'a>> {
    let mut scope = Scope::default();
    let mut bound = Vec::new();
    let bindings = K::Bindings::bind(buffers, &mut |name, data| {
        let mut words = data.words();
        words.resize(words.len() + SENTINELS, SENTINEL);
        let id = scope.create_buffer(executor, name, 4 * words.len() as u64).expect("a small buffer");
        executor.write(id, 0, bytemuck::cast_slice(&words));
        bound.push((name, data, id, words.len()));
        id
    });
    let mut recording = Recording::new();
    recording.dispatch(kernel, bindings);
    executor.run_once("test", recording).expect("a run");
    let results = bound.into_iter().map(|(name, data, id, words)| Bound { name, data, after: read(executor, id, words) }).collect();
    scope.free(executor);
    results
}

/// The words of a buffer.
///
/// # Panics
/// When the device fails.
pub fn read(executor: &Executor, id: BufferId, words: usize) -> Vec<u32> {
    let pending = executor.submit_and_read(&[], id, 0, 4 * words as u64).expect("a read");
    let bytes = pollster::block_on(pending.wait()).expect("bytes");
    executor.check().expect("no error on the device");
    bytemuck::pod_collect_to_vec(&bytes)
}
