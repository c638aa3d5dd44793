//! Products with weights: rows one by one, in tiles, and with int8 activations.

use doppler_engine::exec::cpu::Cpu;
use doppler_engine::exec::gpu::GpuOptions;
use doppler_engine::exec::{Executor, Recording};
use doppler_engine::formats::DType;
use doppler_engine::kernels::{
    Activation, Capabilities, Epilogue, Interleave, Kernel, Linear, Matmul, MatmulBindings, MatmulCombine, MatmulCombineBindings,
    MatmulInt8, MatmulInt8Bindings, MatmulInt16, Matvec, MatvecBindings, MatvecInt16Bindings, QuantizeInt16, QuantizeInt16Bindings,
    QuantizeRows, QuantizeRowsBindings, SubgroupMatrix, Tuning, WeightLayout,
};
use doppler_tests::{Data, Devices, Random};

use super::{F32, FIXED, formats, layout, optional, packed_rows, whole_rows};

/// Epilogues with the first row of the slab: every part of one at least once for one type, as each is a pipeline to compile.
/// For others only `others` cases, on which how weights become numbers depends.
fn epilogues(dtype: DType, others: usize) -> Vec<(Epilogue, u32)> {
    if dtype != DType::Q8_0 {
        return vec![(Epilogue::ADD, 0); others];
    }
    let activations = [Activation::Silu, Activation::Gelu, Activation::GeluTanh];
    let mut all = vec![
        (Epilogue::STORE, 0),
        (Epilogue { scale: 0.22, weight_scale: 1.7, ..Epilogue::ADD }, 0),
        (Epilogue { bias: true, cap: 3.0, scale: 0.5, ..Epilogue::STORE }, 5),
    ];
    all.extend(activations.map(|activation| (Epilogue { bias: true, activation, ..Epilogue::STORE }, 2)));
    all
}

#[test]
fn matvec() {
    let mut devices = Devices::open();
    let mut random = Random::new(4);
    for (dtype, cols) in formats() {
        let layout = layout(dtype, cols);
        for (i, (n_out, epilogue, first_out)) in [5, 33, 37, 1].into_iter().cycle().zip(with_gated(dtype)).map(flat).enumerate() {
            let norm = (i % 2 == 0).then_some(1e-5);
            let rows = [1, 3][i % 2];
            let linear = scattered(layout, n_out, rows, epilogue, first_out, i);
            let buffers = MatvecBindings {
                weights: packed_rows(&mut random, &layout, n_out),
                x: Data::F32(random.floats((8 + rows * linear.x_stride) as usize)),
                out: Data::F32(random.floats((2 + rows * linear.out_stride) as usize)),
                norm_weight: optional(norm.is_some(), random.floats(cols as usize)),
                bias: optional(epilogue.bias, random.floats((first_out + n_out) as usize)),
                chosen: None,
            };
            devices.check(|| Matvec { linear, norm }, &buffers, FIXED);
        }
    }
}

/// [`epilogues`], and for one type those of pairs of outputs.
fn with_gated(dtype: DType) -> Vec<(Epilogue, u32)> {
    let gated = |activation, bias| (Epilogue { gated: true, activation, bias, weight_scale: 0.7, ..Epilogue::STORE }, 2);
    let pairs = [gated(Activation::Silu, false), gated(Activation::GeluTanh, true), gated(Activation::ClampedUnit, true)];
    epilogues(dtype, 2).into_iter().chain(pairs.into_iter().filter(|_| dtype == DType::Q8_0)).collect()
}

fn flat((n_out, (epilogue, first_out)): (u32, (Epilogue, u32))) -> (u32, Epilogue, u32) {
    // Pairs of outputs are even.
    (if epilogue.gated { n_out.next_multiple_of(2) } else { n_out }, epilogue, first_out)
}

/// Rows with gaps between them, and between outputs in some cases.
fn scattered(layout: WeightLayout, n_out: u32, rows: u32, epilogue: Epilogue, first_out: u32, case: usize) -> Linear {
    let out_step = if epilogue.gated { 1 } else { 1 + case as u32 % 2 };
    let (x_stride, out_stride) = (layout.cols + 4, n_out * out_step + 3);
    Linear { layout, n_out, rows, x_offset: 8, x_stride, out_offset: 2, out_stride, out_step, first_out, epilogue, experts: None }
}

