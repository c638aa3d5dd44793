//! Every kernel and variant against its CPU reference: odd sizes, sentinels behind every buffer, three sets of features.
#![allow(missing_docs)]

use doppler_engine::cpu::Cpu;
use doppler_engine::executor::Executor;
use doppler_engine::formats::DType;
use doppler_engine::gpu::GpuOptions;
use doppler_engine::kernels::{
    Activation, AttentionCombine, AttentionCombineBindings, AttentionDecode, AttentionDecodeBindings, AttentionPrefill,
    AttentionPrefillBindings, AttentionShape, AttentionTier, Capabilities, Cost, Embed, EmbedBindings, EmbedIndex, Epilogue, Gated,
    GatedBindings, Interleave, Kernel, KvFormat, Linear, Matmul, MatmulBindings, MatmulCombine, MatmulCombineBindings, MatmulInt8,
    MatmulInt8Bindings, Matvec, MatvecBindings, Norm, NormBindings, NormKind, PAGE, Pool, PoolBindings, QkNorm, QkNormBindings,
    QuantizeRows, QuantizeRowsBindings, Repack, RepackBindings, RooflineMultiply, RooflineMultiplyBindings, RooflineRead,
    RooflineReadBindings, RopeKv, RopeKvBindings, RopePairing, Rotary, Row, Splits, SubgroupMatrix, Temperature, Tuning, WeightLayout,
    dequantize_row,
};
use doppler_engine::recording::{BufferId, Recording};
use doppler_tests::{Data, Devices, Random, compare, devices, gpu};
use half::f16;

/// Normalized error of single precision sums in another order.
const F32: f64 = 1e-10;
/// The same where the factors are rounded to 15 bits of the largest of eight.
const FIXED: f64 = 1e-8;

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

/// Epilogues with the first row of the slab: every part of one at least once for one type, as each is a pipeline to compile.
/// For others only `others` cases, on which how weights become numbers depends.
fn epilogues(dtype: DType, others: usize) -> Vec<(Epilogue, u32)> {
    if dtype != DType::Q8_0 {
        return vec![(Epilogue::ADD, 0); others];
    }
    let activations = [Activation::Silu, Activation::Gelu, Activation::GeluTanh];
    let mut all = vec![
        (Epilogue::STORE, 0),
        (Epilogue { scale: 0.22, ..Epilogue::ADD }, 0),
        (Epilogue { bias: true, cap: 3.0, scale: 0.5, ..Epilogue::STORE }, 5),
    ];
    all.extend(activations.map(|activation| (Epilogue { bias: true, activation, ..Epilogue::STORE }, 2)));
    all
}

/// The data of an optional binding, drawn in any case, so that later draws do not depend on whether it is bound.
fn optional(bound: bool, floats: Vec<f32>) -> Option<Data> {
    bound.then_some(Data::F32(floats))
}

#[test]
fn matvec() {
    let mut devices = Devices::open();
    let mut random = Random::new(4);
    for (dtype, cols) in formats() {
        let layout = layout(dtype, cols);
        let gated = |activation, bias| (Epilogue { gated: true, activation, bias, ..Epilogue::STORE }, 2);
        let shapes = [(5, 3), (33, 8), (37, 1), (1, 4)].into_iter().cycle().zip(epilogues(dtype, 2));
        let pairs = [(38, 1), (70, 6)].into_iter().zip([gated(Activation::Silu, false), gated(Activation::GeluTanh, true)]);
        let pairs = pairs.filter(|_| dtype == DType::Q8_0);
        for (i, ((n_out, rows), (epilogue, first_out))) in shapes.chain(pairs).enumerate() {
            let norm = (i % 2 == 0).then_some(1e-5);
            let out_step = if epilogue.gated { 1 } else { 1 + i as u32 % 2 };
            let (x_stride, out_stride) = (cols + 4, n_out * out_step + 3);
            let linear = Linear { layout, n_out, rows, x_offset: 8, x_stride, out_offset: 2, out_stride, out_step, first_out, epilogue };
            let buffers = MatvecBindings {
                weights: packed_rows(&mut random, &layout, n_out),
                x: Data::F32(random.floats((8 + rows * x_stride) as usize)),
                out: Data::F32(random.floats((2 + rows * out_stride) as usize)),
                norm_weight: optional(norm.is_some(), random.floats(cols as usize)),
                bias: optional(epilogue.bias, random.floats((first_out + n_out) as usize)),
            };
            devices.check(|| Matvec { linear, norm }, &buffers, FIXED);
        }
    }
}

