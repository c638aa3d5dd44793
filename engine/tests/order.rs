//! What a plan says that a load reads is what it reads, in that order: reading ahead hangs on it.

use std::cell::RefCell;
use std::ops::Range;
use std::path::PathBuf;

use doppler_engine::engine::Engine;
use doppler_engine::exec::{Cpu, Executor, Scope};
use doppler_engine::formats::convert::Recipe;
use doppler_engine::formats::{Checkpoint, DType, TensorInfo};
use doppler_engine::kernels::Capabilities;
use doppler_engine::model::{Model, ModelOptions, read_checkpoint};
use doppler_engine::plan::load_plan;
use doppler_engine::source::{FileSpan, Reading, Source, open};
use futures::executor::block_on;

/// Notes what is read.
#[derive(Debug)]
struct Noting(Box<dyn Source>, RefCell<Vec<Range<u64>>>);

impl Source for Noting {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn files(&self) -> Vec<FileSpan> {
        self.0.files()
    }

    fn read(&self, offset: u64, bytes: usize) -> Reading<'_> {
        self.1.borrow_mut().push(offset..offset + bytes as u64);
        self.0.read(offset, bytes)
    }
}

fn noting(model: &str) -> Noting {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    Noting(open(&fixtures.join(model)).unwrap(), RefCell::default())
}

#[test]
fn load_plan_reads_equal_actual_reads() {
    // Small slabs and pieces: tensors are read in several.
    let capabilities = Capabilities { max_binding: 32 << 10, ..Capabilities::BASELINE };
    let models = ["tiny/tiny-q4_k.gguf", "architectures/falcon-7b.gguf", "architectures/gpt2.gguf", "folders/llama", "folders/gemma2"];
    let mut pieces = false;
    for (model, quantize) in models.iter().flat_map(|model| [(model, None), (model, Some(Recipe::Q8_0))]) {
        let source = noting(model);
        let options = ModelOptions { context: 64, sequences: 1, prefill_rows: 8, quantize, ..ModelOptions::default() };
        let checkpoint = block_on(read_checkpoint(&source)).unwrap();
        let headers = source.1.take();
        let planned = load_plan(&checkpoint, &capabilities, options).unwrap().reads;
        let planned: Vec<_> = planned.into_iter().filter(|range| !range.is_empty()).collect();
        let executor = Executor::Cpu(Cpu::new(capabilities.clone()));
        block_on(Engine::load(executor, model, &source, options, &mut |_| {})).map_err(|(_, error)| error).unwrap();
        let read = source.1.take();
        assert_eq!(read[..headers.len()], headers, "{model}");
        assert_eq!(read[headers.len()..], planned, "{model} {quantize:?}");
        pieces |= planned.len() > checkpoint.tensors.len();
    }
    assert!(pieces, "no tensor was read in pieces");
}

/// Makes the tensors of a header those of another model.
type Change = Box<dyn Fn(&mut Vec<TensorInfo>)>;

#[test]
fn load_mismatched_tensor_fails_before_reads() {
    let source = noting("tiny/tiny-q4_k.gguf");
    let checkpoint = block_on(read_checkpoint(&source)).unwrap();
    source.1.take();
    let position = |name: &str| checkpoint.tensors.iter().position(|tensor| tensor.name == name).unwrap();
    let (norm, down) = (position("output_norm.weight"), position("blk.1.ffn_down.weight"));
    let changes: [(&str, Change); 5] = [
        ("blk.1.more.weight", Box::new(move |t| t.push(TensorInfo { name: "blk.1.more.weight".to_owned(), ..t[norm].clone() }))),
        ("output_norm.weight", Box::new(move |t| t[norm].shape[0] += 1)),
        ("output_norm.weight", Box::new(move |t| _ = t.remove(norm))),
        ("blk.1.ffn_down.weight", Box::new(move |t| t[down].shape.swap(0, 1))),
        ("blk.1.ffn_down.weight", Box::new(move |t| t[down].dtype = DType::Unknown(99))),
    ];
    for (name, change) in changes {
        let mut tensors = checkpoint.tensors.clone();
        change(&mut tensors);
        let changed = Checkpoint::new(checkpoint.metadata.clone(), tensors).unwrap();
        let executor = Executor::Cpu(Cpu::new(Capabilities::BASELINE));
        let options = ModelOptions { context: 64, ..ModelOptions::default() };
        let error =
            block_on(Model::load(&executor, &mut Scope::default(), &changed, &source, options, &mut |_| {})).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        assert_eq!(source.1.take(), [], "{error}");
    }
}
