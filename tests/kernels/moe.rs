//! Mixtures of experts: the choice, the order of choices, the products of chosen matrices and their sum.

use doppler_engine::exec::{Executor, Recording, Scope};
use doppler_engine::formats::DType;
use doppler_engine::kernels::{
    Activation, Epilogue, Experts, Gating, Linear, Matmul, MatmulBindings, MatmulInt8, MatmulInt8Bindings, Matvec, MatvecBindings,
    MoeCombine, MoeCombineBindings, MoeSort, MoeSortBindings, MoeTopk, MoeTopkBindings, Shared, TopK,
};
use doppler_tests::{Data, Devices, Random, devices, gpu, read};

use super::products::with_subgroup_matrices;
use super::{F32, FIXED, layout, packed_rows};

const TOP_K: TopK = TopK { experts: 8, used: 2, gating: Gating::Softmax, groups: 1, groups_used: 1, normalize: true, scale: 1.0 };

fn check_top_k(devices: &mut Devices, top_k: TopK, logits: Vec<f32>, bias: Option<Vec<f32>>) {
    let rows = logits.len() as u32 / top_k.experts;
    let buffers = MoeTopkBindings {
        logits: Data::F32(logits),
        bias: bias.map(Data::F32),
        chosen: Data::U32(vec![77; (rows * top_k.used) as usize]),
        expert_weights: Data::F32(vec![0.5; (rows * top_k.used) as usize]),
    };
    let biased = buffers.bias.is_some();
    devices.check(|| MoeTopk { rows, top_k, biased }, &buffers, F32);
}

#[test]
fn moe_topk() {
    let mut devices = Devices::open();
    let mut random = Random::new(31);
    for (experts, used, gating, normalize, scale) in [
        (8, 2, Gating::Softmax, true, 1.0),
        (128, 8, Gating::Softmax, false, 1.0),
        (33, 4, Gating::SoftmaxOfChosen, false, 0.5),
        (160, 6, Gating::Sigmoid, true, 2.5),
        (512, 10, Gating::Sigmoid, false, 1.0),
        (1, 1, Gating::Softmax, true, 1.0),
        (32, 32, Gating::Softmax, true, 1.0),
    ] {
        let top_k = TopK { experts, used, gating, normalize, scale, ..TOP_K };
        let logits = random.floats(3 * experts as usize).iter().map(|z| 4.0 * z).collect();
        check_top_k(&mut devices, top_k, logits, None);
    }
    // The bias decides who is chosen, and is no part of the weights.
    let top_k = TopK { experts: 64, used: 6, gating: Gating::Sigmoid, ..TOP_K };
    let bias = random.floats(64).iter().map(|b| 3.0 * b).collect();
    check_top_k(&mut devices, top_k, random.floats(2 * 64), Some(bias));
    // Only experts of the best groups.
    for (groups, groups_used) in [(8, 4), (4, 1), (32, 8)] {
        let bias = random.floats(64);
        check_top_k(&mut devices, TopK { groups, groups_used, ..top_k }, random.floats(3 * 64), Some(bias));
    }
}

/// The first of equal experts is better, in one invocation and in several.
#[test]
fn moe_topk_ties() {
    let mut devices = Devices::open();
    for experts in [8, 256] {
        let mut logits = vec![0.0; experts as usize];
        check_top_k(&mut devices, TopK { experts, used: 4, ..TOP_K }, logits.clone(), None);
        for at in [experts - 1, 1, experts / 2 + 1] {
            logits[at as usize] = 2.0;
        }
        check_top_k(&mut devices, TopK { experts, used: 5, groups: 4, groups_used: 3, ..TOP_K }, logits, None);
    }
}

/// Experts of so many choices.
fn choices(random: &mut Random, count: u32, experts: u32) -> Vec<u32> {
    (0..count).map(|_| random.below(experts)).collect()
}

