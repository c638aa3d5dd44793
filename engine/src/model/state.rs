//! The state that layers keep between passes: declared by the spec, on the device as long as the model.

use super::options::ModelOptions;
use super::spec::{ModelSpec, StateSpec};
use crate::error::Result;
use crate::exec::{BufferId, Executor, Scope};
use crate::kernels::{KvFormat, PAGE};

/// Keys and values of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct KvCache {
    pub(super) keys: BufferId,
    pub(super) values: BufferId,
    /// Whether its pages are those of the window layers: see [`WindowPages`].
    pub(super) windowed: bool,
}

/// Pages of the layers that see a window only, where those have fewer than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowPages {
    /// How many there are.
    pub count: u32,
    /// Positions before a row that stay readable.
    pub behind: u32,
    /// Most that a sequence needs at any time.
    pub most: u32,
}

/// The number of pages of a model's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCounts {
    /// Of the layers that see all positions, and of all layers without `windows`.
    pub pages: u32,
    /// Of those that see a window.
    pub windows: Option<WindowPages>,
    /// Of a sequence of the longest context.
    pub per_slot: u32,
}

/// The state of all layers.
#[derive(Debug)]
pub(super) struct State {
    pub(super) counts: PageCounts,
    /// Of each layer.
    pub(super) layers: Vec<KvCache>,
}

impl State {
    /// Makes the state of all layers.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub(super) fn create(executor: &Executor, scope: &mut Scope, spec: &ModelSpec, options: &ModelOptions) -> Result<Self> {
        let counts = PageCounts::of(spec, options);
        let mut layers = Vec::with_capacity(spec.layers.len());
        for layer in &spec.layers {
            let StateSpec::Pages { bytes_per_position, window } = layer.state(options.kv);
            let windows = counts.windows.filter(|pages| pages.serves(window));
            let pages = windows.map_or(counts.pages, |windows| windows.count);
            let bytes = bytes_per_position / 2 * u64::from(PAGE) * u64::from(pages);
            let mut create = |label| scope.create_buffer(executor, label, bytes);
            layers.push(KvCache { keys: create("keys")?, values: create("values")?, windowed: windows.is_some() });
        }
        Ok(Self { counts, layers })
    }
}

impl WindowPages {
    /// Positions behind a row that a row before it may still see: its sequence may be set back so far.
    const SET_BACK: u32 = PAGE;

    /// Those of layers that see so many positions, in passes of so many rows.
    fn of(window: u32, rows: u32) -> Self {
        let behind = window - 1 + Self::SET_BACK;
        // A window may begin in the middle of a page, and a pass end in the middle of one.
        let most = (behind + rows).div_ceil(PAGE) + 1;
        Self { count: most, behind, most }
    }

    /// Whether a layer with this window has these pages.
    fn serves(&self, window: Option<u32>) -> bool {
        window.is_some_and(|window| window - 1 + Self::SET_BACK <= self.behind)
    }
}

impl PageCounts {
    /// As many as stay below [`ModelOptions::kv_bytes`], and at least those of one sequence of the longest context.
    fn of(spec: &ModelSpec, options: &ModelOptions) -> Self {
        // Rows of a sequence in a submission of decode steps.
        const MIN_ROWS: u32 = 32;
        let per_slot = options.context.div_ceil(PAGE);
        let most = per_slot.saturating_mul(options.sequences);
        let within = |bytes: u64, page: u64| u32::try_from(bytes.checked_div(page).unwrap_or(u64::MAX)).unwrap_or(u32::MAX);
        let affordable = within(options.kv_bytes, bytes_per_page(spec, options.kv, |_| true));
        let alike = Self { pages: affordable.clamp(per_slot, most), windows: None, per_slot };
        if affordable >= per_slot || !spec.is_causal() {
            // All layers hold all positions: sequences of any length share the pages best so.
            return alike;
        }
        // The longest window with which a sequence needs fewer pages than without.
        let shorter =
            |window: u32| Some(WindowPages::of(window, options.prefill_rows.max(MIN_ROWS))).filter(|windows| windows.most < per_slot);
        let windows = spec.layers.iter().filter_map(|layer| {
            let StateSpec::Pages { window, .. } = layer.state(options.kv);
            window.and_then(shorter)
        });
        let Some(windows) = windows.max_by_key(|windows| windows.behind) else { return alike };
        let [windowed, whole] = [true, false].map(|kind| bytes_per_page(spec, options.kv, |window| windows.serves(window) == kind));
        let left = options.kv_bytes.saturating_sub(u64::from(per_slot) * whole);
        let count = within(left, windowed).clamp(windows.most, per_slot);
        // Where all layers have windows, pages of the others take no memory: they are numbers in the index.
        let pages = if whole == 0 { most } else { per_slot };
        Self { pages, windows: Some(WindowPages { count, ..windows }), per_slot }
    }

    /// Sequences of the longest context that the cache holds together.
    pub fn sequences(&self) -> u32 {
        let windows = self.windows.map_or(u32::MAX, |windows| windows.count / windows.most);
        (self.pages / self.per_slot).min(windows)
    }
}

/// Bytes of a page in the layers with such windows.
fn bytes_per_page(spec: &ModelSpec, kv: KvFormat, which: impl Fn(Option<u32>) -> bool) -> u64 {
    let bytes = |layer| {
        let StateSpec::Pages { bytes_per_position, window } = layer;
        if which(window) { bytes_per_position } else { 0 }
    };
    spec.layers.iter().map(|layer| bytes(layer.state(kv))).sum::<u64>() * u64::from(PAGE)
}