/// Rows of so many blocks that more invocations share them where outputs are few, that each takes several, that a workgroup has them
/// in several tiles; and so many outputs that it takes several turns. One at a time, and four. Last a device whose large workgroups
/// have no more memory than WebGPU promises.
#[test]
fn matvec_of_long_rows() {
    let mut devices = Devices::open();
    let tuning = Some(Tuning::of(Some(32), false));
    let tight = GpuOptions { workgroup_storage: Some(Capabilities::BASELINE.workgroup_storage), tuning, ..GpuOptions::default() };
    let mut tight = Devices::with(vec![("large workgroups of little memory", tight)]);
    let mut random = Random::new(14);
    for dtype in [DType::F16, DType::Q8_0, DType::Q4_K, DType::Q6_K] {
        for ((cols, n_out), rows) in [(1024, 40), (1024, 300), (4352, 50)].into_iter().flat_map(|shape| [(shape, 1), (shape, 5)]) {
            let layout = layout(dtype, cols);
            let linear = whole_rows(layout, n_out, rows);
            let buffers = MatvecBindings {
                weights: packed_rows(&mut random, &layout, n_out),
                x: Data::F32(random.floats((rows * cols) as usize)),
                out: Data::F32(vec![0.0; (rows * n_out) as usize]),
                norm_weight: Some(Data::F32(random.floats(cols as usize))),
                bias: None,
            };
            let matvec = || Matvec { linear, norm: Some(1e-5) };
            // Four rows differ from one where a row has several tiles; each is a pipeline to compile.
            match (rows, cols) {
                (1, _) => devices.check(matvec, &buffers, FIXED),
                (_, 4352) => tight.check(matvec, &buffers, FIXED),
                _ => devices.check_on_one(matvec, &buffers, FIXED),
            }
        }
    }
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
    }
}

/// Two to four rows are so many products of one, from five on a workgroup has four rows: always in one dispatch, and in workgroups as
/// large as for one row.
#[test]
fn matvec_of_few_rows_is_planned_by_their_number() {
    let large = Capabilities { subgroup_size: Some(32), tuning: Tuning::of(Some(32), true), ..Capabilities::BASELINE };
    for (capabilities, workgroup) in [(large, 256), (Capabilities::BASELINE, 64)] {
        for (rows, variant, z) in
            [(1, "rows_1", 1), (2, "rows_1", 2), (3, "rows_1", 3), (4, "rows_1", 4), (5, "rows_4", 2), (8, "rows_4", 2)]
        {
            let plan = Matvec { linear: whole_rows(layout(DType::Q4_K, 4096), 4096, rows), norm: None }.plan(&capabilities);
            assert!(plan.shader.variant.contains(variant), "{rows} rows: {}", plan.shader.variant);
            assert_eq!(plan.workgroups[2], z, "{rows} rows");
            assert!(plan.constants.contains(&("WORKGROUP", f64::from(workgroup))), "{rows} rows: {:?}", plan.constants);
        }
    }
}

#[test]
fn matmul() {
    check_matmul(&mut Devices::open(), formats());
}

/// With each kind of matrices that subgroups multiply, in turns; see docs/developing.md for those of a browser. How weights become
/// numbers is as without.
#[test]
fn matmul_of_subgroup_matrices() {
    let some = formats().filter(|(dtype, _)| matches!(dtype, DType::F16 | DType::Q8_0));
    check_matmul(&mut with_subgroup_matrices(), some);
}

fn with_subgroup_matrices() -> Devices {
    let tuning = Tuning { matmul_tiles: 1, ..Tuning::of(None, false) };
    let with = |matrix| GpuOptions { matrices: Some(matrix), tuning: Some(tuning), ..GpuOptions::default() };
    Devices::with(SubgroupMatrix::ALL.map(|matrix| ("subgroup matrices", with(matrix))).to_vec())
}