/// Every choice is in a tile of its expert, in any order, and all else is empty.
#[test]
fn moe_sort() {
    let mut random = Random::new(32);
    for (name, options) in devices() {
        let executor = Executor::Gpu(Box::new(gpu(&options)));
        for (count, experts) in [(1, 8), (64, 1), (129, 2), (600, 8), (1100, 300), (2500, 512)] {
            let mut chosen = choices(&mut random, count, experts);
            // What is no expert counts as the last.
            chosen[count as usize / 2] = u32::MAX;
            let sort = MoeSort { choices: count, experts };
            let mut scope = Scope::default();
            let from = scope.create_buffer(&executor, "chosen", 4 * u64::from(count)).expect("a buffer");
            let to = scope.create_buffer(&executor, "sorted", 4 * u64::from(sort.numbers())).expect("a buffer");
            executor.write(from, 0, bytemuck::cast_slice(&chosen));
            let mut recording = Recording::new();
            recording.dispatch(sort, MoeSortBindings { chosen: from, sorted: to });
            executor.run_once("test", recording).expect("a run");
            let sorted = read(&executor, to, sort.numbers() as usize);
            let (tiles, rows) = sorted.split_at(sort.tiles() as usize);
            let mut found = Vec::new();
            for (expert, rows) in tiles.iter().zip(rows.chunks_exact(MoeSort::TILE as usize)) {
                let full = rows.iter().take_while(|choice| **choice != u32::MAX).count();
                assert!(rows[full..].iter().all(|choice| *choice == u32::MAX) && (full > 0) == (*expert != u32::MAX), "{name}: {tiles:?}");
                for choice in &rows[..full] {
                    assert_eq!(chosen[*choice as usize].min(experts - 1), *expert, "{name}: choice {choice}");
                    found.push(*choice);
                }
            }
            found.sort_unstable();
            assert!(found.into_iter().eq(0..count), "{name}: {count} choices of {experts} experts");
            scope.free(&executor);
        }
    }
}

#[test]
fn moe_combine() {
    let mut devices = Devices::open();
    let mut random = Random::new(33);
    for (i, (rows, dim, used)) in [(1, 8, 1), (3, 260, 8), (5, 64, 4)].into_iter().enumerate() {
        for shared in [Shared::None, Shared::Plain, Shared::Gated] {
            let elements = (rows * dim) as usize;
            let buffers = MoeCombineBindings {
                y: Data::F32(random.floats(elements * used as usize)),
                expert_weights: Data::F32(random.floats((rows * used) as usize)),
                out: Data::F32(random.floats(elements)),
                shared_out: (shared != Shared::None).then(|| Data::F32(random.floats(elements))),
                shared_gate: (shared == Shared::Gated).then(|| Data::F32(random.floats(rows as usize))),
            };
            devices.check(|| MoeCombine { rows, dim, used, scale: 0.75, add: i % 2 == 1, shared }, &buffers, F32);
        }
    }
}

/// Choices of experts of which a slab has three of five, from the second on.
struct Case {
    linear: Linear,
    weights: Data,
    bias: Option<Data>,
    chosen: Vec<u32>,
}

const EXPERTS: u32 = 5;

fn case(random: &mut Random, dtype: DType, epilogue: Epilogue, share: u32, rows: u32) -> Case {
    let layout = layout(dtype, if dtype.block_size() > 32 { 256 } else { 96 });
    let n_out = 38;
    let linear = Linear {
        layout,
        n_out,
        rows,
        x_offset: 8,
        x_stride: layout.cols + 4,
        out_offset: 2,
        out_stride: n_out + 3,
        out_step: 1,
        first_out: 0,
        epilogue,
        experts: Some(Experts { share, first: 1, count: 3, tiles: 0 }),
    };
    let weights = packed_rows(random, &layout, 3 * n_out);
    let bias = epilogue.bias.then(|| Data::F32(random.floats((EXPERTS * n_out) as usize)));
    let chosen = choices(random, rows, EXPERTS);
    Case { linear, weights, bias, chosen }
}

