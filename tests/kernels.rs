//! Every kernel and variant against its CPU reference: odd sizes, sentinels behind every buffer, three sets of features.
#![allow(missing_docs)]

use doppler_engine::formats::DType;
use doppler_engine::kernels::{
    AttentionCombine, AttentionDecode, AttentionPrefill, AttentionShape, AttentionTier, DECODE_SPLIT, Embed, Epilogue, KvFormat, Linear,
    Matmul, Matvec, PAGE, Repack, RmsNorm, RopeKv, RopePairing, Row, SiluMul, WeightLayout,
};
use doppler_tests::{Data, Devices, Random, compare};
use half::f16;

/// Normalized error of single precision sums in another order.
const F32: f64 = 1e-10;
/// The same for products of half precision factors.
const F16: f64 = 1e-5;

const DTYPES: [(DType, u32); 7] =
    [(DType::F32, 40), (DType::F16, 104), (DType::BF16, 72), (DType::Q8_0, 96), (DType::Q4_0, 160), (DType::Q4_K, 512), (DType::Q6_K, 768)];

/// Rows of a file with sensible scales and any quants.
fn raw_rows(random: &mut Random, layout: &WeightLayout, rows: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..rows * layout.file_row_bytes).map(|_| random.bits() as u8).collect();
    let half = |random: &mut Random| f16::from_f32(0.01 + random.float().abs()).to_le_bytes();
    let (block, scales): (usize, &[usize]) = match layout.dtype {
        DType::F32 => {
            for word in bytes.chunks_exact_mut(4) {
                word.copy_from_slice(&random.float().to_le_bytes());
            }
            return bytes;
        }
        DType::F16 => (2, &[0]),
        DType::BF16 => {
            for word in bytes.chunks_exact_mut(2) {
                word.copy_from_slice(&half::bf16::from_f32(random.float()).to_le_bytes());
            }
            return bytes;
        }
        DType::Q8_0 => (34, &[0]),
        DType::Q4_0 => (18, &[0]),
        DType::Q4_K => (144, &[0, 2]),
        DType::Q6_K => (210, &[208]),
        other => panic!("{other}"),
    };
    for block in bytes.chunks_exact_mut(block) {
        for at in scales {
            block[*at..at + 2].copy_from_slice(&half(random));
        }
    }
    bytes
}

/// Packed rows, made by the reference that `repack` is tested against.
fn packed_rows(random: &mut Random, layout: &WeightLayout, rows: u32) -> Data {
    use doppler_engine::cpu::Cpu;
    use doppler_engine::executor::Executor;
    use doppler_engine::kernels::Capabilities;
    use doppler_engine::recording::Recording;
    let mut executor = Executor::Cpu(Cpu::new(Capabilities::BASELINE));
    let mut raw = raw_rows(random, layout, rows);
    raw.resize(raw.len().next_multiple_of(4), 0);
    let words = (rows * layout.stride) as usize;
    let source = executor.create_buffer("raw", raw.len() as u64).expect("memory");
    let target = executor.create_buffer("packed", 4 * words as u64).expect("memory");
    executor.write(source, 0, &raw);
    let mut recording = Recording::new();
    recording.dispatch(Repack { layout: *layout, rows, first_row: 0, row_step: 1 }, &[source, target]);
    executor.run_once("pack", recording).expect("a run");
    Data::U32(doppler_tests::read(&mut executor, target, words))
}

fn layout(dtype: DType, cols: u32) -> WeightLayout {
    WeightLayout::new("test", dtype, u64::from(cols)).expect("a supported layout")
}

#[test]
fn repack_keeps_every_bit() {
    let mut devices = Devices::open();
    let mut random = Random::new(1);
    for (dtype, cols) in DTYPES {
        let layout = layout(dtype, cols);
        for (rows, first_row, row_step) in [(1, 0, 1), (5, 2, 1), (3, 1, 2)] {
            let raw = Data::bytes(&raw_rows(&mut random, &layout, rows));
            let packed = Data::U32(vec![0; ((first_row + rows * row_step) * layout.stride) as usize]);
            devices.check(|| Repack { layout, rows, first_row, row_step }, &[raw, packed], 0.0);
        }
    }
}

