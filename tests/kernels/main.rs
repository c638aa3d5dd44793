//! Every kernel and variant against its CPU reference: odd sizes, sentinels behind every buffer, three sets of features.
#![allow(missing_docs)]

mod attention;
mod moe;
mod products;

use doppler_engine::exec::{BufferId, Cpu, Executor, Recording};
use doppler_engine::formats::DType;
use doppler_engine::kernels::{
    Activation, AttentionPrefill, AttentionShape, AttentionTier, BatchRows, BatchRowsBindings, Capabilities, Cost, Embed, EmbedBindings,
    EmbedIndex, Epilogue, Gated, GatedBindings, Gather, GatherBindings, Kernel, KvFormat, Linear, Matmul, Matvec, Norm, NormBindings,
    NormKind, Pool, PoolBindings, QkNorm, QkNormBindings, Repack, RepackBindings, RooflineMultiply, RooflineMultiplyBindings, RooflineRead,
    RooflineReadBindings, WeightLayout, Xielu, XieluBindings, XieluParameters, dequantize_row,
};
use doppler_tests::{Data, Devices, Random, devices, gpu};
use half::f16;

/// Normalized error of single precision sums in another order.
const F32: f64 = 1e-10;
/// The same where the factors are rounded to 15 bits of the largest of 32.
const FIXED: f64 = 1e-7;

/// Every weight format, with rows of an odd number of blocks.
fn formats() -> impl Iterator<Item = (DType, u32)> {
    DType::supported().map(|dtype| match dtype.block_size() {
        1 => (dtype, 104),
        32 => (dtype, 160),
        block => (dtype, 3 * block as u32),
    })
}

/// Rows of a file with sensible scales and any quants.
fn raw_rows(random: &mut Random, layout: &WeightLayout, rows: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..rows * layout.file_row_bytes).map(|_| random.bits() as u8).collect();
    let halves: &[usize] = match layout.dtype {
        DType::F32 => {
            for word in bytes.chunks_exact_mut(4) {
                word.copy_from_slice(&random.float().to_le_bytes());
            }
            return bytes;
        }
        DType::BF16 => {
            for word in bytes.chunks_exact_mut(2) {
                word.copy_from_slice(&half::bf16::from_f32(random.float()).to_le_bytes());
            }
            return bytes;
        }
        DType::MXFP4 => {
            for block in bytes.chunks_exact_mut(17) {
                block[0] = 118 + random.below(10) as u8;
            }
            return bytes;
        }
        DType::F16 | DType::Q8_0 | DType::Q4_0 | DType::Q5_0 | DType::IQ4_NL | DType::IQ4_XS => &[0],
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
        other => panic!("{other}"),
    };
    for block in bytes.chunks_exact_mut(layout.dtype.block_bytes() as usize) {
        for at in halves {
            block[*at..at + 2].copy_from_slice(&f16::from_f32(0.01 + random.float().abs()).to_le_bytes());
        }
    }
    bytes
}

/// Packed rows, made by the reference that `repack` is tested against.
fn packed_rows(random: &mut Random, layout: &WeightLayout, rows: u32) -> Data {
    let executor = Executor::Cpu(Cpu::new(Capabilities::BASELINE));
    let raw = raw_rows(random, layout, rows);
    let packed = pack(&executor, layout, rows, &raw);
    Data::U32(doppler_tests::read(&executor, packed, (rows * layout.stride) as usize))
}

/// A buffer with the packed form of `rows` rows of a file.
fn pack(executor: &Executor, layout: &WeightLayout, rows: u32, raw: &[u8]) -> BufferId {
    let mut raw = raw.to_vec();
    raw.resize(raw.len().next_multiple_of(4), 0);
    let source = executor.create_buffer("raw", raw.len() as u64).expect("memory");
    let target = executor.create_buffer("packed", u64::from(4 * rows * layout.stride)).expect("memory");
    executor.write(source, 0, &raw);
    let mut recording = Recording::new();
    recording.dispatch(Repack { layout: *layout, rows, first_row: 0, row_step: 1 }, RepackBindings { raw: source, packed: target });
    executor.run_once("pack", recording).expect("a run");
    target
}

