//! What a plan says that a load reads is what it reads, in that order: reading ahead hangs on it.

use std::cell::RefCell;
use std::ops::Range;
use std::path::PathBuf;

use doppler_engine::cpu::Cpu;
use doppler_engine::engine::Engine;
use doppler_engine::executor::Executor;
use doppler_engine::formats::convert::Recipe;
use doppler_engine::kernels::Capabilities;
use doppler_engine::model::ModelOptions;
use doppler_engine::model::read_checkpoint;
use doppler_engine::plan::foresee;
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

#[test]
fn a_plan_knows_the_order_of_reads() {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    // Small slabs and pieces: tensors are read in several.
    let capabilities = Capabilities { max_binding: 32 << 10, ..Capabilities::BASELINE };
    let models = ["tiny/tiny-q4_k.gguf", "architectures/falcon-7b.gguf", "architectures/gpt2.gguf", "folders/llama", "folders/gemma2"];
    let mut pieces = false;
    for (model, quantize) in models.iter().flat_map(|model| [(model, None), (model, Some(Recipe::Q8_0))]) {
        let source = Noting(open(&fixtures.join(model)).unwrap(), RefCell::default());
        let options = ModelOptions { context: 64, sequences: 1, prefill_rows: 8, quantize, ..ModelOptions::default() };
        let checkpoint = block_on(read_checkpoint(&source)).unwrap();
        let headers = source.1.take();
        let foreseen = foresee(&checkpoint, &capabilities, options).unwrap().reads;
        let foreseen: Vec<_> = foreseen.into_iter().filter(|range| !range.is_empty()).collect();
        let executor = Executor::Cpu(Cpu::new(capabilities.clone()));
        block_on(Engine::load(executor, model, &source, options, &mut |_| {})).map_err(|(_, error)| error).unwrap();
        let read = source.1.take();
        assert_eq!(read[..headers.len()], headers, "{model}");
        assert_eq!(read[headers.len()..], foreseen, "{model} {quantize:?}");
        pieces |= foreseen.len() > checkpoint.tensors.len();
    }
    assert!(pieces, "no tensor was read in pieces");
}