/// What the layout's reader gives is what the GGUF block means.
#[test]
fn packed_rows_dequantize_to_the_files_values() {
    use doppler_engine::formats::dequantize;
    use doppler_engine::kernels::dequantize_row;
    for (dtype, cols) in DTYPES {
        let layout = layout(dtype, cols);
        let raw = raw_rows(&mut Random::new(2), &layout, 3);
        let mut want = Vec::new();
        dequantize(dtype, &raw, &mut want).expect("valid blocks");
        let Data::U32(packed) = packed_rows(&mut Random::new(2), &layout, 3) else { unreachable!() };
        let got: Vec<f32> = packed.chunks_exact(layout.stride as usize).flat_map(|row| dequantize_row(&layout, row)).collect();
        assert_eq!(got, want, "{dtype}");
    }
}

#[test]
fn embed() {
    let mut devices = Devices::open();
    let mut random = Random::new(3);
    for (dtype, cols) in DTYPES {
        let layout = layout(dtype, cols);
        let (tokens, first_token) = (11, 7);
        // One token before and one behind the slab: their rows stay as they are.
        let rows: Vec<u32> = [7, 17, 6, 18, 12].iter().flat_map(|t| [*t, 0, 0, 1]).collect();
        let weights = packed_rows(&mut random, &layout, tokens);
        let out = Data::F32(vec![7.0; (5 * cols) as usize]);
        devices.check(|| Embed { layout, rows: 5, first_token, tokens, scale: 1.5 }, &[weights, Data::U32(rows), out], F32);
    }
}

#[test]
fn matvec() {
    let mut devices = Devices::open();
    let mut random = Random::new(4);
    for (dtype, cols) in DTYPES {
        let layout = layout(dtype, cols);
        for (n_out, rows, epilogue, norm) in [
            (1, 1, Epilogue::Store, None),
            (37, 1, Epilogue::Add, None),
            (38, 1, Epilogue::SiluMul, Some(1e-5)),
            (5, 3, Epilogue::Store, Some(1e-5)),
            (70, 6, Epilogue::SiluMul, Some(1e-5)),
            (33, 8, Epilogue::Add, None),
        ] {
            let outputs = if epilogue == Epilogue::SiluMul { n_out / 2 } else { n_out };
            let (x_stride, out_stride) = (cols + 4, outputs + 3);
            let linear = Linear { layout, n_out, rows, x_offset: 8, x_stride, out_offset: 2, out_stride, epilogue };
            let mut buffers = vec![
                packed_rows(&mut random, &layout, n_out),
                Data::F32(random.floats((8 + rows * x_stride) as usize)),
                Data::F32(random.floats((2 + rows * out_stride) as usize)),
            ];
            if norm.is_some() {
                buffers.push(Data::F32(random.floats(cols as usize)));
            }
            devices.check(|| Matvec { linear, norm }, &buffers, F32);
        }
    }
}

#[test]
fn matmul() {
    let mut devices = Devices::open();
    let mut random = Random::new(5);
    for (dtype, cols) in DTYPES {
        let layout = layout(dtype, cols);
        for (n_out, rows, epilogue) in [(64, 64, Epilogue::Store), (67, 9, Epilogue::Add), (3, 70, Epilogue::Store)] {
            let (x_stride, out_stride) = (cols + 4, n_out + 3);
            let linear = Linear { layout, n_out, rows, x_offset: 8, x_stride, out_offset: 2, out_stride, epilogue };
            let buffers = [
                packed_rows(&mut random, &layout, n_out),
                Data::F32(random.floats((8 + rows * x_stride) as usize)),
                Data::F32(random.floats((2 + rows * out_stride) as usize)),
            ];
            devices.check(|| Matmul(linear), &buffers, F16);
        }
    }
}

#[test]
fn rms_norm() {
    let mut devices = Devices::open();
    let mut random = Random::new(6);
    for (rows, dim) in [(1, 8), (3, 512), (5, 1032)] {
        let x = Data::F32(random.floats((rows * dim) as usize));
        let weight = Data::F32(random.floats(dim as usize));
        let out = Data::F32(vec![0.0; (rows * dim) as usize]);
        devices.check(|| RmsNorm { rows, dim, eps: 1e-5 }, &[x, weight, out], F32);
    }
}