const TYPES: [DType; 4] = [DType::F32, DType::Q8_0, DType::Q4_K, DType::MXFP4];

#[test]
fn moe_rows_have_the_matrix_of_their_expert() {
    let mut devices = Devices::open();
    let mut random = Random::new(34);
    for dtype in TYPES {
        for (gated, bias, share, rows) in [(true, false, 4, 8), (true, true, 2, 6), (false, true, 1, 7)] {
            let activation = if gated { Activation::ClampedUnit } else { Activation::None };
            let epilogue = Epilogue { gated, bias, activation, weight_scale: 0.7, ..Epilogue::STORE };
            let Case { linear, weights, bias, chosen } = case(&mut random, dtype, epilogue, share, rows);
            let norm = gated.then_some(1e-5);
            let buffers = MatvecBindings {
                weights,
                x: Data::F32(random.floats((8 + rows / share * linear.x_stride) as usize)),
                out: Data::F32(random.floats((2 + rows * linear.out_stride) as usize)),
                norm_weight: norm.map(|_| Data::F32(random.floats(linear.layout.cols as usize))),
                bias,
                chosen: Some(Data::U32(chosen)),
            };
            devices.check(|| Matvec { linear, norm }, &buffers, FIXED);
        }
    }
}

/// Choices in tiles, as they are sorted for them.
fn sorted(linear: Linear, chosen: &[u32]) -> (Linear, Data) {
    let sort = MoeSort { choices: linear.rows, experts: EXPERTS };
    let (tile, tiles) = (MoeSort::TILE as usize, sort.tiles() as usize);
    let mut numbers = vec![u32::MAX; sort.numbers() as usize];
    let mut next = 0;
    for expert in 0..EXPERTS {
        let of_expert: Vec<u32> = (0..linear.rows).filter(|choice| chosen[*choice as usize] == expert).collect();
        for choices in of_expert.chunks(tile) {
            numbers[next] = expert;
            numbers[tiles + next * tile..][..choices.len()].copy_from_slice(choices);
            next += 1;
        }
    }
    let experts = linear.experts.map(|experts| Experts { tiles: sort.tiles(), ..experts });
    (Linear { experts, ..linear }, Data::U32(numbers))
}

#[test]
fn moe_tiles_have_the_matrix_of_their_expert() {
    let mut all = [Devices::open(), with_subgroup_matrices()];
    let mut random = Random::new(35);
    for dtype in TYPES {
        for (bias, share, rows) in [(false, 4, 400), (true, 1, 77)] {
            let epilogue = Epilogue { bias, weight_scale: 0.7, ..Epilogue::STORE };
            let Case { linear, weights, bias, chosen } = case(&mut random, dtype, epilogue, share, rows);
            let (linear, chosen) = sorted(linear, &chosen);
            let out = Data::F32(random.floats((2 + rows * linear.out_stride) as usize));
            let x = Data::F32(random.floats((8 + rows / share * linear.x_stride) as usize));
            let buffers =
                MatmulBindings { weights: weights.clone(), x, out: out.clone(), bias: bias.clone(), chosen: Some(chosen.clone()) };
            for devices in &mut all {
                devices.check(|| Matmul { linear, splits: 1 }, &buffers, F32);
            }
            if dtype.block_size() == 1 {
                continue;
            }
            let cols = linear.layout.cols;
            let linear = Linear { x_offset: 0, x_stride: cols, ..linear };
            let x_rows = rows / share;
            let buffers = MatmulInt8Bindings {
                weights,
                x: Data::I8((0..x_rows * cols / 4).map(|_| random.bits() as u32).collect()),
                out,
                activation_scales: Data::F32(random.floats((x_rows * cols / 32) as usize)),
                bias,
                chosen: Some(chosen),
            };
            all[0].check(|| MatmulInt8 { linear, splits: 1 }, &buffers, F32);
        }
    }
}