/// Rows of so many blocks that more invocations share them where outputs are few, that each takes several, that a workgroup has them
/// in several tiles; and so many outputs that it iterates over groups of them. Last a device whose large workgroups have no more memory
/// than WebGPU promises.
#[test]
fn matvec_of_long_rows() {
    let mut devices = Devices::open();
    let tuning = Some(Tuning::of(Some(32), false));
    let tight = GpuOptions { workgroup_storage: Some(Capabilities::BASELINE.workgroup_storage), tuning, ..GpuOptions::default() };
    let mut tight = Devices::with(vec![("large workgroups of little memory", tight)]);
    let mut random = Random::new(14);
    for dtype in [DType::F16, DType::Q8_0, DType::Q4_K, DType::Q6_K] {
        for (cols, n_out) in [(1024, 40), (1024, 300), (4352, 50)] {
            let layout = layout(dtype, cols);
            let buffers = MatvecBindings {
                weights: packed_rows(&mut random, &layout, n_out),
                x: Data::F32(random.floats(cols as usize)),
                out: Data::F32(vec![0.0; n_out as usize]),
                norm_weight: Some(Data::F32(random.floats(cols as usize))),
                bias: None,
                chosen: None,
            };
            let matvec = || Matvec { linear: whole_rows(layout, n_out, 1), norm: Some(1e-5) };
            devices.check(matvec, &buffers, FIXED);
            if cols == 4352 {
                tight.check(matvec, &buffers, FIXED);
            }
        }
    }
}

#[test]
fn quantize_int16() {
    let mut devices = Devices::open();
    let mut random = Random::new(27);
    let cases = [(1, 32, Interleave::None), (3, 96, Interleave::EvenOdd), (2, 4160, Interleave::EvenOdd)];
    for ((rows, n_in, order), norm) in cases.into_iter().flat_map(|case| [(case, None), (case, Some(1e-5))]) {
        let x_stride = n_in + 4;
        let mut x = random.floats((8 + rows * x_stride) as usize);
        // A block of zeros, and one that is too small.
        x[8..40].fill(0.0);
        x.iter_mut().rev().take(36).for_each(|v| *v *= 1e-33);
        let [bytes, scales] = QuantizeInt16::sizes(rows, n_in);
        let buffers = QuantizeInt16Bindings {
            x: Data::F32(x),
            bytes: Data::I8(vec![0; bytes as usize / 4]),
            factors: Data::F32(vec![0.0; scales as usize / 4]),
            norm_weight: optional(norm.is_some(), random.floats(n_in as usize)),
        };
        devices.check(|| QuantizeInt16 { rows, n_in, x_offset: 8, x_stride, order, norm }, &buffers, 1e-5);
    }
}

/// Each number of rows that share a read of the weights, full and with rests; few and many lanes.
#[test]
fn matmul_int16() {
    let mut devices = Devices::open();
    let mut random = Random::new(28);
    for (dtype, cols) in formats().filter(|(dtype, _)| dtype.block_size() > 1) {
        let layout = layout(dtype, cols);
        let shapes = [(5u32, 3), (33, 8), (37, 2), (1, 4), (70, 19), (38, 13)].into_iter().cycle();
        for (i, ((n_out, rows), (epilogue, first_out))) in shapes.zip(with_gated(dtype)).enumerate() {
            let n_out = if epilogue.gated { n_out.next_multiple_of(2) } else { n_out };
            let linear = scattered(layout, n_out, rows, epilogue, first_out, i);
            check_int16(&mut devices, &mut random, linear);
        }
    }
}

#[test]
fn matmul_int16_of_long_rows() {
    let mut devices = Devices::open();
    let mut random = Random::new(29);
    for (i, dtype) in [DType::Q2_K, DType::Q8_0, DType::Q4_K, DType::Q6_K].into_iter().enumerate() {
        for (j, (cols, n_out)) in [(1024, 40), (4352, 50), (512, 2100)].into_iter().enumerate() {
            check_int16(&mut devices, &mut random, whole_rows(layout(dtype, cols), n_out, [2, 4, 7, 11, 32][(i + j) % 5]));
        }
    }
}

