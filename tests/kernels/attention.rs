//! Rotary embedding, the cache, and attention over it.

use doppler_engine::exec::{Executor, gpu::GpuOptions};
use doppler_engine::kernels::{
    AttentionCombine, AttentionCombineBindings, AttentionDecode, AttentionDecodeBindings, AttentionPrefill, AttentionPrefillBindings,
    AttentionShape, AttentionTier, HeadNorm, KvFormat, PAGE, RopeKv, RopeKvBindings, RopePairing, Rotary, Row, Splits, Temperature,
};
use doppler_tests::{Data, Devices, Random, compare, gpu};

use super::F32;

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

/// Position of a row that is to be left alone.
const INACTIVE: u32 = u32::MAX;

/// Rows of these slots and positions; the last position of a slot is the end of its text.
fn rows(list: &[(u32, u32)]) -> Data {
    let end =
        |slot| list.iter().filter(|(other, position)| *other == slot && *position != INACTIVE).map(|(_, position)| position + 1).max();
    let row = |&(slot, position)| match position {
        INACTIVE => Row { slot, ..Row::default() },
        position => Row { token: 0, position, slot, remaining: end(slot).unwrap_or(0) - position },
    };
    let rows: Vec<Row> = list.iter().map(row).collect();
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
                // A norm's weights wait for the rotation of whole heads.
                let weighted = rotated == head_dim && pairing == RopePairing::Halves;
                let kernel = || RopeKv { rows: 4, heads, kv_heads, head_dim, rotary, weighted, pages_per_slot, kv };
                let frequencies: Vec<f32> = (0..(rotated / 2).max(1)).map(|i| 10_000f32.powf(-2.0 * i as f32 / rotated as f32)).collect();
                let cached_heads = page_count * PAGE * kv_heads;
                let buffers = RopeKvBindings {
                    qkv: Data::F32(random.floats((4 * (heads + 2 * kv_heads) * head_dim) as usize)),
                    keys: cache(&mut random, kv, head_dim, cached_heads),
                    values: cache(&mut random, kv, head_dim, cached_heads),
                    pages,
                    rows: rows(&[(0, 1), (1, 33), (1, INACTIVE), (1, 159)]),
                    rope_constants: Data::F32([frequencies, random.floats(2 * head_dim as usize)].concat()),
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
        weighted: false,
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
            sinks: 0,
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
        constants: if shape.sinks > 0 { Some(Data::F32(random.floats((shape.sinks + shape.heads) as usize))) } else { None },
    }
}

/// The same with a sink for each head.
fn with_sinks(shape: AttentionShape) -> AttentionShape {
    AttentionShape { sinks: 3, ..shape }
}

#[test]
fn attention_decode() {
    let mut devices = Devices::open();
    let mut random = Random::new(10);
    // No rotation; whole heads rotated, with norms before and behind that; neighbours rotated in a part of the head, with norms.
    let rotary = |rotated, pairing| Rotary { rotated, pairing, magnitude: 1.25, temperature: None };
    let temperature = Some(Temperature { growth: 0.1, span: 16.0 });
    for kv in KV_FORMATS {
        for (i, mut shape) in attention_shapes(kv, 20).into_iter().enumerate() {
            shape.q_stride = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
            let (rotary, qk_norm) = match i % 3 {
                0 => (rotary(0, RopePairing::Halves), None),
                1 => {
                    let whole = Rotary { temperature, ..rotary(shape.head_dim, RopePairing::Halves) };
                    (whole, Some(HeadNorm { eps: 1e-5, behind_rotation: i == 4 }))
                }
                _ => (rotary(6, RopePairing::Neighbours), Some(HeadNorm { eps: 1e-5, behind_rotation: false })),
            };
            for (list, count, length) in [
                (vec![(0, 0), (1, 63)], 1, 64),
                (vec![(1, 5), (0, 639)], 1, 640),
                // Rows of different sequences: no row reads pages that another writes.
                (vec![(0, 300), (1, 639)], 10, 64),
                (vec![(1, 5), (0, INACTIVE), (0, 300)], 2, 512),
            ] {
                let count_of_rows = list.len() as u32;
                let AttentionPrefillBindings { q, keys, values, pages, rows, out, .. } = attention_buffers(&mut random, &shape, &list);
                let rope_constants: Vec<f32> = (0..rotary.rotated / 2).map(|i| 0.9f32.powi(i as i32)).collect();
                let rope_constants = if rope_constants.is_empty() { vec![0.0] } else { rope_constants };
                let weights = random.floats(2 * shape.head_dim as usize);
                // Every other shape has sinks.
                shape.sinks = if i % 2 == 1 { (rope_constants.len() + weights.len()) as u32 } else { 0 };
                let sinks = random.floats(shape.heads as usize);
                let rope_constants = Data::F32([rope_constants, weights, sinks].concat());
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
        let workspace = Data::F32(workspace);
        let constants = Some(Data::F32(random.floats(2 + heads as usize)));
        for (sinks, constants) in [(0, None), (2, constants)] {
            let buffers = AttentionCombineBindings { workspace: workspace.clone(), out: out.clone(), constants };
            devices.check(|| AttentionCombine { heads, head_dim, rows, splits, sinks }, &buffers, F32);
        }
    }
}

/// Runs of positions of a slot, each from a multiple of 32 rows on: slot, first position, positions. Rows between them repeat the last.
fn runs(runs: &[(u32, u32, u32)]) -> Vec<(u32, u32)> {
    let mut list = Vec::new();
    for (i, &(slot, first, count)) in runs.iter().enumerate() {
        let rows = if i + 1 < runs.len() { count.next_multiple_of(AttentionPrefill::TILE) } else { count };
        list.extend((0..rows).map(|row| (slot, first + row.min(count - 1))));
    }
    list
}

#[test]
fn attention_prefill() {
    let mut devices = Devices::open();
    let mut random = Random::new(12);
    for kv in KV_FORMATS {
        for shape in attention_shapes(kv, 20) {
            for list in [runs(&[(1, 0, 1)]), runs(&[(1, 0, 70)]), runs(&[(1, 131, 37)]), runs(&[(1, 131, 37), (0, 7, 3), (1, 20, 33)])] {
                let count = list.len() as u32;
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
        let two: &[_] = &[(1, 0, 37), (0, 0, 20)];
        for (window, right_window, texts) in [(0, 4096, two), (13, 12, two), (31, 30, &[(1, 0, 1)])] {
            let shape = with_sinks(AttentionShape { window, right_window, ..shape });
            let list = runs(texts);
            let rows = list.len() as u32;
            let buffers = attention_buffers(&mut random, &shape, &list);
            for tier in [AttentionTier::Small, AttentionTier::Streaming] {
                devices.check(|| AttentionPrefill { shape, rows, tier, splits: 1 }, &buffers, 1e-9);
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
        let several: &[_] = &[(1, 131, 37), (0, 7, 3), (1, 20, 33)];
        let cases = [
            (&[(1, 0, 1)][..], 0, 0),
            (&[(1, 0, 70)], 0, 0),
            (&[(1, 131, 137)], 0, 0),
            (several, 0, 0),
            (&[(1, 0, 70)], 0, 4096),
            (&[(1, 0, 70), (0, 0, 33)], 0, 4096),
            (&[(1, 0, 70), (0, 0, 33)], 13, 12),
        ];
        for (list, window, right_window) in cases {
            let shape = if right_window > 0 { AttentionShape { window, right_window, ..shape } } else { with_sinks(shape) };
            let list = runs(list);
            let count = list.len() as u32;
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