fn check_matmul(devices: &mut Devices, formats: impl Iterator<Item = (DType, u32)>) {
    let mut random = Random::new(5);
    for (dtype, cols) in formats {
        let layout = layout(dtype, cols);
        // Every tile once, full and with rests.
        let shapes = [(67, 9), (3, 70), (131, 130), (64, 64)].into_iter().cycle();
        for (i, ((n_out, rows), (epilogue, first_out))) in shapes.zip(epilogues(dtype, 1)).enumerate() {
            let out_step = 1 + i as u32 % 2;
            let (x_stride, out_stride) = (cols + 4, n_out * out_step + 3);
            let linear = Linear { layout, n_out, rows, x_offset: 8, x_stride, out_offset: 2, out_stride, out_step, first_out, epilogue };
            let buffers = MatmulBindings {
                weights: packed_rows(&mut random, &layout, n_out),
                x: Data::F32(random.floats((8 + rows * x_stride) as usize)),
                out: Data::F32(random.floats((2 + rows * out_stride) as usize)),
                bias: optional(epilogue.bias, random.floats((first_out + n_out) as usize)),
            };
            devices.check(|| Matmul { linear, splits: 1 }, &buffers, F32);
        }
    }
}

#[test]
fn quantize_rows() {
    let mut devices = Devices::open();
    let mut random = Random::new(25);
    for (rows, n_in, order) in [(1, 32, Interleave::None), (3, 96, Interleave::EvenOdd), (70, 160, Interleave::None)] {
        let x_stride = n_in + 4;
        let mut x = random.floats((8 + rows * x_stride) as usize);
        // A block of zeros, and one that is too small.
        x[8..40].fill(0.0);
        x.iter_mut().rev().take(36).for_each(|v| *v *= 1e-33);
        let [bytes, scales] = QuantizeRows::sizes(rows, n_in).map(|bytes| (bytes / 4) as usize);
        let kernel = || QuantizeRows { rows, n_in, x_offset: 8, x_stride, order };
        let (bytes, scales) = (Data::I8(vec![0; bytes]), Data::F32(vec![0.0; scales]));
        devices.check(kernel, &QuantizeRowsBindings { x: Data::F32(x), bytes, scales }, 1e-6);
    }
}

/// Products are exact within a block, so that errors are those of adding blocks.
#[test]
fn matmul_int8() {
    let mut devices = Devices::open();
    let mut random = Random::new(26);
    for (dtype, cols) in formats().filter(|(dtype, _)| dtype.block_size() > 1) {
        let layout = layout(dtype, cols);
        // Tiles full and with rests, and parts of which one is empty.
        let shapes = [(67, 9, 1), (3, 70, 1), (131, 130, 1), (37, 70, 2), (64, 64, 4), (64, 64, 1)].into_iter().cycle();
        for (i, ((n_out, rows, splits), (epilogue, first_out))) in shapes.zip(epilogues(dtype, 1)).enumerate() {
            let out_step = 1 + i as u32 % 2;
            let out_stride = n_out * out_step + 3;
            let linear =
                Linear { layout, n_out, rows, x_offset: 0, x_stride: cols, out_offset: 2, out_stride, out_step, first_out, epilogue };
            let out = if splits == 1 { 2 + rows * out_stride } else { splits * rows * n_out };
            let bytes = (0..rows * cols / 4).map(|_| random.bits() as u32).collect();
            let buffers = MatmulInt8Bindings {
                weights: packed_rows(&mut random, &layout, n_out),
                x: Data::I8(bytes),
                out: Data::F32(random.floats(out as usize)),
                activation_scales: Data::F32(random.floats((rows * cols / 32) as usize)),
                bias: optional(epilogue.bias, random.floats((first_out + n_out) as usize)),
            };
            devices.check(|| MatmulInt8 { linear, splits }, &buffers, F32);
        }
    }
}