fn check_int16(devices: &mut Devices, random: &mut Random, linear: Linear) {
    let Linear { layout, n_out, rows, epilogue, first_out, .. } = linear;
    let x = random.floats((linear.x_offset + rows * linear.x_stride) as usize);
    let [x, factors] = int16_rows(&linear, &x);
    let buffers = MatvecInt16Bindings {
        weights: packed_rows(random, &layout, n_out),
        x,
        out: Data::F32(random.floats((linear.out_offset + rows * linear.out_stride) as usize)),
        factors,
        bias: optional(epilogue.bias, random.floats((first_out + n_out) as usize)),
    };
    devices.check(|| MatmulInt16 { linear }, &buffers, F32);
}

/// The rows of x that a batch with these weights takes, and their scales.
fn int16_rows(linear: &Linear, x: &[f32]) -> [Data; 2] {
    let executor = Executor::Cpu(Cpu::new(Capabilities::BASELINE));
    let &Linear { layout, rows, x_offset, x_stride, .. } = linear;
    let n_in = layout.cols;
    let sizes = QuantizeInt16::sizes(rows, n_in);
    let [bytes, factors] = sizes.map(|bytes| executor.create_buffer("int16", bytes).expect("memory"));
    let plain = executor.create_buffer("x", 4 * x.len() as u64).expect("memory");
    executor.write(plain, 0, bytemuck::cast_slice(x));
    let kernel = QuantizeInt16 { rows, n_in, x_offset, x_stride, order: layout.interleave(), norm: None };
    let mut recording = Recording::new();
    recording.dispatch(kernel, QuantizeInt16Bindings { x: plain, bytes, factors, norm_weight: None });
    executor.run_once("quantize", recording).expect("a run");
    let [words, floats] = sizes.map(|bytes| bytes as usize / 4);
    [Data::I8(doppler_tests::read(&executor, bytes, words)), Data::F32(bytemuck::cast_vec(doppler_tests::read(&executor, factors, floats)))]
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

pub(super) fn with_subgroup_matrices() -> Devices {
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
            let linear = Linear {
                layout,
                n_out,
                rows,
                x_offset: 8,
                x_stride,
                out_offset: 2,
                out_stride,
                out_step,
                first_out,
                epilogue,
                experts: None,
            };
            let buffers = MatmulBindings {
                weights: packed_rows(&mut random, &layout, n_out),
                x: Data::F32(random.floats((8 + rows * x_stride) as usize)),
                out: Data::F32(random.floats((2 + rows * out_stride) as usize)),
                bias: optional(epilogue.bias, random.floats((first_out + n_out) as usize)),
                chosen: None,
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
            let linear = Linear {
                layout,
                n_out,
                rows,
                x_offset: 0,
                x_stride: cols,
                out_offset: 2,
                out_stride,
                out_step,
                first_out,
                epilogue,
                experts: None,
            };
            let out = if splits == 1 { 2 + rows * out_stride } else { splits * rows * n_out };
            let bytes = (0..rows * cols / 4).map(|_| random.bits() as u32).collect();
            let buffers = MatmulInt8Bindings {
                weights: packed_rows(&mut random, &layout, n_out),
                x: Data::I8(bytes),
                out: Data::F32(random.floats(out as usize)),
                activation_scales: Data::F32(random.floats((rows * cols / 32) as usize)),
                bias: optional(epilogue.bias, random.floats((first_out + n_out) as usize)),
                chosen: None,
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
        experts: None,
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
        let linear = Linear {
            layout,
            n_out,
            rows,
            x_offset: 8,
            x_stride,
            out_offset: 2,
            out_stride,
            out_step: 2,
            first_out: 1,
            epilogue,
            experts: None,
        };
        let workspace = Data::F32(random.floats((splits * rows * n_out) as usize));
        let bias = Some(Data::F32(random.floats(38)));
        let x = Data::F32(random.floats((8 + rows * x_stride) as usize));
        let weights = packed_rows(&mut random, &layout, n_out);
        let buffers = MatmulBindings { weights, x, out: workspace.clone(), bias: bias.clone(), chosen: None };
        devices.check(|| Matmul { linear, splits }, &buffers, F32);
        subgroups.check_on_one(|| Matmul { linear, splits }, &buffers, F32);
        let out = Data::F32(random.floats((2 + rows * out_stride) as usize));
        let buffers = MatmulCombineBindings { workspace, out, bias };
        devices.check(|| MatmulCombine { linear, splits }, &buffers, F32);
    }
}
