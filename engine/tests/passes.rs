//! Every pass of a model finds room for its activations, which were made for the largest passes alone.

use std::path::PathBuf;

use doppler_engine::exec::{BufferId, DryRun, Executor, Scope, recording::Command};
use doppler_engine::kernels::{Capabilities, SubgroupMatrix, Tuning};
use doppler_engine::model::{Model, ModelOptions, Output, Pass, read_checkpoint};
use doppler_engine::shaders::BindingKind;
use doppler_engine::source::open;
use futures::executor::block_on;

/// All passes that a scheduler could ask for.
fn passes(model: &Model) -> Vec<Pass> {
    let ModelOptions { context, sequences, prefill_rows, .. } = model.options;
    let prefill = Pass::prefill;
    let mut passes = Vec::new();
    if model.spec.head.pooling.is_some() {
        passes.extend((1..=prefill_rows).map(|rows| prefill(rows, Output::Embeddings(1))));
        let together = |run: u32| {
            [run, prefill_rows / run * run, prefill_rows].map(|rows| Pass { run, ..prefill(rows, Output::Embeddings(sequences)) })
        };
        passes.extend((1..=prefill_rows).flat_map(together));
    }
    if model.spec.is_causal() {
        let outputs = [Output::Cache, Output::SomeLogits(1), Output::SomeLogits(sequences)];
        passes.extend((1..=prefill_rows).flat_map(|rows| outputs.map(|output| prefill(rows, output))));
        let runs = |rows: u32| (1..=rows).map(move |run| Pass { run, ..prefill(rows, Output::SomeLogits(sequences)) });
        passes.extend((1..=prefill_rows).flat_map(runs));
        for rows in 1..=sequences {
            passes.push(prefill(rows, Output::Logits));
            passes.extend([1, 600, 1100, context].map(|positions| model.decode_pass(rows, positions.min(context))));
        }
    }
    passes
}

/// WebGPU refuses a dispatch that writes a buffer which it binds twice.
fn check_bindings(command: &dyn Command, capabilities: &Capabilities) {
    let plan = command.plan(capabilities);
    let bound = |kind| -> Vec<BufferId> {
        let bindings = plan.shader.bindings.iter().filter(|binding| binding.kind == kind);
        bindings.filter_map(|binding| command.buffer(binding.index)).collect()
    };
    let (read, mut written) = (bound(BindingKind::Read), bound(BindingKind::ReadWrite));
    let count = written.len();
    written.sort_unstable();
    written.dedup();
    assert!(written.len() == count && written.iter().all(|buffer| !read.contains(buffer)), "{command:?}");
}

#[test]
fn passes_of_any_size_fit_scratch_of_largest() {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    let bytes = Capabilities {
        subgroup_size: Some(32),
        workgroup_storage: 48 << 10,
        discrete: true,
        tuning: Tuning::of(Some(32), true),
        ..Capabilities::BASELINE
    };
    let matrices = Capabilities { shader_f16: true, matrices: Some(SubgroupMatrix::F16x16), ..bytes.clone() };
    let split = Capabilities { tuning: Tuning { matmul_tiles: 1024, ..Tuning::of(Some(32), false) }, ..bytes.clone() };
    for model in ["tiny/tiny-q4_k", "architectures/llama-3", "architectures/falcon-7b", "architectures/gemma3", "architectures/bert-mean"] {
        let source = open(&fixtures.join(model).with_extension("gguf")).unwrap();
        let checkpoint = block_on(read_checkpoint(&*source)).unwrap();
        for capabilities in [&Capabilities::BASELINE, &bytes, &matrices, &split] {
            for (sequences, prefill_rows) in [(1, 1), (12, 300), (40, 48)] {
                let options = ModelOptions { context: 2048, sequences, prefill_rows, ..ModelOptions::default() };
                let executor = Executor::Dry(DryRun::new(capabilities.clone()));
                let (model, _) = Model::plan(&executor, &mut Scope::default(), &checkpoint, options).unwrap();
                for pass in passes(&model) {
                    // It panics where an activation has no room.
                    let recording = model.record(&pass);
                    recording.commands.iter().for_each(|command| check_bindings(&**command, capabilities));
                }
            }
        }
    }
}