fn layout(dtype: DType, cols: u32) -> WeightLayout {
    WeightLayout::new("test", dtype, u64::from(cols)).expect("a supported layout")
}

#[test]
fn repack_keeps_every_bit() {
    let mut devices = Devices::open();
    let mut random = Random::new(1);
    for (dtype, cols) in formats() {
        let layout = layout(dtype, cols);
        for (rows, first_row, row_step) in [(1, 0, 1), (5, 2, 1), (3, 1, 2)] {
            let raw = Data::bytes(&raw_rows(&mut random, &layout, rows));
            let packed = Data::U32(vec![0; ((first_row + rows * row_step) * layout.stride) as usize]);
            devices.check(|| Repack { layout, rows, first_row, row_step }, &RepackBindings { raw, packed }, 0.0);
        }
    }
}

/// Blocks of the `gguf` package, packed and read again: bit-equal on the host. A device may join a product and a sum in one
/// rounding and flush subnormal numbers.
#[test]
fn packed_blocks_keep_their_values() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/quants/quants.json");
    let fixture: serde_json::Value = serde_json::from_slice(&std::fs::read(path).expect("a fixture")).expect("JSON");
    let hex = |value: &serde_json::Value| -> Vec<u8> {
        let digits = value.as_str().expect("hex").as_bytes().chunks(2);
        digits.map(|h| u8::from_str_radix(str::from_utf8(h).expect("ASCII"), 16).expect("hex")).collect()
    };
    let host = Executor::Cpu(Cpu::new(Capabilities::BASELINE));
    let gpus: Vec<Executor> = devices().iter().map(|(_, options)| Executor::Gpu(Box::new(gpu(options)))).collect();
    for dtype in DType::supported() {
        let raw = hex(&fixture[dtype.name()]["blocks"]);
        let want: Vec<f32> = bytemuck::pod_collect_to_vec(&hex(&fixture[dtype.name()]["values"]));
        let cols = want.len() as u32;
        let layout = layout(dtype, cols);
        let packed = pack(&host, &layout, 1, &raw);
        let row = doppler_tests::read(&host, packed, layout.stride as usize);
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(dequantize_row(&layout, &row)), bits(want.clone()), "{dtype}");

        for executor in &gpus {
            let weights = pack(executor, &layout, 1, &raw);
            let rows = executor.create_buffer("rows", 16).expect("memory");
            let out = executor.create_buffer("out", u64::from(4 * cols)).expect("memory");
            executor.write(rows, 0, &[0; 16]);
            let mut recording = Recording::new();
            let index = EmbedIndex::First;
            let embed = Embed { layout, rows: 1, first_index: 0, slab_rows: 1, index, add: false, scale: 1.0 };
            recording.dispatch(embed, EmbedBindings { weights, rows, out });
            executor.run_once("embed", recording).expect("a run");
            let got: Vec<f32> = doppler_tests::read(executor, out, want.len()).into_iter().map(f32::from_bits).collect();
            let block = dtype.block_size() as usize;
            for (block, (got, want)) in got.chunks(block).zip(want.chunks(block)).enumerate() {
                // GPUs may flush subnormal numbers to zero, as NVIDIA's do. The scales of MXFP4's smallest blocks are such numbers, and
                // with them weights of up to 12 times as much are gone.
                let bound = want.iter().fold(0f32, |max, w| max.max(w.abs())) * 1e-6 + 16.0 * f32::MIN_POSITIVE;
                let far = got.iter().zip(want).find(|(g, w)| (*g - *w).abs() > bound);
                assert_eq!(far, None, "{dtype}, block {block}");
            }
        }
    }
}

