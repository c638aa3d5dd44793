//! Description of an adapter for people.

/// The kind of a device: where its memory is, and how much may be expected of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceTier {
    /// Shares the system's memory.
    Unified,
    /// Has memory of its own.
    Discrete,
    /// A software adapter, or one that does not say what it is.
    #[default]
    Basic,
}

/// The matrices that a browser's subgroups multiply, for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MatrixSupport {
    /// All shapes that the adapter lists, such as `f16 16x16x16, sums f32`.
    pub shapes: Vec<String>,
    /// The one that suits kernels.
    pub used: Option<String>,
    /// Why there is none.
    pub unused_because: Option<String>,
}

/// An adapter, described for people.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct AdapterSummary {
    /// Vendor, such as `nvidia`.
    pub vendor: String,
    /// Name of the device, or its architecture where the browser hides the name.
    pub description: String,
    /// Kind.
    pub tier: DeviceTier,
    /// Optional features that the engine uses.
    pub features: Vec<&'static str>,
    /// The matrices that subgroups multiply, where a browser shows any.
    pub matrices: Option<MatrixSupport>,
}
