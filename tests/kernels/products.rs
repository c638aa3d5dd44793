//! Products with weights: rows one by one, in tiles, and with int8 activations.

use doppler_engine::exec::gpu::GpuOptions;
use doppler_engine::formats::DType;
use doppler_engine::kernels::{
    Activation, Capabilities, Epilogue, Interleave, Kernel, Linear, Matmul, MatmulBindings, MatmulCombine, MatmulCombineBindings,
    MatmulInt8, MatmulInt8Bindings, Matvec, MatvecBindings, QuantizeRows, QuantizeRowsBindings, SubgroupMatrix, Tuning,
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
        (Epilogue { scale: 0.22, ..Epilogue::ADD }, 0),
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