#[test]
fn embed() {
    let mut devices = Devices::open();
    let mut random = Random::new(3);
    for (dtype, cols) in formats() {
        let layout = layout(dtype, cols);
        let (slab_rows, first_index) = (11, 7);
        // One before and one behind the slab: their rows stay as they are.
        let list: Vec<u32> = [7, 17, 6, 18, 12].iter().flat_map(|i| [*i, 24 - i, 0, 1]).collect();
        for (index, add) in [(EmbedIndex::Token, false), (EmbedIndex::Position, true)] {
            let weights = packed_rows(&mut random, &layout, slab_rows);
            let out = Data::F32(vec![7.0; (5 * cols) as usize]);
            let kernel = || Embed { layout, rows: 5, first_index, slab_rows, index, add, scale: 1.5 };
            devices.check(kernel, &EmbedBindings { weights, rows: Data::U32(list.clone()), out }, F32);
        }
    }
    let layout = layout(DType::F32, 8);
    let kernel = || Embed { layout, rows: 2, first_index: 0, slab_rows: 2, index: EmbedIndex::First, add: true, scale: 1.0 };
    let weights = packed_rows(&mut random, &layout, 2);
    devices.check(kernel, &EmbedBindings { weights, rows: Data::U32(vec![1; 8]), out: Data::F32(vec![1.0; 16]) }, F32);
}
/// A product of whole rows, stored one behind the other.
fn whole_rows(layout: WeightLayout, n_out: u32, rows: u32) -> Linear {
    Linear {
        layout,
        n_out,
        rows,
        x_offset: 0,
        x_stride: layout.cols,
        out_offset: 0,
        out_stride: n_out,
        out_step: 1,
        first_out: 0,
        epilogue: Epilogue::STORE,
        experts: None,
    }
}

/// The data of an optional binding, drawn in any case, so that later draws do not depend on whether it is bound.
fn optional(bound: bool, floats: Vec<f32>) -> Option<Data> {
    bound.then_some(Data::F32(floats))
}

#[test]
fn norm() {
    let mut devices = Devices::open();
    let mut random = Random::new(6);
    for kind in [NormKind::Rms, NormKind::Layer] {
        for (rows, dim, bias, add) in [(1, 8, false, false), (3, 512, true, false), (5, 1032, false, true)] {
            // A mean that is large against the deviation.
            let x = Data::F32(random.floats((rows * dim + 4) as usize).iter().map(|v| v + 3.0).collect());
            let weight = Data::F32(random.floats(dim as usize));
            let biases = optional(bias, random.floats(dim as usize));
            let out = Data::F32(vec![0.5; (rows * dim + 8) as usize]);
            let kernel = || Norm { kind, rows, dim, x_offset: 4, out_offset: 8, eps: 1e-5, bias, add };
            devices.check(kernel, &NormBindings { x, weight, bias: biases, out }, F32);
        }
    }
}

#[test]
fn qk_norm() {
    let mut devices = Devices::open();
    let mut random = Random::new(15);
    // A weight for each element of a head, of all heads, and whole rows as one segment.
    let cases = [
        (NormKind::Rms, (4, 64), (2, 64), 64, 64),
        (NormKind::Layer, (4, 20), (2, 20), 80, 40),
        (NormKind::Rms, (1, 288), (1, 96), 288, 96),
    ];
    for (kind, q_segments, k_segments, q_weights, k_weights) in cases {
        let row_stride = q_segments.0 * q_segments.1 + 2 * k_segments.0 * k_segments.1;
        let [qkv, q_weight, k_weight] =
            [3 * row_stride, q_weights, k_weights].map(|n| Data::F32(random.floats(n as usize).iter().map(|v| v + 0.5).collect()));
        let kernel = || QkNorm { kind, rows: 3, row_stride, q_segments, k_segments, q_weights, k_weights, eps: 1e-6 };
        devices.check(kernel, &QkNormBindings { qkv, q_weight, k_weight }, F32);
    }
}

#[test]
fn pool() {
    let mut devices = Devices::open();
    let mut random = Random::new(16);
    for dim in [8, 260] {
        let x = Data::F32(random.floats((dim * 9) as usize));
        let spans = Data::U32(vec![1, 7, 0, 1, 8, 1]);
        let buffers = PoolBindings { x, spans, out: Data::F32(vec![0.0; (3 * dim) as usize]) };
        devices.check(|| Pool { dim, texts: 3 }, &buffers, F32);
    }
}