/// As large a tile as workgroup memory holds; none where it holds no small one, or where plain products were found to be faster.
#[test]
fn subgroup_matrices_are_used_where_they_fit() {
    let layout = layout(DType::Q8_0, 160);
    let epilogue = Epilogue::STORE;
    let linear = Linear {
        layout,
        n_out: 256,
        rows: 256,
        x_offset: 0,
        x_stride: 160,
        out_offset: 0,
        out_stride: 256,
        out_step: 1,
        first_out: 0,
        epilogue,
    };
    let device = Capabilities {
        subgroup_size: Some(32),
        workgroup_storage: 32 << 10,
        tuning: Tuning { matmul_tiles: 1, ..Tuning::of(None, false) },
        ..Capabilities::BASELINE
    };
    let plan = |matrix, change: fn(&mut Capabilities)| {
        let mut device = Capabilities { matrices: Some(matrix), ..device.clone() };
        change(&mut device);
        let shader = Matmul { linear, splits: 1 }.plan(&device).shader;
        (shader.kernel, shader.variant)
    };
    let [f16x16, f16x8, f32x8] = SubgroupMatrix::ALL;
    assert_eq!(plan(f16x16, |_| ()), ("matmul_subgroup", "w_q8_0+tile_128x128+f16_16x16"));
    assert_eq!(plan(f16x16, |d| d.workgroup_storage = 20 << 10), ("matmul_subgroup", "w_q8_0+tile_64x128+f16_16x16"));
    assert_eq!(plan(f16x16, |d| d.workgroup_storage = 16 << 10), ("matmul", "w_q8_0+tile_64x64"));
    assert_eq!(plan(f16x16, |d| d.tuning.matmul_matrices = false), ("matmul", "w_q8_0+tile_128x128"));
    assert_eq!(plan(f16x8, |_| ()), ("matmul_subgroup", "w_q8_0+tile_64x64+f16_8x8"));
    assert_eq!(plan(f32x8, |_| ()), ("matmul_subgroup", "w_q8_0+tile_64x64+f32_8x8"));
}