#[test]
fn silu_mul() {
    let mut devices = Devices::open();
    let mut random = Random::new(7);
    for (rows, dim) in [(1, 2), (3, 258), (7, 1536)] {
        let x = Data::F32(random.floats(2 * (rows * dim) as usize).iter().map(|v| 20.0 * v).collect());
        devices.check(|| SiluMul { rows, dim }, &[x, Data::F32(vec![0.0; (rows * dim) as usize])], F32);
    }
}

/// Pages of two sequences in no order.
fn page_table(pages_per_slot: u32) -> (Data, u32) {
    let pages = 2 * pages_per_slot;
    (Data::U32((0..pages).map(|i| (i * 7 + 3) % pages).collect()), pages)
}

fn cache(random: &mut Random, kv: KvFormat, elements: u32) -> Data {
    let values = random.floats(elements as usize);
    match kv {
        KvFormat::F32 => Data::F32(values),
        KvFormat::F16 => Data::F16(values.into_iter().map(f16::from_f32).collect()),
    }
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
    for kv in [KvFormat::F32, KvFormat::F16] {
        for pairing in [RopePairing::Neighbours, RopePairing::Halves] {
            for (heads, kv_heads, head_dim, rotated) in [(4, 2, 64, 64), (3, 3, 20, 12), (8, 1, 80, 32)] {
                let (pages, page_count) = page_table(pages_per_slot);
                let kernel = || RopeKv { rows: 3, heads, kv_heads, head_dim, rotated, pairing, pages_per_slot, kv };
                let frequencies: Vec<f32> = (0..rotated / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / rotated as f32)).collect();
                let kv_elements = page_count * PAGE * kv_heads * head_dim;
                let buffers = [
                    Data::F32(random.floats((3 * (heads + 2 * kv_heads) * head_dim) as usize)),
                    Data::F32(frequencies),
                    pages,
                    rows(&[(0, 0), (1, 33), (1, 159)]),
                    cache(&mut random, kv, kv_elements),
                    cache(&mut random, kv, kv_elements),
                ];
                devices.check(kernel, &buffers, 1e-9);
            }
        }
    }
}

/// Angles of long contexts, where the device's own cosine may be far off.
#[test]
fn rope_far_out() {
    let mut devices = Devices::open();
    let pages_per_slot = 4096;
    let kernel = || RopeKv {
        rows: 3,
        heads: 1,
        kv_heads: 1,
        head_dim: 4,
        rotated: 4,
        pairing: RopePairing::Neighbours,
        pages_per_slot,
        kv: KvFormat::F32,
    };
    let buffers = [
        Data::F32(Random::new(9).floats(36)),
        Data::F32(vec![1.0, 0.7371]),
        Data::U32(vec![0; 4096]),
        rows(&[(0, 4097), (0, 32_767), (0, 99_998)]),
        Data::F32(vec![0.0; 4 * PAGE as usize]),
        Data::F32(vec![0.0; 4 * PAGE as usize]),
    ];
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
            scale: 1.5,
            cap,
            kv,
        })
        .collect()
}

fn attention_buffers(random: &mut Random, shape: &AttentionShape, list: &[(u32, u32)]) -> Vec<Data> {
    let (pages, page_count) = page_table(shape.pages_per_slot);
    let kv_elements = page_count * PAGE * shape.kv_heads * shape.head_dim;
    vec![
        Data::F32(random.floats(list.len() * shape.q_stride as usize)),
        cache(random, shape.kv, kv_elements),
        cache(random, shape.kv, kv_elements),
        pages,
        rows(list),
        Data::F32(vec![0.0; list.len() * (shape.heads * shape.head_dim) as usize]),
    ]
}