/// The roofline kernels read and multiply as much as they claim, or their figures mean nothing.
#[test]
fn roofline() {
    let mut devices = Devices::open();
    let mut random = Random::new(17);
    for vectors in [1, 4096, 9001] {
        let x = Data::U32((0..4 * vectors).map(|_| random.bits() as u32).collect());
        let read = || RooflineRead { vectors };
        devices.check(read, &RooflineReadBindings { x, out: Data::U32(vec![0; read().sums() as usize]) }, 0.0);
    }
    for rounds in [1, 9] {
        devices.check(|| RooflineMultiply { workgroups: 2, rounds }, &RooflineMultiplyBindings { out: Data::F32(vec![0.0; 512]) }, F32);
    }
}

/// Bytes and multiply-adds, counted by hand.
#[test]
fn costs() {
    let linear = |rows| whole_rows(layout(DType::Q8_0, 64), 10, rows);
    // 64 numbers and two scales of two bytes, on whole 16 bytes.
    let weights = 10 * 80;
    let matvec = Matvec { linear: linear(1), norm: None };
    assert_eq!(matvec.cost(0), Cost { bytes: weights + 4 * (64 + 10), multiply_adds: 640 });
    let matmul = Matmul { linear: linear(3), splits: 2 };
    assert_eq!(matmul.cost(0), Cost { bytes: weights + 4 * (3 * 64 + 2 * 3 * 10), multiply_adds: 3 * 640 });

    let shape = |window| AttentionShape {
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        q_stride: 64,
        pages_per_slot: 4,
        window,
        right_window: 0,
        scale: 1.0,
        cap: 0.0,
        sinks: 0,
        kv: KvFormat::F16,
    };
    let prefill = |window| AttentionPrefill { shape: shape(window), rows: 3, tier: AttentionTier::Small, splits: 1 }.cost(5);
    // Keys and values of two heads of 8 halves for each position; q and the output.
    let (position, rows) = (2 * 2 * 8 * 2, 2 * 3 * 4 * 8 * 4);
    assert_eq!(prefill(0), Cost { bytes: 5 * position + rows, multiply_adds: 2 * 4 * 8 * (3 + 4 + 5) });
    assert_eq!(prefill(3), Cost { bytes: 3 * position + rows, multiply_adds: 2 * 4 * 8 * (3 + 3 + 3) });
}

#[test]
fn gated() {
    let mut devices = Devices::open();
    let mut random = Random::new(7);
    let activations = [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::ReluSquared, Activation::ClampedUnit];
    for ((rows, dim), activation) in [(1, 2), (3, 258), (7, 1536), (2, 130), (4, 96)].into_iter().zip(activations) {
        let gate_up = Data::F32(random.floats(2 * (rows * dim) as usize).iter().map(|v| 20.0 * v).collect());
        let out = Data::F32(vec![0.0; (rows * dim) as usize]);
        devices.check(|| Gated { rows, dim, activation }, &GatedBindings { gate_up, out }, F32);
    }
}

#[test]
fn xielu() {
    let mut devices = Devices::open();
    let mut random = Random::new(19);
    for (rows, dim, scale) in [(1, 4, 1.0), (3, 100, 20.0), (5, 512, 0.01)] {
        let parameters = XieluParameters { positive: 0.8, negative: 1.3, beta: 0.5, eps: -1e-6 };
        let x = Data::F32(random.floats((rows * dim) as usize).iter().map(|v| scale * v).collect());
        devices.check(|| Xielu { rows, dim, parameters }, &XieluBindings { x }, F32);
    }
}

#[test]
fn gather_takes_rows_by_number() {
    let mut devices = Devices::open();
    let x = Data::F32(Random::new(30).floats(7 * 260));
    let out = Data::F32(vec![0.0; 4 * 260]);
    devices.check(|| Gather { dim: 260, rows: 4 }, &GatherBindings { x, numbers: Data::U32(vec![6, 0, 3, 3]), out }, 0.0);
}

/// Rows move, join, leave and become inactive, all at once.
#[test]
fn batch_rows_are_read_before_they_are_written() {
    let mut devices = Devices::open();
    let table = |first: u32| Data::U32((first..first + 4 * 5).collect());
    let sources = Data::U32(vec![4, 0, 6, u32::MAX, 1]);
    devices.check(|| BatchRows { rows: 5 }, &BatchRowsBindings { sources, joining: table(100), batch: table(0) }, 0.0);
}