/// Parts of rows whose number of blocks they do not divide, one of them empty, and joining them.
#[test]
fn matmul_in_parts() {
    let mut devices = Devices::open();
    let mut subgroups = with_subgroup_matrices();
    let mut random = Random::new(15);
    let layout = layout(DType::Q8_0, 160);
    for splits in [2, 4] {
        let (n_out, rows) = (37, 70);
        let epilogue = Epilogue { bias: true, cap: 3.0, scale: 0.5, ..Epilogue::ADD };
        let (x_stride, out_stride) = (164, 80);
        let linear = Linear { layout, n_out, rows, x_offset: 8, x_stride, out_offset: 2, out_stride, out_step: 2, first_out: 1, epilogue };
        let workspace = Data::F32(random.floats((splits * rows * n_out) as usize));
        let bias = Some(Data::F32(random.floats(38)));
        let x = Data::F32(random.floats((8 + rows * x_stride) as usize));
        let weights = packed_rows(&mut random, &layout, n_out);
        let buffers = MatmulBindings { weights, x, out: workspace.clone(), bias: bias.clone() };
        devices.check(|| Matmul { linear, splits }, &buffers, F32);
        subgroups.check_on_one(|| Matmul { linear, splits }, &buffers, F32);
        let out = Data::F32(random.floats((2 + rows * out_stride) as usize));
        let buffers = MatmulCombineBindings { workspace, out, bias };
        devices.check(|| MatmulCombine { linear, splits }, &buffers, F32);
    }
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
    for (dim, first, count) in [(8, 0, 1), (260, 1, 7)] {
        let buffers = PoolBindings { x: Data::F32(random.floats((dim * 9) as usize)), out: Data::F32(vec![0.0; dim as usize]) };
        devices.check(|| Pool { dim, first, count }, &buffers, F32);
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
    let activations = [Activation::Silu, Activation::Gelu, Activation::GeluTanh];
    for ((rows, dim), activation) in [(1, 2), (3, 258), (7, 1536)].into_iter().zip(activations) {
        let gate_up = Data::F32(random.floats(2 * (rows * dim) as usize).iter().map(|v| 20.0 * v).collect());
        let out = Data::F32(vec![0.0; (rows * dim) as usize]);
        devices.check(|| Gated { rows, dim, activation }, &GatedBindings { gate_up, out }, F32);
    }
}

/// Pages of two sequences in no order.
fn page_table(pages_per_slot: u32) -> (Data, u32) {
    let pages = 2 * pages_per_slot;
    (Data::U32((0..pages).map(|i| (i * 7 + 3) % pages).collect()), pages)
}

const KV_FORMATS: [KvFormat; 3] = [KvFormat::F32, KvFormat::F16, KvFormat::Q8];

/// A cache with any content.
fn cache(random: &mut Random, kv: KvFormat, head_dim: u32, heads: u32) -> Data {
    let mut words = vec![0; (kv.head_words(head_dim) * heads) as usize];
    for head in 0..heads as usize {
        kv.store(&mut words, head_dim, head, &random.floats(head_dim as usize));
    }
    Data::Cache(kv, head_dim, words)
}

fn rows(list: &[(u32, u32)]) -> Data {
    let rows: Vec<Row> = list.iter().map(|&(slot, position)| Row { token: 0, position, slot, flags: 1 }).collect();
    Data::U32(bytemuck::pod_collect_to_vec(&rows))
}

#[test]
fn rope_kv() {
    let mut devices = Devices::open();
    let mut random = Random::new(8);
    let pages_per_slot = 5;
    for kv in KV_FORMATS {
        for pairing in [RopePairing::Neighbours, RopePairing::Halves] {
            for (heads, kv_heads, head_dim, rotated) in [(4, 2, 64, 64), (3, 3, 20, 6), (8, 1, 80, 32), (2, 1, 8, 0), (2, 1, 44, 44)] {
                let (pages, page_count) = page_table(pages_per_slot);
                let temperature = (rotated == head_dim).then_some(Temperature { growth: 0.1, span: 16.0 });
                let rotary = Rotary { rotated, pairing, magnitude: 1.25, temperature };
                let kernel = || RopeKv { rows: 3, heads, kv_heads, head_dim, rotary, pages_per_slot, kv };
                let frequencies: Vec<f32> = (0..(rotated / 2).max(1)).map(|i| 10_000f32.powf(-2.0 * i as f32 / rotated as f32)).collect();
                let cached_heads = page_count * PAGE * kv_heads;
                let buffers = RopeKvBindings {
                    qkv: Data::F32(random.floats((3 * (heads + 2 * kv_heads) * head_dim) as usize)),
                    keys: cache(&mut random, kv, head_dim, cached_heads),
                    values: cache(&mut random, kv, head_dim, cached_heads),
                    pages,
                    rows: rows(&[(0, 0), (1, 33), (1, 159)]),
                    rope_constants: Data::F32(frequencies),
                };
                // A byte that the device rounds to the other side of a tie is off by one quantum.
                devices.check(kernel, &buffers, if kv == KvFormat::Q8 { 2e-8 } else { 1e-9 });
            }
        }
    }
}

/// Angles of long contexts, where the device's own cosine may be far off.
#[test]
fn rope_far_out() {
    let mut devices = Devices::open();
    let pages_per_slot = 1 << 15;
    let kernel = || RopeKv {
        rows: 5,
        heads: 1,
        kv_heads: 1,
        head_dim: 4,
        rotary: Rotary { rotated: 4, pairing: RopePairing::Neighbours, magnitude: 1.0, temperature: None },
        pages_per_slot,
        kv: KvFormat::F32,
    };
    let buffers = RopeKvBindings {
        qkv: Data::F32(Random::new(9).floats(60)),
        keys: Data::F32(vec![0.0; 4 * PAGE as usize]),
        values: Data::F32(vec![0.0; 4 * PAGE as usize]),
        pages: Data::U32(vec![0; 1 << 15]),
        rows: rows(&[(0, 4097), (0, 32_767), (0, 99_998), (0, 262_143), (0, 1_048_574)]),
        rope_constants: Data::F32(vec![1.0, 0.7371]),
    };
    devices.check(kernel, &buffers, 1e-9);
}

/// Heads, window, cap: every branch of the attention kernels.
fn attention_shapes(kv: KvFormat, pages_per_slot: u32) -> Vec<AttentionShape> {
    [(4, 2, 64, 0, 0.0), (2, 2, 20, 100, 0.0), (6, 1, 96, 0, 5.0), (2, 1, 128, 70, 30.0), (2, 2, 256, 0, 0.0)]
        .into_iter()
        .map(|(heads, kv_heads, head_dim, window, cap)| AttentionShape {
            heads,
            kv_heads,
            head_dim,
            q_stride: (heads + 1) * head_dim,
            pages_per_slot,
            window,
            right_window: 0,
            scale: 1.5,
            cap,
            kv,
        })
        .collect()
}

fn attention_buffers(random: &mut Random, shape: &AttentionShape, list: &[(u32, u32)]) -> AttentionPrefillBindings<Data> {
    let (pages, page_count) = page_table(shape.pages_per_slot);
    let cached_heads = page_count * PAGE * shape.kv_heads;
    AttentionPrefillBindings {
        q: Data::F32(random.floats(list.len() * shape.q_stride as usize)),
        keys: cache(random, shape.kv, shape.head_dim, cached_heads),
        values: cache(random, shape.kv, shape.head_dim, cached_heads),
        pages,
        rows: rows(list),
        out: Data::F32(vec![0.0; list.len() * (shape.heads * shape.head_dim) as usize]),
    }
}

#[test]
fn attention_decode() {
    let mut devices = Devices::open();
    let mut random = Random::new(10);
    // No rotation; whole heads rotated, with norms; neighbours rotated in a part of the head, with norms.
    let rotary = |rotated, pairing| Rotary { rotated, pairing, magnitude: 1.25, temperature: None };
    let temperature = Some(Temperature { growth: 0.1, span: 16.0 });
    for kv in KV_FORMATS {
        for (i, mut shape) in attention_shapes(kv, 20).into_iter().enumerate() {
            shape.q_stride = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
            let (rotary, qk_norm) = match i % 3 {
                0 => (rotary(0, RopePairing::Halves), None),
                1 => (Rotary { temperature, ..rotary(shape.head_dim, RopePairing::Halves) }, Some(1e-5)),
                _ => (rotary(6, RopePairing::Neighbours), Some(1e-5)),
            };
            for (list, count, length) in [
                (vec![(0, 0), (1, 63)], 1, 64),
                (vec![(1, 5), (0, 639)], 1, 640),
                // Rows of different sequences: no row reads pages that another writes.
                (vec![(0, 300), (1, 639)], 10, 64),
                (vec![(1, 5), (0, 300)], 2, 512),
            ] {
                let count_of_rows = list.len() as u32;
                let AttentionPrefillBindings { q, keys, values, pages, rows, out } = attention_buffers(&mut random, &shape, &list);
                let rope_constants: Vec<f32> = (0..rotary.rotated / 2).map(|i| 0.9f32.powi(i as i32)).collect();
                let rope_constants = if rope_constants.is_empty() { vec![0.0] } else { rope_constants };
                let weights = random.floats(2 * shape.head_dim as usize);
                let rope_constants = Data::F32([rope_constants, weights].concat());
                // With one split the partial results are not written.
                let workspace = count_of_rows * shape.heads * count * (shape.head_dim + 4);
                let workspace = Data::Parts(vec![0.5; workspace as usize]);
                let buffers = AttentionDecodeBindings { qkv: q, keys, values, pages, rows, rope_constants, out, workspace };
                let splits = Splits { count, length };
                // A byte of the cache that the device rounds to the other side of a tie is off by one quantum.
                let bound = if kv == KvFormat::Q8 { 1e-7 } else { 1e-9 };
                devices.check(|| AttentionDecode { shape, rows: count_of_rows, splits, rotary, qk_norm }, &buffers, bound);
            }
        }
    }
}

/// A short cache is read whole; a long one in few parts that cover it.
#[test]
fn splits() {
    for (head_dim, whole) in [(64, 1024), (128, 512), (256, 256)] {
        for positions in [1, 64, 256, 257, 512, 513, 1024, 8192, 40_000, 131_072] {
            let Splits { count, length } = Splits::of(positions, head_dim);
            assert!(count * length >= positions && (1..=64).contains(&count), "{positions}: {count} of {length}");
            assert_eq!(count == 1, positions <= whole);
        }
    }
}

#[test]
fn attention_combine() {
    let mut devices = Devices::open();
    let mut random = Random::new(11);
    for (heads, head_dim, rows, splits) in [(4, 64, 3, 4), (3, 20, 1, 2), (1, 256, 2, 8)] {
        let mut workspace = random.floats((heads * rows * splits * (head_dim + 4)) as usize);
        for (i, part) in workspace.chunks_exact_mut((head_dim + 4) as usize).enumerate() {
            // Weights are positive; the last split of a row can be empty.
            part[head_dim as usize + 1] += 1.0;
            if splits > 2 && i % splits as usize == splits as usize - 1 {
                part.fill(0.0);
                part[head_dim as usize] = -1e30;
            }
        }
        let out = Data::F32(vec![0.0; (rows * heads * head_dim) as usize]);
        devices.check(
            || AttentionCombine { heads, head_dim, rows, splits },
            &AttentionCombineBindings { workspace: Data::F32(workspace), out },
            F32,
        );
    }
}

#[test]
fn attention_prefill() {
    let mut devices = Devices::open();
    let mut random = Random::new(12);
    for kv in KV_FORMATS {
        for shape in attention_shapes(kv, 20) {
            for (first, count) in [(0, 1), (0, 70), (131, 37)] {
                let list: Vec<(u32, u32)> = (first..first + count).map(|position| (1, position)).collect();
                let buffers = attention_buffers(&mut random, &shape, &list);
                for tier in [AttentionTier::Small, AttentionTier::Streaming] {
                    devices.check(|| AttentionPrefill { shape, rows: count, tier, splits: 1 }, &buffers, 1e-9);
                }
            }
        }
    }
}

/// Encoders: a query sees later positions too, all or a window around it.
#[test]
fn attention_in_both_directions() {
    let mut devices = Devices::open();
    let mut random = Random::new(17);
    for shape in attention_shapes(KvFormat::F16, 20) {
        for (window, right_window, count) in [(0, 4096, 70), (13, 12, 70), (31, 30, 1)] {
            let shape = AttentionShape { window, right_window, ..shape };
            let list: Vec<(u32, u32)> = (0..count).map(|position| (1, position)).collect();
            let buffers = attention_buffers(&mut random, &shape, &list);
            for tier in [AttentionTier::Small, AttentionTier::Streaming] {
                devices.check(|| AttentionPrefill { shape, rows: count, tier, splits: 1 }, &buffers, 1e-9);
            }
        }
    }
}

/// The tier for devices with 20 KiB of workgroup memory, or 36 KiB for large heads, which software adapters do not have.
#[test]
fn attention_prefill_large() {
    let gpu = gpu(&GpuOptions::default());
    let large = |shape: &AttentionShape| AttentionTier::choose(gpu.capabilities(), shape.head_dim) == AttentionTier::Large;
    let shapes = KV_FORMATS.into_iter().flat_map(|kv| attention_shapes(kv, 20)).filter(|shape| AttentionDecode::serves(shape.head_dim));
    let (served, others): (Vec<_>, Vec<_>) = shapes.partition(large);
    if let Some(shape) = others.first() {
        let have = gpu.capabilities().workgroup_storage;
        let what = format!("heads of {}: the adapter has {have} bytes of workgroup memory", shape.head_dim);
        doppler_tests::skip("attention_prefill_large", &what);
    }
    let executor = Executor::Gpu(Box::new(gpu));
    let mut random = Random::new(13);
    for shape in served {
        for (first, count, window, right_window) in [(0, 1, 0, 0), (0, 70, 0, 0), (131, 137, 0, 0), (0, 70, 0, 4096), (0, 70, 13, 12)] {
            let shape = if right_window > 0 { AttentionShape { window, right_window, ..shape } } else { shape };
            let list: Vec<(u32, u32)> = (first..first + count).map(|position| (1, position)).collect();
            let mut buffers = attention_buffers(&mut random, &shape, &list);
            let kernel = |splits| move || AttentionPrefill { shape, rows: count, tier: AttentionTier::Large, splits };
            compare(&executor, kernel(1), &buffers, 1e-9).expect("equal");
            // In parts, some of which see nothing.
            buffers.out = Data::Parts(vec![0.5; (count * shape.heads * 3 * (shape.head_dim + 4)) as usize]);
            compare(&executor, kernel(3), &buffers, 1e-9).expect("equal in parts");
        }
    }
}

/// Rows of different sequences through the tier that serves any head size.
#[test]
fn attention_streaming_decodes() {
    let mut devices = Devices::open();
    let mut random = Random::new(14);
    let list = [(0, 17), (1, 300), (0, 0)];
    for kv in KV_FORMATS {
        let shape = AttentionShape { head_dim: 260, ..attention_shapes(kv, 20)[0] };
        let shape = AttentionShape { q_stride: shape.heads * 260, ..shape };
        let buffers = attention_buffers(&mut random, &shape, &list);
        devices.check(|| AttentionPrefill { shape, rows: 3, tier: AttentionTier::Streaming, splits: 1 }, &buffers, 1e-9);
    }
}