#[test]
fn attention_decode() {
    let mut devices = Devices::open();
    let mut random = Random::new(10);
    for kv in [KvFormat::F32, KvFormat::F16] {
        for shape in attention_shapes(kv, 20) {
            for (list, splits) in [(vec![(0, 0), (1, 63), (0, 200)], 1), (vec![(1, 5), (0, 300), (1, 639)], 4)] {
                let mut buffers = attention_buffers(&mut random, &shape, &list);
                let partial = list.len() as u32 * shape.heads * splits * (shape.head_dim + 4);
                // With one split the partial results are not written.
                buffers.push(Data::F32(vec![0.5; partial as usize]));
                let rows = list.len() as u32;
                assert!(list.iter().all(|(_, position)| *position < splits * DECODE_SPLIT));
                devices.check(|| AttentionDecode { shape, rows, splits }, &buffers, 1e-9);
            }
        }
    }
}

#[test]
fn attention_combine() {
    let mut devices = Devices::open();
    let mut random = Random::new(11);
    for (heads, head_dim, rows, splits) in [(4, 64, 3, 4), (3, 20, 1, 2), (1, 256, 2, 8)] {
        let mut partial = random.floats((heads * rows * splits * (head_dim + 4)) as usize);
        for (i, part) in partial.chunks_exact_mut((head_dim + 4) as usize).enumerate() {
            // Weights are positive; the last split of a row can be empty.
            part[head_dim as usize + 1] += 1.0;
            if splits > 2 && i % splits as usize == splits as usize - 1 {
                part.fill(0.0);
                part[head_dim as usize] = -1e30;
            }
        }
        let out = Data::F32(vec![0.0; (rows * heads * head_dim) as usize]);
        devices.check(|| AttentionCombine { heads, head_dim, rows, splits }, &[Data::F32(partial), out], F32);
    }
}

#[test]
fn attention_prefill() {
    let mut devices = Devices::open();
    let mut random = Random::new(12);
    for kv in [KvFormat::F32, KvFormat::F16] {
        for shape in attention_shapes(kv, 20) {
            for (first, count) in [(0, 1), (0, 70), (131, 37)] {
                let list: Vec<(u32, u32)> = (first..first + count).map(|position| (1, position)).collect();
                let buffers = attention_buffers(&mut random, &shape, &list);
                for tier in [AttentionTier::Small, AttentionTier::Streaming] {
                    devices.check(|| AttentionPrefill { shape, rows: count, tier }, &buffers, 1e-9);
                }
            }
        }
    }
}

/// The tier for devices with 48 KiB of workgroup memory, which software adapters do not have.
#[test]
fn attention_prefill_large() {
    use doppler_engine::executor::Executor;
    use doppler_engine::gpu::GpuOptions;
    let gpu = doppler_tests::gpu(&GpuOptions::default());
    if AttentionTier::choose(gpu.capabilities(), 64) != AttentionTier::Large {
        let have = gpu.capabilities().workgroup_storage;
        doppler_tests::skip("attention_prefill_large", &format!("the adapter has {have} bytes of workgroup memory, not 48 KiB"));
        return;
    }
    let mut executor = Executor::Gpu(Box::new(gpu));
    let mut random = Random::new(13);
    for kv in [KvFormat::F32, KvFormat::F16] {
        for shape in attention_shapes(kv, 20).into_iter().filter(|s| s.head_dim <= 64) {
            for (first, count) in [(0, 1), (0, 70), (131, 137)] {
                let list: Vec<(u32, u32)> = (first..first + count).map(|position| (1, position)).collect();
                let buffers = attention_buffers(&mut random, &shape, &list);
                let kernel = || AttentionPrefill { shape, rows: count, tier: AttentionTier::Large };
                compare(&mut executor, kernel, &buffers, 1e-9).expect("equal");
            }
        }
    }
}

/// Rows of different sequences through the tier that serves any head size.
#[test]
fn attention_streaming_decodes() {
    let mut devices = Devices::open();
    let mut random = Random::new(14);
    let shape = AttentionShape { head_dim: 260, ..attention_shapes(KvFormat::F16, 20)[0] };
    let shape = AttentionShape { q_stride: shape.heads * 260, ..shape };
    let list = [(0, 17), (1, 300), (0, 0)];
    let buffers = attention_buffers(&mut random, &shape, &list);
    devices.check(|| AttentionPrefill { shape, rows: 3, tier: AttentionTier::Streaming }, &buffers, 1e-9);
}
